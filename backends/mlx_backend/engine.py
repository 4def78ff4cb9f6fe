"""Continuous batched decoding: rows of any kind join, decode side by side, and end.

The prefix common to the prompts that wait when the engine is idle is computed and stored once. Each
prompt's own rest is computed once, then copied into the slots of its rows; a prompt that does not
start with that prefix, or has another adapter, brings all its keys. Left out: text.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, groupby

import mlx.core as mx
import numpy as np

from offapi.backend import Limits
from offapi.completions import Sampling
from offapi.engine import NewToken, RowRequest
from offapi.episodes import check_tokens, common_prefix_length
from offapi.prefix_tree import PrefixKey, PrefixTree

from .cache import Cursor, Prefix, Slots, blocks, cut, extend, join, size
from .lora import Adapters
from .matching import Allowed
from .policy import Policy
from .rows import Draw, Ready, Row, WaitingPrompt
from .sampling import draw, signals

# prompt tokens computed at a time: enough to keep a device busy, few enough to pad little
PREFILL = 1024
COMPACT = 0.75  # when a smaller share of slots is in use, the batch is copied into a smaller one


@dataclass(frozen=True, eq=False)
class Shared:
    """The prefix that slots follow: its tokens, and their keys and values under one adapter."""

    tokens: tuple[int, ...] = ()
    key: PrefixKey = PrefixKey(None, 0)
    prefix: Prefix | None = None

    def begins(self, prompt: WaitingPrompt, key: PrefixKey) -> bool:
        """Whether `prompt`, to be computed under `key`, starts with these tokens.

        It does not if more of it is known.
        """
        count = len(self.tokens)
        return (
            0 < count < len(prompt.tokens)
            and prompt.known is None
            and key == self.key
            and prompt.tokens[:count] == self.tokens
        )


class MLXEngine:
    """One model's rows in progress; see `offapi.engine.Engine`."""

    def __init__(
        self, policy: Policy, limits: Limits, adapters: Adapters, cache_bytes: int = 0
    ) -> None:
        self.policy, self.limits, self.adapters = policy, limits, adapters
        self.cached = cache_bytes > 0
        self.tree = PrefixTree[Prefix](cache_bytes, cut=cut, join=join, size=size)
        self.inserted = 0
        self.kinds: dict[Sampling, Sampling] = {}
        self.fresh = True  # nothing has decoded since the engine was idle
        self.ahead = ahead()
        self._clear()

    def _clear(self) -> None:
        self.waiting: deque[WaitingPrompt] = deque()
        self.ready: deque[Ready] = deque()
        self.kept: dict[int, Row] = {}  # finished rows that can be extended, pinned in the tree
        self.tree.clear()
        self.unread: deque[Draw] = deque()
        self._use(Shared())

    def _use(self, shared: Shared) -> None:
        """Begin with no slots, whose rows will follow `shared`."""
        self.shared = shared
        self.rows: list[Row | None] = []
        self.slots: list[Slots] = []  # one for each layer
        self.last_R = mx.zeros((0,), mx.int32)  # the token each slot continues from

    @property
    def idle(self) -> bool:
        """Whether no row waits or decodes."""
        return not (self.waiting or self.ready or self.unread or any(self.rows))

    def insert(self, requests: Sequence[RowRequest]) -> list[int]:
        """Let new rows wait for free slots, and return their numbers.

        Of those inserted together the longest go first: prompts of similar length need the least
        padding, and columns are reserved once.
        """
        for request in requests:
            self._check(request)
        self.fresh |= self.idle
        numbers = range(self.inserted, self.inserted + len(requests))
        self.inserted = numbers.stop
        rows = [self._row(*each) for each in zip(numbers, requests, strict=True)]
        alike = groupby(rows, key=lambda row: (row.prompt, row.adapter))
        prompts = [WaitingPrompt(tokens, name, deque(group)) for (tokens, name), group in alike]
        self.waiting.extend(sorted(prompts, key=lambda prompt: -len(prompt.tokens)))
        return list(numbers)

    def _check(self, request: RowRequest) -> None:
        if not request.tokens:
            raise ValueError("a prompt must have at least one token, got an empty one")
        check_tokens(request.tokens, self.policy.vocabulary, "a prompt")
        if request.adapter not in self.adapters.numbers:
            raise ValueError(f"the engine has no adapter {request.adapter!r}")

    def _row(self, number: int, request: RowRequest) -> Row:
        return Row(
            number,
            request.tokens,
            request.sampling,
            self._kind(request.sampling),
            request.key,
            request.sample,
            request.adapter,
            request.start,
            request.keep,
        )

    def _kind(self, sampling: Sampling) -> Sampling:
        if sampling not in self.kinds:
            kind = replace(sampling, max_tokens=1, stop_ids=(), seed=0, step=0, signals=False)
            self.kinds[sampling] = self.kinds.setdefault(kind, kind)
        return self.kinds[sampling]

    def extend(self, row: int, tokens: Sequence[int], sampling: Sampling) -> None:
        """Continue a finished row that was kept, after the given `tokens`."""
        if row not in self.kept:
            raise ValueError(f"row {row} is not a finished row that was kept")
        check_tokens(tokens, self.policy.vocabulary, "an extension")
        self.fresh |= self.idle
        before = self.kept[row]
        prompt = (*before.prompt, *before.tokens, *map(int, tokens))
        after = replace(
            self._row(row, RowRequest(prompt, sampling, before.key, before.sample)),
            adapter=before.adapter,
            keep=True,
            used=before.used + len(before.tokens),
        )
        _, known = self.tree.longest(self._key(before.adapter), prompt[:-1])
        self._drop(row)
        self.waiting.append(WaitingPrompt(prompt, before.adapter, deque([after]), known))

    def _key(self, adapter: str | None) -> PrefixKey:
        return PrefixKey(adapter, self.policy.version)

    def _drop(self, row: int) -> None:
        """Let a kept row's keys and values be dropped."""
        kept = self.kept.pop(row)
        self.tree.unpin(PrefixKey(kept.adapter, kept.version), kept.computed)

    def cancel(self, row: int) -> None:
        """Drop a row, waiting, live or finished; its slot is free for the next step."""
        if row in self.kept:
            self._drop(row)
        for rows in (each.rows for each in chain[WaitingPrompt | Ready](self.waiting, self.ready)):
            for waiting in [each for each in rows if each.number == row]:
                rows.remove(waiting)
        self.waiting = deque(prompt for prompt in self.waiting if prompt.rows)
        self.ready = deque(ready for ready in self.ready if ready.rows)
        for slot, live in enumerate(self.rows):
            if live and live.number == row:
                live.cancelled, self.rows[slot] = True, None

    def close(self) -> None:
        """Drop all rows and kept prefixes."""
        self._clear()

    def step(self) -> list[NewToken]:
        """Admit waiting rows, decode one token for every live row, and return what was drawn."""
        return [row.new_token(index) for row, index in self.advance()]

    def advance(self) -> list[tuple[Row, int]]:
        """Do what `step` does, and return each new token's row and its place in the row."""
        read: list[tuple[Row, int]] = []
        self._admit()
        self._read_beyond(self.ahead + 1, read)
        self._step()
        self._read_beyond(self.ahead if any(self.rows) else 0, read)
        self._compact()
        return read

    def _read_beyond(self, unread: int, read: list[tuple[Row, int]]) -> None:
        """Leave `unread` draws unread, or none where a row needs its last token first."""
        in_step = any(row and row.in_step for row in self.rows)
        while len(self.unread) > (0 if in_step else unread):
            for row in self.unread.popleft().read():
                read.append((row, len(row.tokens) - 1))
                if row.finish and (row.keep or self.cached):
                    self._keep(row)
            self.rows = [None if row and row.finish else row for row in self.rows]

    def _keep(self, row: Row) -> None:
        """Store the keys and values of a row that has just finished, but for its last token's."""
        slot, shared = self.rows.index(row), len(self.shared.tokens) if row.follows else 0

        def read(start: int, stop: int) -> Prefix:
            own = tuple(layer.row(slot, row.length) for layer in self.slots)
            if start >= shared:
                return cut(own, start - shared, stop - shared)
            assert self.shared.prefix is not None
            return cut(join([self.shared.prefix, own]), start, stop)

        key = PrefixKey(row.adapter, row.version)
        self.tree.insert(key, row.computed, read, pin=row.keep)
        if row.keep:
            self.kept[row.number] = row

    def _admit(self) -> None:
        """Fill the free slots, and draw the first token of each row that gets one."""
        if self.waiting and not self.ready and not any(self.rows):
            shared = self.shared
            if self.fresh or (shared.tokens and not self._follows(self.waiting[0])):
                self._begin()
        if not self.waiting and not self.ready:
            return
        self._grow()
        free = [slot for slot, row in enumerate(self.rows) if row is None]
        begun: list[tuple[int, Row, mx.array]] = []
        for slot in free:
            if not self.ready and self.waiting:
                self._prefill(len(free) - len(begun))
            if self.ready:
                begun.append((slot, *self._start(slot)))
        if begun:
            slots, rows, logits = zip(*begun, strict=True)
            # Not in place: the array may belong to an unread draw for the slots' earlier rows.
            tokens_R = self._draw(list(rows), mx.stack(list(logits)))
            self.last_R = mx.put_along_axis(self.last_R, mx.array(slots), tokens_R, axis=0)
            self._unshare()

    def _follows(self, prompt: WaitingPrompt) -> bool:
        return self.shared.begins(prompt, self._key(prompt.adapter))

    def _begin(self) -> None:
        """Compute the prefix that all waiting prompts of the first one's adapter share."""
        name, self.fresh = self.waiting[0].adapter, False
        alike = [p.tokens for p in self.waiting if p.adapter == name and p.known is None]
        tokens, key = alike[0][: common_prefix_length(alike)] if alike else (), self._key(name)
        count, known = self.tree.longest(key, tokens)
        prefix, _ = self._extended(known, tokens[count:], name)
        if prefix is not None and self.cached:
            self.tree.insert(key, tokens, partial(cut, prefix))
        self._use(Shared(tokens, key, prefix))

    def _recall(self, prompt: WaitingPrompt) -> bool:
        """Whether keys and values are known that save at least half of computing `prompt`.

        Fewer are left alone: it would be computed apart from other prompts, and not share theirs.
        """
        if prompt.known is None and self.cached:
            count, known = self.tree.longest(self._key(prompt.adapter), prompt.tokens[:-1])
            start = len(self.shared.tokens) if self._follows(prompt) else 0
            if 2 * (count - start) >= len(prompt.tokens) - start:
                prompt.known = known
        return prompt.known is not None

    def _extended(
        self, known: Prefix | None, tokens: tuple[int, ...], adapter: str | None
    ) -> tuple[Prefix | None, mx.array]:
        """Return `known` followed by `tokens`, and the last hidden state (D,) of the last one."""
        step, last_D = self.limits.micro_batch, mx.zeros((0,))
        for start in range(0, len(tokens), step):
            part = tokens[start : start + step]
            caches = blocks(known, self.policy.layers)
            with self._adapted([adapter]):
                last_D = self.policy.hidden(mx.array(part)[None], caches)[0, -1]
            known = extend(known, caches)
            mx.eval(known)
            self.policy.prefilled_tokens += len(part)
        return known, last_D

    def _adapted(self, names: Sequence[str | None]) -> AbstractContextManager[None]:
        return self.adapters.of_rows(names) if self.adapters.others else nullcontext()

    def _grow(self) -> None:
        """Add slots while more rows wait than are free, up to the limit."""
        if len(self.rows) >= self.limits.rollout_rows:
            return
        queues = chain[WaitingPrompt | Ready](self.waiting, self.ready)
        pending = sum(len(each.rows) for each in queues)
        live = sum(row is not None for row in self.rows)
        more = min(self.limits.rollout_rows, live + pending) - len(self.rows)
        if more > 0:
            for layer in self.slots:
                layer.add(more)
            self.rows += [None] * more
            self.last_R = mx.concatenate([self.last_R, mx.zeros((more,), mx.int32)])

    def _prefill(self, free: int) -> None:
        """Compute the rests of as many waiting prompts as fill `free` slots, together.

        They have at most PREFILL tokens.
        """
        first = self.waiting[0]
        if self._recall(first):
            self._prefill_known(self.waiting.popleft())
            return
        follows = self._follows(first)
        start = len(self.shared.tokens) if follows else 0
        budget, width, rows = min(PREFILL, self.limits.micro_batch), 0, 0
        chosen: list[WaitingPrompt] = []
        while self.waiting and rows < free:
            prompt = self.waiting[0]
            width = max(width, len(prompt.tokens) - start)
            if chosen and width * (len(chosen) + 1) > budget:
                break
            if prompt.adapter != first.adapter or self._recall(prompt):
                break
            if self._follows(prompt) != follows:
                break
            chosen.append(self.waiting.popleft())
            rows += len(prompt.rows)
        self._prefill_together(chosen, start)

    def _prefill_together(self, chosen: Sequence[WaitingPrompt], start: int) -> None:
        """Compute what comes after the first `start` tokens, the shared prefix, of each."""
        rests = [list(prompt.tokens[start:]) for prompt in chosen]
        width = max(map(len, rests))
        caches = blocks(self.shared.prefix if start else None, self.policy.layers)
        tokens_RL = mx.array([rest + [0] * (width - len(rest)) for rest in rests])
        with self._adapted([prompt.adapter for prompt in chosen]):
            hidden_RLD = self.policy.hidden(tokens_RL, caches)
        last_RD = mx.stack([hidden_RLD[i, len(rest) - 1] for i, rest in enumerate(rests)])
        logits_RV = self.policy.logits(last_RD)
        mx.eval(logits_RV, [(cache.keys, cache.values) for cache in caches])
        for i, (prompt, rest) in enumerate(zip(chosen, rests, strict=True)):
            own = tuple(
                (cache.keys[i, :, : len(rest)], cache.values[i, :, : len(rest)]) for cache in caches
            )
            self.ready.append(Ready(prompt.rows, own, logits_RV[i], start > 0))
            self.policy.prefilled_tokens += len(rest)

    def _prefill_known(self, prompt: WaitingPrompt) -> None:
        """Compute what follows the part of `prompt` whose keys and values are known."""
        assert prompt.known is not None
        start = prompt.known[0][0].shape[1]
        own, last_D = self._extended(prompt.known, prompt.tokens[start:], prompt.adapter)
        assert own is not None
        logits_V = self.policy.logits(last_D[None])[0]
        self.ready.append(Ready(prompt.rows, own, logits_V, follows=False))

    def _start(self, slot: int) -> tuple[Row, mx.array]:
        """Put the next row of the first ready prompt into `slot`."""
        ready = self.ready[0]
        row = self.rows[slot] = ready.rows.popleft()
        length = ready.own[0][0].shape[1]
        row.begin(length, ready.follows, self.policy.version, row.keep or self.cached)
        if not self.slots:
            prefix = self.shared.prefix or (None,) * self.policy.layers
            self.slots = [
                Slots(kv, len(self.rows), length + 1, own)
                for kv, own in zip(prefix, ready.own, strict=True)
            ]
        for layer, own in zip(self.slots, ready.own, strict=True):
            layer.put(slot, own)
        if not ready.rows:
            self.ready.popleft()
        return row, ready.logits_V

    def _unshare(self) -> None:
        """Copy the prefix to the rows that follow it, once they are few among those that do not.

        Attention to a shared prefix is computed for all rows alike.
        """
        live = [row for row in self.rows if row]
        following = [row for row in live if row.follows]
        if not self.shared.tokens or 2 * len(following) > len(live):
            return
        if any(ready.follows for ready in self.ready) or any(map(self._follows, self.waiting)):
            return
        follows_R = mx.array([bool(row and row.follows) for row in self.rows])
        for layer in self.slots:
            layer.unshare(follows_R)
        for row in following:
            row.length, row.follows = row.length + len(self.shared.tokens), False
        self.shared = Shared()

    def _step(self) -> None:
        """Decode one more token for every row; free slots run along and are not read."""
        self._retire_full()
        if not any(self.rows):
            return
        lengths = [row.length if row else 0 for row in self.rows]
        follows = [row.follows if row else True for row in self.rows]
        cursor = Cursor(len(self.shared.tokens), lengths, follows)
        for layer in self.slots:
            layer.cursor = cursor
        with self._adapted([row.adapter if row else None for row in self.rows]):
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
        numbers = [row.uniforms_T[row.drawn] if row else 0.0 for row in rows]
        uniforms_R = mx.array(np.array(numbers, np.float32))
        allowed = Allowed.of([row.matcher if row else None for row in rows], logits_RV.shape[-1])
        kinds = [row.kind if row else None for row in rows]
        tokens_R, logprobs_R, left_RV = draw(logits_RV, kinds, uniforms_R, allowed)
        asked = any(row and row.sampling.signals for row in rows)
        signals_R2 = signals(logits_RV, tokens_R) if asked else None
        for row in filter(None, rows):
            row.drawn += 1
        self.unread.append(Draw(rows, tokens_R, logprobs_R, left_RV, signals_R2))
        return tokens_R

    def _retire_full(self) -> None:
        """Free the slots of rows that need no further step, whatever their unread tokens are."""
        self.rows = [
            row if row and (row.drawn < row.most or row.in_step) else None for row in self.rows
        ]

    def _compact(self) -> None:
        """Drop free slots once nothing waits for them and enough are free to pay for the copy."""
        used = [slot for slot, row in enumerate(self.rows) if row]
        if self.waiting or self.ready or not used or len(used) > COMPACT * len(self.rows):
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
