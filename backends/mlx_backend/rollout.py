"""Continuous batched decoding: prompts prefilled once, finished rows replaced, groups yielded.

The prefix common to all prompts is computed and stored once. Each prompt's own rest is computed
once, then copied into the slots of its completions. Left out: adding prompts while a call runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from offapi.backend import Limits
from offapi.completions import Completion, Finish, Group, Sampling, check_rollout
from offapi.engine import Matcher, StartMatcher
from offapi.episodes import Floats, SamplingMask, common_prefix_length
from offapi.randomness import uniforms

from .cache import Cursor, Prefix, Slots, blocks, extend
from .matching import Allowed
from .policy import Policy
from .sampling import choose, signals

# prompt tokens computed at a time: enough to keep a device busy, few enough to pad little
PREFILL = 1024
COMPACT = 0.75  # when a smaller share of slots is in use, the batch is copied into a smaller one


@dataclass(eq=False)
class Row:
    """A completion in progress."""

    prompt: int
    sample: int
    uniforms_T: Floats  # one for each of max_tokens
    length: int  # columns filled in its slot
    matcher: Matcher | None
    drawn: int = 0  # tokens drawn on the device, at most `ahead` of which are not read yet
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    # the ids that truncation or the matcher left at each token
    left_T: list[NDArray[np.int32]] = field(default_factory=list)
    signals_T2: list[tuple[float, float]] = field(default_factory=list)
    finish: Finish | None = None


@dataclass(frozen=True, eq=False)
class Draw:
    """One step's tokens and logprobs of R slots, with sampling mask and signals where they are.

    They have not been read from the device.
    """

    rows: list[Row | None]
    tokens_R: mx.array
    logprobs_R: mx.array
    left_RV: mx.array | None
    masks_all: bool  # truncated: rows without matcher have a sampling mask too
    signals_R2: mx.array | None

    @property
    def arrays(self) -> list[mx.array]:
        """What the device has to compute."""
        drawn = (self.tokens_R, self.logprobs_R, self.left_RV, self.signals_R2)
        return [array for array in drawn if array is not None]

    def read(self) -> Iterator[Row]:
        """Give every row that still runs its token, and yield the row."""
        left_RV = None if self.left_RV is None else np.array(self.left_RV)
        free = None if self.signals_R2 is None else np.array(self.signals_R2).tolist()
        tokens, logprobs = np.array(self.tokens_R).tolist(), np.array(self.logprobs_R).tolist()
        drawn = zip(self.rows, tokens, logprobs, strict=True)
        for slot, (row, token, logprob) in enumerate(drawn):
            if row is None or row.finish:
                continue
            row.tokens.append(token)
            row.logprobs.append(logprob)
            if row.matcher is not None:
                row.matcher.accept(token)
            if free is not None:
                row.signals_T2.append(tuple(free[slot]))
            if left_RV is not None and (self.masks_all or row.matcher is not None):
                row.left_T.append(np.flatnonzero(left_RV[slot]).astype(np.int32))
            yield row


@dataclass
class Ready:
    """A prefilled prompt some of whose completions still wait for slots."""

    prompt: int
    own: Prefix  # keys and values of the prompt after the shared prefix
    logits_V: mx.array  # at its last token
    started: int = 0  # completions that have a slot


def rollout(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    n: int,
    sampling: Sampling,
    keys: Sequence[int] | None,
    limits: Limits,
    starts: Sequence[StartMatcher | None] | None = None,
) -> Iterator[Group]:
    """See `Backend.rollout`."""
    check_rollout(prompts, n, keys, policy.vocabulary, starts)
    named = range(len(prompts)) if keys is None else keys
    bounds = [None] * len(prompts) if starts is None else starts
    lists = [list(map(int, prompt)) for prompt in prompts]
    batch = RunningBatch(policy, lists, n, sampling, named, limits, bounds)
    return batch.run() if prompts else iter(())


@dataclass
class RunningBatch:
    """The running batch of one call."""

    policy: Policy
    prompts: Sequence[list[int]]
    n: int
    sampling: Sampling
    keys: Sequence[int]
    limits: Limits
    starts: Sequence[StartMatcher | None]

    def __post_init__(self) -> None:
        # Prompts of similar length together need the least padding. The longest go first, so that
        # columns are reserved once.
        self.waiting = deque(sorted(range(len(self.prompts)), key=lambda i: -len(self.prompts[i])))
        self.ready: deque[Ready] = deque()
        room = min(self.limits.rollout_rows, self.n * len(self.prompts))
        self.rows: list[Row | None] = [None] * room
        self.slots: list[Slots] = []  # one for each layer
        self.last_R = mx.zeros((room,), mx.int32)  # the token each slot continues from
        self.unread: deque[Draw] = deque()
        self.done: list[list[Row]] = [[] for _ in self.prompts]
        self.prefix: Prefix | None = None
        self.shared = 0  # tokens in `prefix`
        self.ahead = ahead()

    def run(self) -> Iterator[Group]:
        """Decode all prompts, yielding each group when it is complete."""
        self._prefill_shared()
        while self.waiting or self.ready or self.unread or any(self.rows):
            self._admit()
            yield from self._read_beyond(self.ahead + 1)
            self._step()
            yield from self._read_beyond(self.ahead if any(self.rows) else 0)
            self._compact()

    def _read_beyond(self, unread: int) -> Iterator[Group]:
        """Leave `unread` draws unread, or none where a matcher must know its last token."""
        bounded = any(row and row.matcher for row in self.rows)
        while len(self.unread) > (0 if bounded else unread):
            yield from self._read()

    def _prefill_shared(self) -> None:
        self.shared = common_prefix_length(self.prompts)
        for start in range(0, self.shared, self.limits.micro_batch):
            tokens = self.prompts[0][start : min(start + self.limits.micro_batch, self.shared)]
            caches = blocks(self.prefix, self.policy.layers)
            self.policy.hidden(mx.array(tokens)[None], caches)
            self.prefix = extend(self.prefix, caches)
            mx.eval(self.prefix)
            self.policy.prefilled_tokens += len(tokens)

    def _prefill(self, free: int) -> None:
        """Compute the rests of as many waiting prompts as fill `free` slots.

        They have at most PREFILL tokens.
        """
        width = len(self.prompts[self.waiting[0]]) - self.shared
        affordable = min(PREFILL, self.limits.micro_batch) // width
        fitting = max(1, min(-(-free // self.n), affordable, len(self.waiting)))
        chosen = [self.waiting.popleft() for _ in range(fitting)]
        rests = [self.prompts[prompt][self.shared :] for prompt in chosen]
        caches = blocks(self.prefix, self.policy.layers)
        tokens_RL = mx.array([rest + [0] * (width - len(rest)) for rest in rests])
        hidden_RLD = self.policy.hidden(tokens_RL, caches)
        last_RD = mx.stack([hidden_RLD[i, len(rest) - 1] for i, rest in enumerate(rests)])
        logits_RV = self.policy.logits(last_RD)
        mx.eval(logits_RV, [(cache.keys, cache.values) for cache in caches])
        for i, (prompt, rest) in enumerate(zip(chosen, rests, strict=True)):
            own = tuple(
                (cache.keys[i, :, : len(rest)], cache.values[i, :, : len(rest)]) for cache in caches
            )
            self.ready.append(Ready(prompt, own, logits_RV[i]))
            self.policy.prefilled_tokens += len(rest)

    def _admit(self) -> None:
        """Fill the free slots, and draw the first token of each row that gets one."""
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

    def _start(self, slot: int) -> tuple[Row, mx.array]:
        """Put the next completion of the first ready prompt into `slot`."""
        ready, s = self.ready[0], self.sampling
        length = ready.own[0][0].shape[1]
        uniforms_T = uniforms(s.seed, s.step, self.keys[ready.prompt], ready.started, s.max_tokens)
        start = self.starts[ready.prompt]
        matcher = start(ready.started) if start else None
        row = self.rows[slot] = Row(ready.prompt, ready.started, uniforms_T, length, matcher)
        if not self.slots:
            prefix = self.prefix or (None,) * self.policy.layers
            self.slots = [
                Slots(kv, len(self.rows), length + 1, own)
                for kv, own in zip(prefix, ready.own, strict=True)
            ]
        for layer, own in zip(self.slots, ready.own, strict=True):
            layer.put(slot, own)
        ready.started += 1
        if ready.started == self.n:
            self.ready.popleft()
        return row, ready.logits_V

    def _step(self) -> None:
        """Decode one more token for every row; free slots run along and are not read."""
        self._retire_full()
        if not any(self.rows):
            return
        cursor = Cursor(self.shared, [row.length if row else 0 for row in self.rows])
        for layer in self.slots:
            layer.cursor = cursor
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
        allowed = Allowed.of([row.matcher if row else None for row in rows], self.policy.vocabulary)
        tokens_R, logprobs_R, left_RV = choose(logits_RV, self.sampling, uniforms_R, allowed)
        free_R2 = signals(logits_RV, tokens_R) if self.sampling.signals else None
        truncated = self.sampling.truncated
        drawn = Draw(rows, tokens_R, logprobs_R, left_RV, truncated, free_R2)
        for row in filter(None, rows):
            row.drawn += 1
        self.unread.append(drawn)
        return tokens_R

    def _retire_full(self) -> None:
        """Free the slots of rows that need no further step, whatever their unread tokens are."""
        self.rows = [
            row if row and row.drawn < self.sampling.max_tokens else None for row in self.rows
        ]

    def _read(self) -> Iterator[Group]:
        """Take over the oldest drawn tokens, and yield the groups that they complete."""
        for row in self.unread.popleft().read():
            row.finish = self.sampling.finish(row.tokens)
            if row.finish:
                self.done[row.prompt].append(row)
                if len(self.done[row.prompt]) == self.n:
                    yield _group(self.done[row.prompt])
        self.rows = [None if row and row.finish else row for row in self.rows]

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


def _group(rows: list[Row]) -> Group:
    ordered = sorted(rows, key=lambda row: row.sample)
    return Group(prompt=rows[0].prompt, completions=tuple(map(_completion, ordered)))


def _completion(row: Row) -> Completion:
    mask = SamplingMask.of_positions(row.left_T) if row.left_T else None
    tokens, logprobs, finish = tuple(row.tokens), tuple(row.logprobs), row.finish or "length"
    if not row.signals_T2:
        return Completion(tokens, logprobs, finish, mask)
    free, margins = zip(*row.signals_T2, strict=True)
    return Completion(tokens, logprobs, finish, mask, free, margins)
