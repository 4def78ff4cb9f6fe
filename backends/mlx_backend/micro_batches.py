"""Episodes into micro-batches: like with like, so that prefixes are shared and little is padded.

Pure Python. The split may change no result, so it is free to follow speed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from offapi.episodes import Episode, SamplingMask, common_prefix_length

# of a line's own tokens: what it may add to a micro-batch, as larger ones keep a device busier
SLACK = 1.25


@dataclass(frozen=True)
class Line:
    """An episode's tokens, the positions of its masked ones
    and their sampling mask; `index` is its place in the call.
    """

    index: int
    tokens: tuple[int, ...]
    masked: tuple[int, ...]
    sampling_mask: SamplingMask | None


@dataclass(frozen=True)
class MicroBatch:
    """Lines whose first `shared` tokens are the same
    and precede the position before any masked one.
    """

    lines: tuple[Line, ...]
    shared: int

    @property
    def tokens(self) -> int:
        """Positions computed: the shared prefix once,
        and every line's rest padded to the longest.
        """
        return self.shared + len(self.lines) * (
            max(len(line.tokens) for line in self.lines) - self.shared
        )


def lines(episodes: Sequence[Episode]) -> list[Line]:
    """A line for each episode, which `check_scorable` let pass."""
    result = []
    for index, episode in enumerate(episodes):
        masked = tuple(position for position, flag in enumerate(episode.mask) if flag)
        result.append(Line(index, episode.tokens, masked, episode.sampling_mask))
    return result


def micro_batches(todo: Sequence[Line], budget: int) -> list[MicroBatch]:
    """Split `todo` into micro-batches of at most `budget`
    tokens, or one line where that alone has more.

    A line joins others only where that computes little more than it has tokens itself: what a
    group shares is not repeated for the sake of a stranger, nor is much padded.
    """
    longest: dict[tuple[int, ...], int] = {}
    for line in todo:
        context = line.tokens[: line.masked[0]]
        longest[context] = max(longest.get(context, 0), len(line.tokens))
    # Lines of one context (a group's completions) stay together; contexts go by their longest line.
    ordered = sorted(
        todo, key=lambda line: (-longest[c := line.tokens[: line.masked[0]]], c, -len(line.tokens))
    )
    done: list[MicroBatch] = []
    for line in ordered:
        grown = _with(done[-1], line) if done else None
        if grown and grown.tokens <= min(budget, done[-1].tokens + SLACK * len(line.tokens)):
            done[-1] = grown
        else:
            done.append(MicroBatch((line,), 0))
    return done


def _with(batch: MicroBatch, line: Line) -> MicroBatch:
    first = batch.lines[0]
    most = line.masked[0] - 1  # the hidden state before a masked token must be the line's own
    most = min(most, batch.shared if len(batch.lines) > 1 else first.masked[0] - 1)
    same = common_prefix_length([first.tokens[: most + 1], line.tokens[: most + 1]])
    return MicroBatch((*batch.lines, line), same)
