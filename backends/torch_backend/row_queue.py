"""Rows that wait, live and end: what every engine does, whatever computes their tokens.

Left out: how rows are admitted and decoded, which a subclass says.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from offapi.completions import Sampling
from offapi.engine import Kinds, NewToken, RowError, RowRequest, check_new
from offapi.episodes import check_tokens

from .lora import Adapters
from .policy import Policy
from .rows import Row, WaitingPrompt


class RowQueue:
    """One model's rows in progress; see `offapi.engine.Engine`."""

    def __init__(self, policy: Policy, adapters: Adapters, room: int | None = None) -> None:
        self.policy, self.adapters = policy, adapters
        self.room = policy.spec.limits.rollout_rows if room is None else room
        self.inserted = 0
        self.kinds = Kinds()
        self.prepared: int | None = None  # the version of the weights that steps compute with
        self._clear()

    def _clear(self) -> None:
        self.waiting: deque[WaitingPrompt] = deque()
        self.rows: list[Row] = []
        self.kept: dict[int, Row] = {}
        self.fresh = True  # nothing has decoded since the engine was idle
        self.drawn: list[NewToken] = []  # not returned yet
        self.failed: deque[RowError] = deque()  # not raised yet

    def _admit(self) -> list[NewToken]:
        """Run the next waiting prompts, and draw their rows' first tokens."""
        raise NotImplementedError

    def _decode(self) -> list[NewToken]:
        """Draw a token for every live row."""
        raise NotImplementedError

    def _free(self, slot: int) -> None:
        """Drop the row of `slot`, an index of `rows`."""
        raise NotImplementedError

    def _hold(self, slot: int) -> None:
        """Keep what was computed of the row of `slot`, which has finished, until `_release`."""
        raise NotImplementedError

    def _release(self, row: Row) -> None:
        """Let what is held for a kept row be dropped."""
        raise NotImplementedError

    @property
    def idle(self) -> bool:
        """Whether no row waits or decodes."""
        return not (self.waiting or self.rows or self.drawn or self.failed)

    def insert(self, requests: Sequence[RowRequest]) -> list[int]:
        """See `Engine.insert`. Neighbours with one prompt are admitted together."""
        for request in requests:
            self._check(request)
        self.fresh |= self.idle
        numbers = range(self.inserted, self.inserted + len(requests))
        self.inserted = numbers.stop
        rows = [
            Row(number, request, request.tokens, request.sampling, self.kinds.of(request.sampling))
            for number, request in zip(numbers, requests, strict=True)
        ]
        alike = groupby(rows, key=lambda row: (row.prompt, row.request.adapter))
        for (tokens, adapter), group in alike:
            members = list(group)
            for at in range(0, len(members), self.room):
                self.waiting.append(WaitingPrompt(tokens, adapter, members[at : at + self.room]))
        return list(numbers)

    def _check(self, request: RowRequest) -> None:
        if not request.tokens:
            raise ValueError("a prompt must have at least one token, got an empty one")
        check_tokens(request.tokens, self.policy.vocabulary, "a prompt")
        if request.adapter not in self.adapters.names:
            raise ValueError(f"the engine has no adapter {request.adapter!r}")

    def extend(self, row: int, tokens: Sequence[int], sampling: Sampling) -> None:
        """See `Engine.extend`."""
        if row not in self.kept:
            raise ValueError(f"row {row} must be a finished row that was kept")
        check_tokens(tokens, self.policy.vocabulary, "an extension")
        self.fresh |= self.idle
        kept = self.kept.pop(row)
        kept.continue_after(tokens, sampling, self.kinds.of(sampling))
        self.waiting.append(WaitingPrompt(kept.prompt, kept.request.adapter, [kept]))

    def add_adapter(self, name: str, folder: Path | None) -> None:
        """See `Engine.add_adapter`."""
        check_new(name, self.adapters.names)
        self.adapters.load(name, folder)

    def cancel(self, row: int) -> None:
        """See `Engine.cancel`."""
        self.drawn = [token for token in self.drawn if token.row != row]
        self.failed = deque(error for error in self.failed if error.row != row)
        for prompt in self.waiting:
            for waiting in [each for each in prompt.rows if each.number == row]:
                prompt.rows.remove(waiting)
                self._release(waiting)
        self.waiting = deque(prompt for prompt in self.waiting if prompt.rows)
        if row in self.kept:
            self._release(self.kept.pop(row))
        for slot, live in enumerate(self.rows):
            if live.number == row:
                with self.policy.without_gradients():
                    self._free(slot)
                return

    def close(self) -> None:
        """See `Engine.close`."""
        self._clear()

    def step(self) -> list[NewToken]:
        """See `Engine.step`."""
        if not self.failed:
            self.drawn += self._advance()
        if self.failed:
            raise self.failed.popleft()
        drawn, self.drawn = self.drawn, []
        return drawn

    def _advance(self) -> list[NewToken]:
        """Admit waiting rows, decode one token for every live row, and return what was drawn."""
        if self.prepared != self.policy.version:
            self.policy.prepare_rollout()
            self.prepared = self.policy.version
        drawn: list[NewToken] = []
        with self.policy.without_gradients():
            while self._fits():
                drawn += self._admit()
                if any(row.finish for row in self.rows):
                    break
            else:
                if self.rows:
                    drawn += self._decode()
            failed = self._retire()
        return [token for token in drawn if token.row not in failed] if failed else drawn

    def _fits(self) -> bool:
        """Whether the first waiting prompt's rows can have slots, all at once."""
        if not self.waiting:
            return False
        return not self.rows or len(self.rows) + len(self.waiting[0].rows) <= self.room

    def _retire(self) -> set[int]:
        """Drop finished rows, whose keys stay if kept, and failed ones, whose numbers return."""
        failed: set[int] = set()
        for slot in reversed(range(len(self.rows))):
            row = self.rows[slot]
            error = row.matcher and row.matcher.error
            if error:
                failed.add(row.number)
                self.failed.append(RowError(row.number, error))
            elif row.finish is None:
                continue
            elif row.request.keep:
                self._hold(slot)
                self.kept[row.number] = row
            self._free(slot)
        return failed
