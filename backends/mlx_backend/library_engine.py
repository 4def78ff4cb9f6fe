"""Decoding by mlx-lm's own forward pass and caches, for models that cannot be computed packed.

Rows of prompts of one length and adapter are one batch: they advance together, so nothing is
padded. A prompt is computed once for all its rows. Left out: prefixes that prompts share, reading
one step behind, and what is known of earlier prompts, but for rows that were kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

from offapi.completions import Sampling
from offapi.engine import Kinds, NewToken, RowError, RowRequest, check_new
from offapi.episodes import check_tokens
from offapi.model_spec import Limits

from .drawing import by_prompt, check_request, draw_rows, extension, failures, new_row
from .library_cache import Caches, arrays, take_rows
from .lora import Adapters
from .policy import Policy
from .rows import Row, WaitingPrompt

COMPACT = 0.75  # when a smaller share of a batch is in use, it is copied into a smaller one


@dataclass(eq=False)
class _Batch:
    """Rows that advance together; None where one has ended. All have one adapter."""

    rows: list[Row | None]
    caches: Caches
    last_R: mx.array  # the token each continues from

    @property
    def live(self) -> list[int]:
        """The places of rows that decode."""
        return [place for place, row in enumerate(self.rows) if row]


@dataclass(eq=False)
class _Computed:
    """A prompt's state, and the rows of it that wait for a place."""

    rows: deque[Row]
    caches: Caches
    logits_V: mx.array


class LibraryEngine:
    """One model's rows in progress; see `offapi.engine.Engine`."""

    def __init__(self, policy: Policy, limits: Limits, adapters: Adapters) -> None:
        self.policy, self.limits, self.adapters = policy, limits, adapters
        self.inserted = 0
        self.kinds = Kinds()
        self.close()

    def close(self) -> None:
        """Drop all rows and kept prefixes."""
        self.waiting: deque[WaitingPrompt] = deque()
        self.known: dict[int, Caches] = {}  # of waiting rows that extend kept ones, by number
        self.computed: deque[_Computed] = deque()
        self.batches: list[_Batch] = []
        self.kept: dict[int, tuple[Row, Caches]] = {}
        self.read: list[tuple[Row, int]] = []  # new tokens' rows and places, not returned yet
        self.failed: deque[RowError] = deque()  # not raised yet

    @property
    def idle(self) -> bool:
        """Whether no row waits or decodes."""
        return not (self.waiting or self.computed or self.batches or self.read or self.failed)

    def insert(self, requests: Sequence[RowRequest]) -> list[int]:
        """Let new rows wait for free places, and return their numbers."""
        for request in requests:
            check_request(request, self.policy, self.adapters)
        numbers = range(self.inserted, self.inserted + len(requests))
        self.inserted = numbers.stop
        rows = [new_row(*each, self.kinds) for each in zip(numbers, requests, strict=True)]
        self.waiting.extend(by_prompt(rows))
        return list(numbers)

    def extend(self, row: int, tokens: Sequence[int], sampling: Sampling) -> None:
        """Continue a finished row that was kept, after the given `tokens`."""
        if row not in self.kept:
            raise ValueError(f"row {row} is not a finished row that was kept")
        check_tokens(tokens, self.policy.vocabulary, "an extension")
        before, caches = self.kept[row]
        after = extension(before, tokens, sampling, self.kinds)
        self.policy.check_length(len(after.prompt) + sampling.max_tokens)
        del self.kept[row]
        if before.version == self.policy.version:
            self.known[row], after.length = caches, len(before.computed)
        self.waiting.append(WaitingPrompt(after.prompt, after.adapter, deque([after])))

    def add_adapter(self, name: str, folder: Path | None) -> None:
        """Let rows have the adapter of a further PEFT folder by `name`; None is the base alone."""
        check_new(name, self.adapters.numbers)
        self.adapters.load(name, folder)

    def cancel(self, row: int) -> None:
        """Drop a row, waiting, live or finished."""
        self.kept.pop(row, None)
        self.known.pop(row, None)
        prompts: list[WaitingPrompt | _Computed] = [*self.waiting, *self.computed]
        for rows in (prompt.rows for prompt in prompts):
            for found in [each for each in rows if each.number == row]:
                rows.remove(found)
        self.waiting = deque(prompt for prompt in self.waiting if prompt.rows)
        self.computed = deque(prompt for prompt in self.computed if prompt.rows)
        for batch in self.batches:
            batch.rows = [None if each and each.number == row else each for each in batch.rows]
        self.read = [(each, index) for each, index in self.read if each.number != row]
        self.failed = deque(error for error in self.failed if error.row != row)
        self._compact()

    def step(self) -> list[NewToken]:
        """Admit waiting rows, decode one token for every live row, and return what was drawn."""
        return [row.new_token(index) for row, index in self.advance()]

    def advance(self) -> list[tuple[Row, int]]:
        """Do what `step` does, and return each new token's row and its place in the row."""
        if not self.failed:
            self._admit()
            for batch in self.batches:
                self._decode(batch)
            for error in failures(row for row, _ in self.read):
                self.cancel(error.row)
                self.failed.append(error)
            self._compact()
        if self.failed:
            raise self.failed.popleft()
        read, self.read = self.read, []
        return read

    def _free(self) -> int:
        return self.limits.rollout_rows - sum(len(batch.live) for batch in self.batches)

    def _admit(self) -> None:
        """Fill the free places, and draw the first token of each row that gets one."""
        while (free := self._free()) > 0 and (self.computed or self.waiting):
            if self.computed:
                prompt = self.computed[0]
                rows = _taken(prompt.rows, free)
                logits_RV = mx.repeat(prompt.logits_V[None], len(rows), axis=0)
                self._begin(rows, take_rows(prompt.caches, [0] * len(rows)), logits_RV)
                if not prompt.rows:
                    self.computed.popleft()
            else:
                self._compute(free)

    def _compute(self, free: int) -> None:
        """Compute waiting prompts of one length and adapter together, and begin their rows."""
        chosen = self._chosen(free)
        number = chosen[0].rows[0].number
        known = self.known.pop(number, None)
        start = chosen[0].rows[0].length if known else 0
        caches = known or make_prompt_cache(self.policy.model)
        tokens_PL = mx.array([prompt.tokens[start:] for prompt in chosen])
        logits_PV = self._run(tokens_PL, caches, [prompt.adapter for prompt in chosen])
        self.policy.prefilled_tokens += tokens_PL.size
        begun: list[Row] = []
        places: list[int] = []
        for place, prompt in enumerate(chosen):
            rows = _taken(prompt.rows, free - len(begun))
            begun += rows
            places += [place] * len(rows)
            if prompt.rows:
                own = take_rows(caches, [place])
                self.computed.append(_Computed(prompt.rows, own, logits_PV[place]))
        self._begin(begun, take_rows(caches, places), logits_PV[mx.array(places)])

    def _chosen(self, free: int) -> list[WaitingPrompt]:
        """Take waiting prompts that can be computed together, enough to fill `free` places."""
        first = self.waiting.popleft()
        chosen, rows = [first], len(first.rows)
        if first.rows[0].number in self.known:
            return chosen
        for prompt in list(self.waiting):
            alike = (len(prompt.tokens), prompt.adapter) == (len(first.tokens), first.adapter)
            most = self.limits.micro_batch // len(first.tokens)
            if alike and rows < free and len(chosen) < most and not self._extends(prompt):
                chosen.append(prompt)
                self.waiting.remove(prompt)
                rows += len(prompt.rows)
        return chosen

    def _extends(self, prompt: WaitingPrompt) -> bool:
        return prompt.rows[0].number in self.known

    def _run(self, tokens_RL: mx.array, caches: Caches, adapters: list[str | None]) -> mx.array:
        """Append tokens to the caches, and return the logits at the last of them, (R, V)."""
        step = max(1, self.limits.micro_batch // tokens_RL.shape[0])
        with self.adapters.of_rows(adapters):
            for start in range(0, tokens_RL.shape[1], step):
                hidden_RLD = self.policy.hidden(tokens_RL[:, start : start + step], caches)
                mx.eval(hidden_RLD, list(arrays(caches)))
        return self.policy.logits(hidden_RLD[:, -1])

    def _begin(self, rows: list[Row], caches: Caches, logits_RV: mx.array) -> None:
        for row in rows:
            row.begin(len(row.prompt), False, self.policy.version, row.keep)
        batch = _Batch(list(rows), caches, mx.zeros((len(rows),), mx.int32))
        self.batches.append(batch)
        self._draw(batch, logits_RV)

    def _decode(self, batch: _Batch) -> None:
        """Decode one more token for every row of a batch; ended rows run along."""
        live = batch.live
        if live:
            names = [batch.rows[live[0]].adapter] * len(batch.rows)  # type: ignore[union-attr]
            self._draw(batch, self._run(batch.last_R[:, None], batch.caches, names))

    def _draw(self, batch: _Batch, logits_RV: mx.array) -> None:
        """Draw and read the next token of each row, and let finished rows leave."""
        drawn = draw_rows(list(batch.rows), logits_RV)
        batch.last_R = drawn.tokens_R
        for row in drawn.read():
            self.read.append((row, len(row.tokens) - 1))
            if row.finish:
                place = batch.rows.index(row)
                batch.rows[place] = None
                if row.keep:
                    self.kept[row.number] = row, take_rows(batch.caches, [place])

    def _compact(self) -> None:
        """Drop batches without rows, and copy those of which enough has ended."""
        self.batches = [batch for batch in self.batches if batch.live]
        for batch in self.batches:
            live = batch.live
            if len(live) <= COMPACT * len(batch.rows):
                batch.rows = [batch.rows[place] for place in live]
                batch.caches = take_rows(batch.caches, live)
                batch.last_R = batch.last_R[mx.array(live)]


def _taken(rows: deque[Row], most: int) -> list[Row]:
    """Take at most that many of the rows."""
    return [rows.popleft() for _ in range(min(most, len(rows)))]
