"""Which rank computes what, and one result of the ranks' parts. Pure functions: all ranks agree.

Left out: splitting the completions of one prompt, which share their prompt's keys and values.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

from offapi.episodes import Episode, Floats, Metrics
from offapi.policy_loss import Experience, PolicyLoss, Update, contributes

T = TypeVar("T")
Shares = list[list[int]]  # of each rank, the places of what it computes


def deal(count: int, size: int) -> Shares:
    """Deal `count` prompts to `size` ranks in turn."""
    return [list(range(rank, count, size)) for rank in range(size)]


def split_episodes(episodes: Sequence[Episode], size: int) -> Shares:
    """Split episodes into `size` shares of about as many tokens, those of one prompt together."""
    weights = [len(one.tokens) for one in episodes]
    return split([_context(one) for one in episodes], weights, size)


def split_experiences(batch: Sequence[Experience], loss: PolicyLoss, size: int) -> Shares:
    """Split experiences as `split_episodes` does; what is not computed weighs nothing."""
    weights = [len(one.episode.tokens) * contributes(one, loss) for one in batch]
    return split([_context(one.episode) for one in batch], weights, size)


def split(contexts: Sequence[Hashable], weights: Sequence[int], size: int) -> Shares:
    """Split places into `size` shares of about equal weight.

    Places of one context are neighbours in the order that is cut, so that at most `size` - 1
    contexts have places in two shares.
    """
    first: dict[Hashable, int] = {}
    for place, context in enumerate(contexts):
        first.setdefault(context, place)
    ordered = sorted(range(len(contexts)), key=lambda place: first[contexts[place]])
    whole, before = sum(weights) or 1, 0.0
    shares: Shares = [[] for _ in range(size)]
    for place in ordered:
        middle = before + weights[place] / 2
        shares[min(int(middle / whole * size), size - 1)].append(place)
        before += weights[place]
    return [sorted(share) for share in shares]


def take(items: Sequence[T], share: Sequence[int]) -> list[T]:
    """Return the items at the places of `share`."""
    return [items[place] for place in share]


def join_metrics(parts: Sequence[Metrics | None]) -> Metrics:
    """Return the sums of `forward_backward`'s metrics; None: a rank had no share."""
    known = [part for part in parts if part is not None]
    summed: dict[str, float] = {}
    for name in known[0]:
        summed[name] = sum(part[name] for part in known)
    return summed


def join_lists(shares: Shares, parts: Sequence[Sequence[Floats | None]]) -> list[Floats | None]:
    """Return the arrays of all shares in the order of the batch."""
    placed: dict[int, Floats | None] = {}
    for share, arrays in zip(shares, parts, strict=True):
        placed.update(zip(share, arrays, strict=True))
    return [placed[place] for place in range(len(placed))]


def join_updates(
    batch: Sequence[Experience], loss: PolicyLoss, shares: Shares, parts: Sequence[Update | None]
) -> Update:
    """Return the update of the whole batch from those of its shares; None: a share is empty.

    Sums are added, and the means over ratios weighted by the number of ratios.
    """
    known = [(share, part) for share, part in zip(shares, parts, strict=True) if part is not None]
    counts = [_ratios(take(batch, share), loss) for share, _ in known]
    if not any(counts):  # nothing was computed, so each says the same
        counts = [1] * len(counts)
    updates = [part.metrics for _, part in known]
    metrics: dict[str, float] = {}
    for name in updates[0]:
        values = [update[name] for update in updates]
        if name.endswith("mean"):
            pairs = zip(counts, values, strict=True)
            metrics[name] = sum(count * value for count, value in pairs) / sum(counts)
        elif name.endswith("max"):
            pairs = zip(counts, values, strict=True)
            metrics[name] = max(value for count, value in pairs if count)
        else:
            metrics[name] = sum(values)
    computed = [share for share, _ in known]
    lists = join_lists(computed, [part.logprobs for _, part in known])
    return Update(metrics, tuple(lists))


def _context(episode: Episode) -> tuple[int, ...]:
    mask = episode.mask
    return episode.tokens[: mask.index(True) if any(mask) else len(mask)]


def _ratios(share: Sequence[Experience], loss: PolicyLoss) -> int:
    """Count the ratios of a share: one per computed token, or per computed sequence."""
    computed = [one for one in share if contributes(one, loss)]
    by_token = loss.shape.ratio == "token"
    return sum(sum(one.episode.mask) if by_token else 1 for one in computed)
