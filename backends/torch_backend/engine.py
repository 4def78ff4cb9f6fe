"""Rows of any kind side by side, with the prompts' common prefix held once.

Rows wait, are prefilled into free slots, decode one token per step and leave when finished. The
prefix common to the prompts that wait when the engine was idle is computed once; a prompt that does
not start with it, or has another adapter, brings all its keys. Left out: speculative decoding, and
sampling more than one token per step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from offapi.completions import Sampling
from offapi.engine import NewToken
from offapi.episodes import common_prefix_length
from offapi.prefix_tree import PrefixKey, PrefixTree, Tokens

from .cache import Decoding, Run, cut, join, size_of
from .cuda_graphs import Graphs
from .lora import Adapters, Places
from .packed_attention import Packed
from .policy import Policy
from .row_queue import RowQueue
from .rows import Row, WaitingPrompt, append, draw
from .sampling import Drawn, choose

KEPT = 8  # tokens whose keys and values count as one that is computed, in a pass's budget


@dataclass(frozen=True, eq=False)
class _Taken:
    """A waiting prompt that is admitted.

    Its slot holds it from `start` on; `known` are the keys and values of its first `length` tokens,
    or None where those are the shared prefix's.
    """

    prompt: WaitingPrompt
    start: int
    length: int
    known: Run | None = None


class TorchEngine(RowQueue):
    """Rows decoded by our attention and slots. Live row i owns slot i."""

    def __init__(
        self,
        policy: Policy,
        adapters: Adapters,
        cache_bytes: int = 0,
        room: int | None = None,
    ) -> None:
        self.tree: PrefixTree[Run] = PrefixTree(cache_bytes, cut=cut, join=join, size=size_of)
        self.capturable = policy.capturable
        super().__init__(policy, adapters, room)

    def _clear(self) -> None:
        super()._clear()
        self.cache = Decoding()
        self.shared: Tokens = ()  # the prefix that slots continue
        self.shared_key: PrefixKey | None = None
        self.graphs: Graphs | None = None
        self.captured: tuple[Sampling, int] | None = None  # what `graphs` holds steps of

    def close(self) -> None:
        """See `Engine.close`."""
        super().close()
        self.tree.clear()

    def _key(self, adapter: str | None) -> PrefixKey:
        return PrefixKey(adapter, self.policy.version)

    def _follows(self, prompt: WaitingPrompt) -> bool:
        """Whether `prompt` starts with the prefix that the slots continue."""
        size = len(self.shared)
        return (
            0 < size < len(prompt.tokens)
            and self._key(prompt.adapter) == self.shared_key
            and prompt.tokens[:size] == self.shared
        )

    def _admit(self) -> list[NewToken]:
        """Run the next waiting prompts once, copy their keys into slots, and draw first tokens."""
        if not any(row.follows for row in self.rows):
            unfit = bool(self.shared) and not self._follows(self.waiting[0])
            if unfit or (self.fresh and not self.rows):
                self._share()
        at, known = len(self.rows), self._take_known()
        taken = known or self._take(self._follows(self.waiting[0]))
        prompts = [one.prompt for one in taken]
        copies = [len(prompt.rows) for prompt in prompts]
        self.cache.reserve(at + sum(copies), max(one.prompt.most - one.start for one in taken))
        last_RD = self._fill(taken, copies, at)
        for one in taken:
            self.rows += one.prompt.rows
            for row in one.prompt.rows:
                row.begin(one.start, self._key(row.request.adapter))
                self._release(row)
        self._remember(prompts, at)
        counts = torch.tensor(copies, device=last_RD.device)
        logits_PV = self._logits(last_RD, [prompt.adapter for prompt in prompts])
        logits_RV = logits_PV.repeat_interleave(counts, dim=0)
        return draw(logits_RV, self.rows[at:])

    def _fill(self, taken: Sequence[_Taken], copies: Sequence[int], at: int) -> Tensor:
        """Compute what is not known of the prompts into the slots from `at` on.

        Return the last hidden state of each, (P, D).
        """
        rests = [one.prompt.tokens[one.length :] for one in taken]
        runs = [one.known for one in taken if one.known is not None]
        prefix, befores = self.cache.prefix if taken[0].start else {}, tuple[int, ...]()
        if runs:
            prefix, befores = join(runs), tuple(one.length for one in taken)
        keep: Run = {}
        layout = Packed(_trees(rests), prefix, keep, befores)
        lengths = [one.length for one in taken]
        last_PD = self._run(rests, lengths, layout, [one.prompt for one in taken])
        columns, slot = [one.length - one.start for one in taken], at
        for one, count, column in zip(taken, copies, columns, strict=True):
            if one.known is not None:
                own = cut(one.known, one.start, one.length)
                self.cache.admit(own, [column], [count], slot)
            slot += count
        self.cache.admit(keep, [len(rest) for rest in rests], copies, at, columns)
        return last_PD

    def _take_known(self) -> list[_Taken]:
        """Take prompts of which the tree has more than the shared prefix, and that fit together."""
        taken: list[_Taken] = []
        rows, budget = len(self.rows), self.policy.spec.limits.micro_batch
        while self.waiting and self.tree.used_bytes:
            prompt = self.waiting[0]
            start = len(self.shared) if self._follows(prompt) else 0
            length, known = self.tree.longest(self._key(prompt.adapter), prompt.tokens[:-1])
            rows += len(prompt.rows)
            # Keys and values take far less than what is computed of a token.
            budget -= len(prompt.tokens) - length + length // KEPT
            full = taken and (rows > self.room or budget < 0)
            if known is None or length <= start or full:
                break
            taken.append(_Taken(self.waiting.popleft(), start, length, known))
        return taken

    def _share(self) -> None:
        """Compute the prefix that all waiting prompts of the first one's adapter share."""
        adapter, self.fresh = self.waiting[0].adapter, False
        alike = [prompt for prompt in self.waiting if prompt.adapter == adapter]
        shared: Tokens = ()
        # A single prompt shares all but its last token, so its completions read it once.
        if not self.rows or sum(len(prompt.rows) for prompt in alike) > 1:
            tokens = [prompt.tokens for prompt in alike]
            shared = tokens[0][: common_prefix_length(tokens)]
        self.shared, self.shared_key = shared, self._key(adapter)
        self.cache.follow(self._prefix(alike[0]) if shared else {}, len(shared))
        waiting = sum(len(prompt.rows) for prompt in self.waiting)
        most = max(prompt.most - len(shared) * self._follows(prompt) for prompt in self.waiting)
        self.cache.reserve(min(self.room, len(self.rows) + waiting), most)

    def _prefix(self, prompt: WaitingPrompt) -> Run:
        """Return the keys and values of the shared prefix, which `prompt` starts with."""
        tokens, key = self.shared, self._key(prompt.adapter)
        length, known = self.tree.longest(key, tokens)
        if known is not None and length == len(tokens):
            return known
        rest, keep = tokens[length:], dict[int, tuple[Tensor, Tensor]]()
        self._run([rest], [length], Packed(_trees([rest]), known or {}, keep), [prompt])
        return keep if known is None else join([known, keep])

    def _take(self, follows: bool) -> list[_Taken]:
        """Take prompts that have free slots and fit into one pass, all with the prefix or none."""
        taken: list[_Taken] = []
        start = len(self.shared) if follows else 0
        rows, budget = len(self.rows), self.policy.spec.limits.micro_batch
        while self.waiting and self._follows(self.waiting[0]) == follows:
            prompt = self.waiting[0]
            rows += len(prompt.rows)
            budget -= len(prompt.tokens) - start
            if taken and (rows > self.room or budget < 0 or self._known(prompt)):
                break
            taken.append(_Taken(self.waiting.popleft(), start, start))
        return taken

    def _known(self, prompt: WaitingPrompt) -> bool:
        """Whether the tree has more of `prompt` than the shared prefix."""
        if not self.tree.used_bytes:
            return False
        start = len(self.shared) if self._follows(prompt) else 0
        return self.tree.longest(self._key(prompt.adapter), prompt.tokens[:-1])[0] > start

    def _run(
        self,
        rows: Sequence[Sequence[int]],
        starts: Sequence[int],
        layout: Packed,
        prompts: Sequence[WaitingPrompt],
    ) -> Tensor:
        """Return the last hidden state of each row, whose positions begin at its start, (R, D)."""
        device = self.policy.device
        tokens = [token for row in rows for token in row]
        each_row = zip(starts, rows, strict=True)
        positions = [start + i for start, row in each_row for i in range(len(row))]
        tokens_1L = torch.tensor([tokens], device=device)
        positions_1L = torch.tensor([positions], device=device)
        ends_R = torch.tensor([len(row) for row in rows]).cumsum(0) - 1
        self.policy.prefilled_tokens += len(tokens)
        each = zip(prompts, rows, strict=True)
        names = [prompt.adapter for prompt, row in each for _ in row]
        hidden_1LD = self._hidden(tokens_1L, positions_1L, layout, names)
        return hidden_1LD[0, ends_R.to(device)]

    def _hidden(
        self,
        tokens_1L: Tensor,
        positions_1L: Tensor,
        layout: Packed | Decoding,
        names: Sequence[str | None],
    ) -> Tensor:
        """Return the last hidden states (1, L, D), each token's by the adapter of its name."""
        if not any(name is not None for name in names):
            with self.policy.step():
                return self.policy.sampled_hidden(tokens_1L, positions_1L, layout)
        with self.adapters.applied(places_of(names, self.policy.device)):
            return self.policy.hidden(tokens_1L, positions_1L, layout)

    def _logits(self, hidden_RD: Tensor, names: Sequence[str | None]) -> Tensor:
        """Return the logits (R, V), each row's by the adapter of its name."""
        if not any(name is not None for name in names):
            return self.policy.logits(hidden_RD)
        with self.adapters.applied(places_of(names, self.policy.device)):
            return self.policy.logits(hidden_RD, plain=False)

    def _decode(self) -> list[NewToken]:
        """Decode one token for every row: the model as it is, or captured steps on CUDA."""
        rows, cache, device = self.rows, self.cache, self.policy.device
        if self.capturable and self._alike():
            return append(rows, self._replay())
        filled = [row.filled for row in rows]
        inputs_2R = torch.tensor([[row.tokens[-1] for row in rows], filled], device=device)
        positions_R, follows_R = inputs_2R[1] + cache.shared, None
        if cache.shared and not all(row.follows for row in rows):
            follows_R = torch.tensor([row.follows for row in rows], device=device)
            positions_R = inputs_2R[1] + cache.shared * follows_R
        cache.place(inputs_2R[1], max(filled) + 1, follows_R)
        names = [row.request.adapter for row in rows]
        hidden_1RD = self._hidden(inputs_2R[:1], positions_R[None], cache, names)
        return draw(self._logits(hidden_1RD[0], names), rows)

    def _alike(self) -> bool:
        """Whether one captured step holds for all rows."""
        kind, follows = self.rows[0].kind, bool(self.shared)
        return all(
            row.kind is kind
            and not row.sampling.top_logprobs
            and row.matcher is None
            and row.request.adapter is None
            and row.follows == follows
            for row in self.rows
        )

    def _replay(self) -> Drawn:
        rows, cache, policy = self.rows, self.cache, self.policy
        sampling = replace(rows[0].sampling, max_tokens=1)

        def step(tokens_R: Tensor, filled_R: Tensor, uniforms_R: Tensor, longest: int) -> Drawn:
            cache.place(filled_R, longest)
            positions_R = filled_R + cache.shared
            hidden_RD = policy.sampled_hidden(tokens_R[None], positions_R[None], cache)[0]
            return choose(policy.logits(hidden_RD), sampling, uniforms_R)

        key = rows[0].kind, cache.generation
        if self.graphs is None or self.captured != key:
            self.graphs = Graphs(step, cache.room, cache.capacity, policy.device)
            self.captured = key
        tokens = [row.tokens[-1] for row in rows]
        filled = [row.filled for row in rows]
        return self.graphs(tokens, filled, [row.uniform for row in rows])

    def _remember(self, prompts: Sequence[WaitingPrompt], at: int) -> None:
        """Put the admitted prompts into the tree, if it keeps any."""
        if not self.tree.budget:
            return
        for prompt in prompts:
            self._keep(at, self._key(prompt.adapter), prompt.tokens, pin=False)
            at += len(prompt.rows)

    def _keep(self, slot: int, key: PrefixKey, tokens: Tokens, pin: bool) -> None:
        follows = self.rows[slot].follows

        def read(start: int, stop: int) -> Run:
            return self.cache.read(slot, follows, start, stop)

        self.tree.insert(key, tokens, read, pin)

    def _hold(self, slot: int) -> None:
        row = self.rows[slot]
        row.kept = row.key, (*row.prompt, *row.tokens[:-1])
        self._keep(slot, *row.kept, pin=True)

    def _release(self, row: Row) -> None:
        """Let what the tree holds for a kept row be dropped."""
        if row.kept is not None:
            self.tree.unpin(*row.kept)
            row.kept = None

    def _free(self, slot: int) -> None:
        """Drop the row of `slot`; the last running row takes its place."""
        last = self.rows.pop()
        if slot < len(self.rows):
            self.rows[slot] = last
            self.cache.move(len(self.rows), slot)


def _trees(rows: Sequence[Sequence[int]]) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Return the layout of rows that share nothing with each other in this pass."""
    return ((0, tuple(len(row) for row in rows)),)


def places_of(names: Sequence[str | None], device: torch.device) -> Places:
    """Return where each adapter's tokens are among tokens of those names."""
    if len(set(names)) == 1:
        return {names[0]: None}
    places: dict[str | None, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    return {name: torch.tensor(each, device=device) for name, each in places.items()}
