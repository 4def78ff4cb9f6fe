"""Rows decoded by the library's own forward and cache, in batches of one length and one adapter.

Prompts of one length are computed together, each once, and its cache is copied for every row of the
prompt. The rows of a batch advance together, so that none is ever padded, and finished ones leave
the cache. Left out: prefixes shared between prompts or calls, and batches that join.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from offapi.engine import NewToken
from offapi.prefix_tree import PrefixKey

from .library_forward import continued, library_hidden, select
from .row_queue import RowQueue
from .rows import Row, WaitingPrompt, draw


@dataclass(eq=False)
class CachedRows:
    """Live rows of one length and adapter, and a cache of all their tokens but the last.

    Row i is the one in place `places[i]` of the cache. Where the library's cache would not give
    what its forward does, it is None, and every token is computed again.
    """

    rows: list[Row]
    places: list[int]
    cache: Any
    size: int  # rows in the cache

    def drop(self, row: Row) -> None:
        """Let go of a row; its part of the cache goes with the next `compact`."""
        at = self.rows.index(row)
        del self.rows[at], self.places[at]

    def compact(self, device: torch.device) -> None:
        """Leave in the cache what live rows need."""
        if self.cache is not None and len(self.places) < self.size:
            self.cache = select(self.cache, torch.tensor(self.places, device=device))
            self.places, self.size = list(range(len(self.places))), len(self.places)


class LibraryEngine(RowQueue):
    """Rows in batches. Live rows stand in `rows` in any order."""

    def _clear(self) -> None:
        super()._clear()
        self.batches: list[CachedRows] = []
        self.held: dict[int, Any] = {}  # the caches of kept rows, by their numbers

    def _admit(self) -> list[NewToken]:
        """Run the next waiting prompts of one length once, and draw their rows' first tokens."""
        prompts = self._take()
        first = prompts[0].rows[0]
        key = PrefixKey(first.request.adapter, self.policy.version)
        cache, known = None, 0
        if first.kept is not None and first.kept[0] == key:
            cache, known = self.held[first.number], len(first.kept[1])
        self.policy.prefilled_tokens += len(prompts) * (len(first.prompt) - known)
        logits_PV, cache = self._run([prompt.tokens for prompt in prompts], known, cache, first)
        rows = [row for prompt in prompts for row in prompt.rows]
        for row in rows:
            row.begin(0, key)
            self._release(row)
        counts = [len(prompt.rows) for prompt in prompts]
        places = [place for place, count in enumerate(counts) for _ in range(count)]
        places_R = torch.tensor(places, device=logits_PV.device)
        cache = None if cache is None else select(cache, places_R)
        self.batches.append(CachedRows(list(rows), list(range(len(rows))), cache, len(rows)))
        self.rows += rows
        return draw(logits_PV[places_R], rows)

    def _take(self) -> list[WaitingPrompt]:
        """Take prompts that have one length and adapter, free slots, and fit into one pass.

        A row that was kept comes alone, since what is held of it is its own.
        """
        first = self.waiting.popleft()
        if first.rows[0].kept is not None:
            return [first]
        taken = [first]
        rows, length = len(self.rows) + len(first.rows), len(first.tokens)
        while self.waiting:
            prompt = self.waiting[0]
            rows += len(prompt.rows)
            alike = len(prompt.tokens) == length and prompt.adapter == first.adapter
            fits = (len(taken) + 1) * length <= self.policy.spec.limits.micro_batch
            if not (alike and fits) or rows > self.room or prompt.rows[0].kept is not None:
                break
            taken.append(self.waiting.popleft())
        return taken

    def _decode(self) -> list[NewToken]:
        """Draw one token for every live row, batch by batch."""
        drawn: list[NewToken] = []
        for batch in self.batches:
            batch.compact(self.policy.device)
            first = batch.rows[0]
            known = len(first.prompt) + len(first.tokens) - 1
            tokens = [(*row.prompt, *row.tokens) for row in batch.rows]
            logits_RV, batch.cache = self._run(tokens, known, batch.cache, first)
            drawn += draw(logits_RV, batch.rows)
        return drawn

    def _run(
        self, rows: Sequence[Sequence[int]], known: int, cache: Any, row: Row
    ) -> tuple[Tensor, Any]:
        """Return the logits after `rows`, whose first `known` tokens are in the cache, and it.

        All of them have the adapter of `row`.
        """
        model, name = self.policy.model, row.request.adapter
        longest = self.policy.longest
        cached = self.policy.cached and (longest is None or len(rows[0]) <= longest)
        start = known if cached else 0
        tokens_RL = torch.tensor([row[start:] for row in rows], device=self.policy.device)
        with nullcontext() if name is None else self.adapters.applied({name: None}):
            if cached:
                hidden_RD, cache = continued(model, tokens_RL, cache, self.policy.step)
            else:
                with self.policy.step():
                    hidden_RD = library_hidden(model, tokens_RL)[:, -1]
            return self.policy.logits(hidden_RD, plain=name is None), cache

    def _batch(self, row: Row) -> CachedRows:
        return next(batch for batch in self.batches if row in batch.rows)

    def _free(self, slot: int) -> None:
        row = self.rows.pop(slot)
        batch = self._batch(row)
        batch.drop(row)
        if not batch.rows:
            self.batches.remove(batch)

    def _hold(self, slot: int) -> None:
        row = self.rows[slot]
        batch = self._batch(row)
        if batch.cache is not None:
            place = torch.tensor([batch.places[batch.rows.index(row)]], device=self.policy.device)
            self.held[row.number] = select(batch.cache, place)
            row.kept = row.key, (*row.prompt, *row.tokens[:-1])

    def _release(self, row: Row) -> None:
        self.held.pop(row.number, None)
        row.kept = None
