"""Prompts on their way to slots: what they share is computed once, and what is known never again.

The prefix common to the prompts that wait when the engine is idle is computed and stored once. Each
prompt's own rest is computed once for all its rows; a prompt that does not start with that prefix,
or has another adapter, brings all its keys. Left out: slots and decoding, which are `engine`'s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import mlx.core as mx

from offapi.episodes import common_prefix_length
from offapi.model_spec import Limits
from offapi.prefix_tree import PrefixKey, PrefixTree

from .cache import Prefix, blocks, cut, extend, join, size
from .continued import Continued
from .lora import Adapters
from .policy import Policy
from .rows import Ready, Row, WaitingPrompt

# prompt tokens computed at a time: enough to keep a device busy, few enough to pad little
PREFILL = 1024


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


class Prompts:
    """The prompts of one engine, and the keys and values that they share or were computed before.

    `waiting` are not computed yet; `ready` are, and some of their rows wait for slots.
    """

    def __init__(
        self, policy: Policy, limits: Limits, adapters: Adapters, cache_bytes: int
    ) -> None:
        self.policy, self.limits, self.adapters = policy, limits, adapters
        self.cached = cache_bytes > 0
        self.tree = PrefixTree[Prefix](cache_bytes, cut=cut, join=join, size=size)
        self.fresh = True  # nothing has decoded since the engine was idle
        self.clear()

    def clear(self) -> None:
        """Drop everything."""
        self.waiting: deque[WaitingPrompt] = deque()
        self.ready: deque[Ready] = deque()
        self.shared = Shared()
        self.tree.clear()

    @property
    def exist(self) -> bool:
        """Whether rows wait for slots."""
        return bool(self.waiting or self.ready)

    @property
    def pending(self) -> int:
        """How many rows wait for slots."""
        return sum(
            len(each.rows) for each in chain[WaitingPrompt | Ready](self.waiting, self.ready)
        )

    def cancel(self, row: int) -> None:
        """Drop a row that waits."""
        for rows in (each.rows for each in chain[WaitingPrompt | Ready](self.waiting, self.ready)):
            for waiting in [each for each in rows if each.number == row]:
                rows.remove(waiting)
        self.waiting = deque(prompt for prompt in self.waiting if prompt.rows)
        self.ready = deque(ready for ready in self.ready if ready.rows)

    def key(self, adapter: str | None) -> PrefixKey:
        """Return whose keys and values are computed now."""
        return PrefixKey(adapter, self.policy.version)

    def follows(self, prompt: WaitingPrompt) -> bool:
        """Whether `prompt` starts with the shared prefix."""
        return self.shared.begins(prompt, self.key(prompt.adapter))

    def must_begin(self) -> bool:
        """Whether, while no row lives, another prefix suits those that wait."""
        if not self.waiting or self.ready:
            return False
        return self.fresh or (bool(self.shared.tokens) and not self.follows(self.waiting[0]))

    def begin(self) -> None:
        """Compute the prefix that all waiting prompts of the first one's adapter share."""
        name, self.fresh = self.waiting[0].adapter, False
        alike = [p.tokens for p in self.waiting if p.adapter == name and p.known is None]
        tokens, key = alike[0][: common_prefix_length(alike)] if alike else (), self.key(name)
        count, known = self.tree.longest(key, tokens)
        prefix, _ = self._extended(known, tokens[count:], name)
        if prefix is not None and self.cached:
            self.tree.insert(key, tokens, partial(cut, prefix))
        self.shared = Shared(tokens, key, prefix)

    def _recall(self, prompt: WaitingPrompt) -> bool:
        """Whether keys and values are known that save at least half of computing `prompt`.

        Fewer are left alone: it would be computed apart from other prompts, and not share theirs.
        """
        if prompt.known is None and self.cached:
            count, known = self.tree.longest(self.key(prompt.adapter), prompt.tokens[:-1])
            start = len(self.shared.tokens) if self.follows(prompt) else 0
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
            caches = blocks(known, self.policy.windows)
            with self.adapters.of_rows([adapter]):
                last_D = self.policy.hidden(mx.array(part)[None], caches)[0, -1]
            known = extend(known, caches)
            mx.eval(known)
            self.policy.prefilled_tokens += len(part)
        return known, last_D

    def _prefill(self, free: int) -> None:
        """Compute the rests of as many waiting prompts as fill `free` slots, together.

        They have at most PREFILL tokens.
        """
        first = self.waiting[0]
        if self._recall(first):
            chosen = self._known(free)
            if len(chosen) > 1:
                self._continue_together(chosen)
            else:
                self._prefill_known(chosen[0])
            return
        follows = self.follows(first)
        start = len(self.shared.tokens) if follows else 0
        budget, width, rows = min(PREFILL, self.limits.micro_batch), 0, 0
        chosen = []
        while self.waiting and rows < free:
            prompt = self.waiting[0]
            width = max(width, len(prompt.tokens) - start)
            if chosen and width * (len(chosen) + 1) > budget:
                break
            if prompt.adapter != first.adapter or self._recall(prompt):
                break
            if self.follows(prompt) != follows:
                break
            chosen.append(self.waiting.popleft())
            rows += len(prompt.rows)
        self._prefill_together(chosen, start)

    def _known(self, free: int) -> list[WaitingPrompt]:
        """Take prompts of which a part is known, and whose rests fit into one pass.

        Where layers have windows, it is one alone.
        """
        chosen = [self.waiting.popleft()]
        budget = min(PREFILL, self.limits.micro_batch)
        alone = any(window is not None for window in self.policy.windows)
        width, rows = _rest(chosen[0]), len(chosen[0].rows)
        while self.waiting and rows < free and not alone and self._recall(self.waiting[0]):
            width = max(width, _rest(self.waiting[0]))
            if width * (len(chosen) + 1) > budget:
                break
            rows += len(self.waiting[0].rows)
            chosen.append(self.waiting.popleft())
        return chosen

    def _continue_together(self, chosen: Sequence[WaitingPrompt]) -> None:
        """Compute what follows the known part of each."""
        knowns = [prompt.known for prompt in chosen if prompt.known is not None]
        counts = [_rest(prompt) for prompt in chosen]
        rests = [
            [*prompt.tokens[-count:], *[0] * (max(counts) - count)]
            for prompt, count in zip(chosen, counts, strict=True)
        ]
        caches = [Continued(layer) for layer in zip(*knowns, strict=True)]
        with self.adapters.of_rows([prompt.adapter for prompt in chosen]):
            hidden_RLD = self.policy.hidden(mx.array(rests), caches)
        last_RD = mx.stack([hidden_RLD[i, count - 1] for i, count in enumerate(counts)])
        logits_RV = self.policy.logits(last_RD)
        mx.eval(logits_RV, [(cache.keys, cache.values) for cache in caches])
        for i, (prompt, known, count) in enumerate(zip(chosen, knowns, counts, strict=True)):
            new = tuple((cache.keys[i, :, :count], cache.values[i, :, :count]) for cache in caches)
            self.ready.append(Ready(prompt.rows, join([known, new]), logits_RV[i], follows=False))
            self.policy.prefilled_tokens += count

    def _prefill_together(self, chosen: Sequence[WaitingPrompt], start: int) -> None:
        """Compute what comes after the first `start` tokens, the shared prefix, of each."""
        rests = [list(prompt.tokens[start:]) for prompt in chosen]
        width = max(map(len, rests))
        caches = blocks(self.shared.prefix if start else None, self.policy.windows)
        tokens_RL = mx.array([rest + [0] * (width - len(rest)) for rest in rests])
        with self.adapters.of_rows([prompt.adapter for prompt in chosen]):
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

    def next(self, free: int) -> tuple[Row, Ready] | None:
        """Return the next row and its computed prompt, where `free` slots can take rows."""
        if not self.ready and self.waiting:
            self._prefill(free)
        if not self.ready:
            return None
        ready = self.ready[0]
        row = ready.rows.popleft()
        if not ready.rows:
            self.ready.popleft()
        return row, ready

    def still_share(self) -> bool:
        """Whether rows that wait follow the shared prefix."""
        return any(ready.follows for ready in self.ready) or any(map(self.follows, self.waiting))


def _rest(prompt: WaitingPrompt) -> int:
    """Return how many tokens of `prompt` are not known."""
    assert prompt.known is not None
    return len(prompt.tokens) - int(prompt.known[0][0].shape[1])
