"""Continuous batched decoding: rows of any kind join, decode side by side, and end.

Rows wait, get the slot of a finished row, and leave when they end. Left out: text, and how prompts
are computed, which is `prefill`'s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx

from offapi.completions import Sampling
from offapi.engine import Kinds, NewToken, RowError, RowRequest, check_new
from offapi.episodes import check_tokens
from offapi.model_spec import Limits
from offapi.prefix_tree import PrefixKey

from .cache import Cursor, Prefix, Slots, cut, join
from .drawing import by_prompt, check_request, draw_rows, extension, failures, new_row
from .lora import Adapters
from .policy import Policy
from .prefill import Prompts, Shared
from .rows import Draw, Ready, Row, WaitingPrompt

COMPACT = 0.75  # when a smaller share of slots is in use, the batch is copied into a smaller one


class MLXEngine:
    """One model's rows in progress; see `offapi.engine.Engine`."""

    def __init__(
        self, policy: Policy, limits: Limits, adapters: Adapters, cache_bytes: int = 0
    ) -> None:
        self.policy, self.limits, self.adapters = policy, limits, adapters
        self.prompts = Prompts(policy, limits, adapters, cache_bytes)
        self.inserted = 0
        self.kinds = Kinds()
        self.ahead = ahead()
        self._clear()

    def _clear(self) -> None:
        self.kept: dict[int, Row] = {}  # finished rows that can be extended, pinned in the tree
        self.unread: deque[Draw] = deque()
        self.read: list[tuple[Row, int]] = []  # new tokens' rows and places, not returned yet
        self.failed: deque[RowError] = deque()  # not raised yet
        self._drop_slots()

    def _drop_slots(self) -> None:
        self.rows: list[Row | None] = []
        self.slots: list[Slots] = []  # one for each layer
        self.last_R = mx.zeros((0,), mx.int32)  # the token each slot continues from

    @property
    def idle(self) -> bool:
        """Whether no row waits or decodes."""
        undelivered = self.unread or self.read or self.failed
        return not (self.prompts.exist or undelivered or any(self.rows))

    def insert(self, requests: Sequence[RowRequest]) -> list[int]:
        """Let new rows wait for free slots, and return their numbers.

        Of those inserted together the longest go first.
        """
        for request in requests:
            check_request(request, self.policy, self.adapters)
        self.prompts.fresh |= self.idle
        numbers = range(self.inserted, self.inserted + len(requests))
        self.inserted = numbers.stop
        rows = [new_row(*each, self.kinds) for each in zip(numbers, requests, strict=True)]
        self.prompts.waiting.extend(by_prompt(rows))
        return list(numbers)

    def extend(self, row: int, tokens: Sequence[int], sampling: Sampling) -> None:
        """Continue a finished row that was kept, after the given `tokens`."""
        if row not in self.kept:
            raise ValueError(f"row {row} is not a finished row that was kept")
        check_tokens(tokens, self.policy.vocabulary, "an extension")
        self.prompts.fresh |= self.idle
        after = extension(self.kept[row], tokens, sampling, self.kinds)
        self.policy.check_length(len(after.prompt) + sampling.max_tokens)
        _, known = self.prompts.tree.longest(self.prompts.key(after.adapter), after.prompt[:-1])
        self._drop(row)
        again = WaitingPrompt(after.prompt, after.adapter, deque([after]), known)
        self.prompts.waiting.append(again)

    def _drop(self, row: int) -> None:
        """Let a kept row's keys and values be dropped."""
        kept = self.kept.pop(row)
        self.prompts.tree.unpin(PrefixKey(kept.adapter, kept.version), kept.computed)

    def add_adapter(self, name: str, folder: Path | None) -> None:
        """Let rows have the adapter of a further PEFT folder by `name`; None is the base alone."""
        check_new(name, self.adapters.numbers)
        self.adapters.load(name, folder)

    def cancel(self, row: int) -> None:
        """Drop a row, waiting, live or finished; its slot is free for the next step."""
        if row in self.kept:
            self._drop(row)
        self.prompts.cancel(row)
        self.failed = deque(error for error in self.failed if error.row != row)
        self._cancel({row})

    def _cancel(self, numbers: set[int]) -> None:
        """Free the slots of live rows, and forget what was drawn for them."""
        drawn = [row for draw in self.unread for row in draw.rows]
        for live in filter(None, [*self.rows, *drawn]):
            live.cancelled |= live.number in numbers
        self.rows = [None if row and row.cancelled else row for row in self.rows]
        self.unread = deque(draw for draw in self.unread if draw.awaited)
        self.read = [(row, index) for row, index in self.read if row.number not in numbers]

    def close(self) -> None:
        """Drop all rows and kept prefixes."""
        self.prompts.clear()
        self._clear()

    def step(self) -> list[NewToken]:
        """Admit waiting rows, decode one token for every live row, and return what was drawn."""
        return [row.new_token(index) for row, index in self.advance()]

    def advance(self) -> list[tuple[Row, int]]:
        """Do what `step` does, and return each new token's row and its place in the row."""
        if not self.failed:
            self._admit()
            self._read_beyond(self.ahead + 1)
            self._step()
            self._read_beyond(self.ahead if any(self.rows) else 0)
            self._drop_failed()
            self._compact()
        if self.failed:
            raise self.failed.popleft()
        read, self.read = self.read, []
        return read

    def _drop_failed(self) -> None:
        """Drop the rows whose matchers have failed."""
        for error in failures([*self.rows, *(row for row, _ in self.read)]):
            self.cancel(error.row)
            self.failed.append(error)

    def _read_beyond(self, unread: int) -> None:
        """Leave `unread` draws unread, or none where a row needs its last token first."""
        in_step = any(row and row.in_step for row in self.rows)
        while len(self.unread) > (0 if in_step else unread):
            for row in self.unread.popleft().read():
                self.read.append((row, len(row.tokens) - 1))
                if row.finish and (row.keep or self.prompts.cached):
                    self._keep(row)
            self.rows = [None if row and row.finish else row for row in self.rows]

    def _keep(self, row: Row) -> None:
        """Store the keys and values of a row that has just finished, but for its last token's."""
        slot, shared = self.rows.index(row), len(self.prompts.shared.tokens) if row.follows else 0

        def read(start: int, stop: int) -> Prefix:
            own = tuple(layer.row(slot, row.length) for layer in self.slots)
            if start >= shared:
                return cut(own, start - shared, stop - shared)
            assert self.prompts.shared.prefix is not None
            return cut(join([self.prompts.shared.prefix, own]), start, stop)

        key = PrefixKey(row.adapter, row.version)
        self.prompts.tree.insert(key, row.computed, read, pin=row.keep)
        if row.keep:
            self.kept[row.number] = row

    def _admit(self) -> None:
        """Fill the free slots, and draw the first token of each row that gets one."""
        if not any(self.rows) and self.prompts.must_begin():
            self.prompts.begin()
            self._drop_slots()
        if not self.prompts.exist:
            return
        self._grow()
        free = [slot for slot, row in enumerate(self.rows) if row is None]
        begun: list[tuple[int, Row, mx.array]] = []
        for slot in free:
            following = self.prompts.next(len(free) - len(begun))
            if following:
                begun.append((slot, following[0], following[1].logits_V))
                self._start(slot, *following)
        if begun:
            slots, rows, logits = zip(*begun, strict=True)
            # Not in place: the array may belong to an unread draw for the slots' earlier rows.
            tokens_R = self._draw(list(rows), mx.stack(list(logits)))
            self.last_R = mx.put_along_axis(self.last_R, mx.array(slots), tokens_R, axis=0)
            self._unshare()

    def _grow(self) -> None:
        """Add slots while more rows wait than are free, up to the limit."""
        if len(self.rows) >= self.limits.rollout_rows:
            return
        live = sum(row is not None for row in self.rows)
        more = min(self.limits.rollout_rows, live + self.prompts.pending) - len(self.rows)
        if more > 0:
            for layer in self.slots:
                layer.add(more)
            self.rows += [None] * more
            self.last_R = mx.concatenate([self.last_R, mx.zeros((more,), mx.int32)])

    def _start(self, slot: int, row: Row, ready: Ready) -> None:
        """Put a row whose prompt is computed into `slot`."""
        self.rows[slot] = row
        length = ready.own[0][0].shape[1]
        saved = row.keep or self.prompts.cached
        row.begin(length, ready.follows, self.policy.version, saved)
        if not self.slots:
            windows = self.policy.windows
            prefix = self.prompts.shared.prefix or (None,) * len(windows)
            self.slots = [
                Slots(kv, len(self.rows), length + 1, own, window)
                for kv, own, window in zip(prefix, ready.own, windows, strict=True)
            ]
        for layer, own in zip(self.slots, ready.own, strict=True):
            layer.put(slot, own)

    def _unshare(self) -> None:
        """Copy the prefix to the rows that follow it, once they are few among those that do not.

        Attention to a shared prefix is computed for all rows alike.
        """
        live = [row for row in self.rows if row]
        following = [row for row in live if row.follows]
        prompts = self.prompts
        if not prompts.shared.tokens or 2 * len(following) > len(live) or prompts.still_share():
            return
        follows_R = mx.array([bool(row and row.follows) for row in self.rows])
        for layer in self.slots:
            layer.unshare(follows_R)
        for row in following:
            row.length, row.follows = row.length + len(prompts.shared.tokens), False
        prompts.shared = Shared()

    def _step(self) -> None:
        """Decode one more token for every row; free slots run along and are not read."""
        self._retire_full()
        if not any(self.rows):
            return
        lengths = [row.length if row else 0 for row in self.rows]
        follows = [row.follows if row else True for row in self.rows]
        cursor = Cursor(len(self.prompts.shared.tokens), lengths, follows)
        for layer in self.slots:
            layer.cursor = cursor
        with self.adapters.of_rows([row.adapter if row else None for row in self.rows]):
            hidden_RD = self.policy.hidden(self.last_R[:, None], self.slots)[:, 0]
        for row in filter(None, self.rows):
            row.length += 1
        self.last_R = self._draw(list(self.rows), self.policy.logits(hidden_RD))
        mx.async_eval(  # type: ignore[no-untyped-call]
            self.unread[-1].arrays, [(layer.keys, layer.values) for layer in self.slots]
        )
        self._retire_full()

    def _draw(self, rows: list[Row | None], logits_RV: mx.array) -> mx.array:
        """Draw the next token of each row from its logits, without reading anything back."""
        self.unread.append(draw_rows(rows, logits_RV))
        return self.unread[-1].tokens_R

    def _retire_full(self) -> None:
        """Free the slots of rows that need no further step, whatever their unread tokens are."""
        self.rows = [
            row if row and (row.drawn < row.most or row.in_step) else None for row in self.rows
        ]

    def _compact(self) -> None:
        """Drop free slots once nothing waits for them and enough are free to pay for the copy."""
        used = [slot for slot, row in enumerate(self.rows) if row]
        if self.prompts.exist or not used or len(used) > COMPACT * len(self.rows):
            return
        slots_R = mx.array(used)
        for layer in self.slots:
            layer.take(slots_R)
        self.rows, self.last_R = [self.rows[slot] for slot in used], self.last_R[slots_R]


def ahead() -> int:
    """Return how many draws are left unread.

    A GPU computes the next step while the tokens of one are read; on a CPU that only costs copies.
    """
    return 1 if mx.default_device().type == mx.DeviceType.gpu else 0
