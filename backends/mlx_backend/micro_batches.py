"""Episodes into micro-batches: similar ones together, to share prefixes and pad little.

Pure Python. No split changes a result, so the split is chosen for speed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from offapi.episodes import Episode, SamplingMask, common_prefix_length

# A line may add this many times its own tokens: larger micro-batches keep a device busier.
SLACK = 1.25


@dataclass(frozen=True)
class Line:
    """An episode's tokens, the positions of its masked ones and their sampling mask.

    `index` is the episode's place in the call.
    """

    index: int
    tokens: tuple[int, ...]
    masked: tuple[int, ...]
    sampling_mask: SamplingMask | None


@dataclass(frozen=True)
class MicroBatch:
    """Lines whose first `shared` tokens are the same.

    The shared tokens end before the position that predicts any masked one.
    """

    lines: tuple[Line, ...]
    shared: int

    @property
    def tokens(self) -> int:
        """Positions computed: the shared prefix once, each line's rest padded to the longest."""
        longest = max(len(line.tokens) for line in self.lines)
        return self.shared + len(self.lines) * (longest - self.shared)


def lines(episodes: Sequence[Episode]) -> list[Line]:
    """Return a line for each episode, which `check_scorable` accepted."""
    result = []
    for index, episode in enumerate(episodes):
        masked = tuple(position for position, learned in enumerate(episode.mask) if learned)
        result.append(Line(index, episode.tokens, masked, episode.sampling_mask))
    return result


def micro_batches(todo: Sequence[Line], budget: int, share: bool = True) -> list[MicroBatch]:
    """Split `todo` into micro-batches of at most `budget` tokens, or one line that alone has more.

    They have a prefix if they may `share` it.

    A line joins others only if that computes little more than its own tokens. So what a group
    shares is not repeated for a line that does not share it, and little is padded.
    """
    longest: dict[tuple[int, ...], int] = {}
    for line in todo:
        context = line.tokens[: line.masked[0]]
        longest[context] = max(longest.get(context, 0), len(line.tokens))
    # Lines of one context (a group's completions) stay together; contexts go by their longest line.
    ordered = sorted(
        todo, key=lambda line: (-longest[c := line.tokens[: line.masked[0]]], c, -len(line.tokens))
    )
    batches: list[MicroBatch] = []
    for line in ordered:
        grown = _add(batches[-1], line, share) if batches else None
        if grown and grown.tokens <= min(budget, batches[-1].tokens + SLACK * len(line.tokens)):
            batches[-1] = grown
        else:
            batches.append(MicroBatch((line,), 0))
    return batches


def _add(batch: MicroBatch, line: Line, share: bool) -> MicroBatch:
    first = batch.lines[0]
    if not share:
        return MicroBatch((*batch.lines, line), 0)
    # The hidden state before a masked token must be the line's own.
    most = min(line.masked[0] - 1, batch.shared if len(batch.lines) > 1 else first.masked[0] - 1)
    shared = common_prefix_length([first.tokens[: most + 1], line.tokens[: most + 1]])
    return MicroBatch((*batch.lines, line), shared)
