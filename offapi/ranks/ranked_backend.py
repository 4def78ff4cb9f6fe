"""A backend over all ranks: rank 0 asks with it what a recipe asks, and each rank does its share.

Recipes run on rank 0 alone, so files, rewards, teachers, gates and messages are there once. What is
too small to share, and engines, are computed on rank 0; of a sharded model the others assist it.
Left out: engines of a sharded model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from offapi.backend import Backend, By, Group, Memory, Sampling, StartMatcher, resolve_dtype
from offapi.constrain.constraints import DocumentStart
from offapi.engine import Engine
from offapi.episodes import Episode, Floats, Metrics, Totals
from offapi.errors import BackendError, ModelError, RunError
from offapi.launch import LostStep, OtherRankFailed
from offapi.model_spec import Limits, ModelSpec
from offapi.optimizer import AdamW, TrainState
from offapi.policy_loss import Experience, PolicyLoss, Rule, Update
from offapi.ranks import sharding
from offapi.ranks.member import Member, shares_of
from offapi.ranks.messages import (
    Assist,
    Close,
    Command,
    Dismiss,
    Failed,
    ForwardBackward,
    LoadModel,
    OptimStep,
    PolicyGradient,
    RankReply,
    Restore,
    SampledGroups,
    SampleGroups,
    Score,
    decode,
    encode,
)

DRIFT = 1e-4  # relative difference of the ranks' gradient norms that rounding cannot make
T = TypeVar("T")


class Crew:
    """Rank 0's side of the ranks: it asks all of them, itself included, and hears their answers."""

    def __init__(self, member: Member) -> None:
        self.member, self._busy = member, False

    def load(self, name: str, spec: ModelSpec) -> Backend:
        """LoadModel `spec` on every rank; raise what `offapi.backend.load` and the ranks raise."""
        spec = replace(spec, dtype=resolve_dtype(spec.dtype, name, spec.device))
        models = self.ask(LoadModel(name, spec), str)
        if len(set(models)) > 1:
            raise ModelError(
                "the ranks' machines have different models under this path.",
                where=str(spec.path),
                next_step="Add the same model on each of them.",
            )
        return RankedBackend(self, sharded=spec.shard)

    @contextmanager
    def heard(self, kind: type[T]) -> Iterator[list[T]]:
        """Do rank 0's share of what was sent in the block; afterwards the list has the others'.

        Raise what the block raises, or the error of the first rank that failed.
        """
        answers: list[T] = []
        try:
            yield answers
        except LostStep:  # the others wait in that step, until this process has ended
            raise
        except OtherRankFailed:
            self.hear(kind)  # raises why
            raise
        except Exception:
            with suppress(Exception):  # so that all know what comes next
                self.hear(kind)
            raise
        answers += self.hear(kind)

    def ask(self, command: Command, kind: type[T]) -> list[T]:
        """Have every rank carry out `command`; return the results in the order of ranks."""
        self.send(command)
        with self.heard(kind) as answers:
            own = self.member.do(command)
        return [own, *answers]  # type: ignore[list-item]

    def send(self, command: Command) -> None:
        """Send the other ranks what to do; `hear` must follow."""
        if self._busy:
            raise RunError("the ranks are still busy with what they were asked before.")
        self._busy = True
        self.member.ranks.broadcast(encode(command))

    def hear(self, kind: type[T]) -> list[T]:
        """Return the other ranks' results. Raise the error of the first that failed."""
        gathered = self.member.ranks.gather(encode(RankReply()))
        self._busy = False
        replies = [decode(data, RankReply) for data in gathered]
        failed = [(rank, reply.failed) for rank, reply in enumerate(replies) if reply.failed]
        if failed:
            raise _error(*min(failed, key=lambda each: each[1].code == OtherRankFailed.code))
        return [decode(reply.value, kind) for reply in replies[1:]]

    def end(self) -> None:
        """Let the other ranks go, where they wait for a command."""
        if not self._busy:
            with suppress(RunError):  # the run is over, whatever became of the others
                self.member.ranks.broadcast(encode(Dismiss()))
                self.member.ranks.gather(b"")


class RankedBackend:
    """One model on every rank; see `offapi.backend.Backend` for units, shapes and errors."""

    def __init__(self, crew: Crew, *, sharded: bool = False) -> None:
        self._crew, self._own, self._sharded = crew, crew.member.backend, sharded
        self._size = crew.member.ranks.size
        self.name, self.device = self._own.name, self._own.device
        self._prefilled_elsewhere = 0

    @property
    def implementation(self) -> str:
        """How rank 0 computes the model."""
        return self._own.implementation

    @property
    def ranks(self) -> int:
        """How many processes compute."""
        return self._size

    @property
    def limits(self) -> Limits:
        """How much each rank holds at once."""
        return self._own.limits

    @property
    def prefilled_tokens(self) -> int:
        """Prompt tokens that all ranks ran through the model."""
        return self._own.prefilled_tokens + self._prefilled_elsewhere

    def rollout(
        self,
        prompts: Sequence[Sequence[int]],
        n: int,
        sampling: Sampling,
        keys: Sequence[int] | None = None,
        starts: Sequence[StartMatcher | None] | None = None,
    ) -> Iterator[Group]:
        """Yield rank 0's groups as they finish, then the other ranks'."""
        documents = None if starts is None else _documents(starts)
        if starts is not None and documents is None:
            groups = self._own.rollout(prompts, n, sampling, keys, starts)
            return self._assisted(groups) if self._sharded else groups
        if len(prompts) < 2 and not self._sharded:
            return self._own.rollout(prompts, n, sampling, keys, starts)
        named = tuple(range(len(prompts)) if keys is None else keys)
        words = tuple(tuple(prompt) for prompt in prompts)
        return self._shared(SampleGroups(words, n, sampling, named, documents), starts)

    def _shared(
        self, command: SampleGroups, starts: Sequence[StartMatcher | None] | None
    ) -> Iterator[Group]:
        shares = sharding.deal(len(command.prompts), self._size)
        own = shares[0]
        groups = self._own.rollout(
            sharding.take(command.prompts, own),
            command.n,
            command.sampling,
            sharding.take(command.keys, own),
            None if starts is None else sharding.take(starts, own),
        )
        self._crew.send(command)
        with self._crew.heard(SampledGroups) as answers, self._own.together():
            for group in groups:
                yield replace(group, prompt=own[group.prompt])
        for share, sampled in zip(shares[1:], answers, strict=True):
            self._prefilled_elsewhere += sampled.prefilled
            for group in sampled.groups:
                yield replace(group, prompt=share[group.prompt])

    def _assisted(self, groups: Iterator[Group]) -> Iterator[Group]:
        """Yield groups that rank 0 draws, with the other ranks in step."""
        self._crew.send(Assist())
        with self._crew.heard(type(None)), self._own.together():
            yield from groups

    def engine(
        self, adapters: Mapping[str, Path | None] = MappingProxyType({}), cache_bytes: int = 0
    ) -> Engine:
        """Return an engine of rank 0."""
        return self._own.engine(adapters, cache_bytes)

    def score(
        self, episodes: Sequence[Episode], by: By = "policy", temperature: float = 1.0
    ) -> list[Floats]:
        """Return the logprobs of all episodes, each scored on one rank."""
        if len(episodes) < 2 and not self._sharded:
            return self._own.score(episodes, by, temperature)
        command = Score(tuple(episodes), by, temperature)
        parts = self._crew.ask(command, list[Floats])
        lists = sharding.join_lists(shares_of(command, self._size), parts)
        return [logprobs_T for logprobs_T in lists if logprobs_T is not None]

    def forward_backward(self, batch: Sequence[Episode], whole: Totals | None = None) -> Metrics:
        """Add the gradient of the whole batch, a share of it on each rank."""
        _must_be_whole(whole)
        if not batch:
            return self._own.forward_backward(batch)  # raises
        parts = self._crew.ask(ForwardBackward(tuple(batch)), _optional(dict[str, float]))
        return sharding.join_metrics(parts)

    def advantages(self, rewards: Sequence[Sequence[float]], rule: Rule) -> list[Floats]:
        """Return the advantages, computed on rank 0."""
        return self._own.advantages(rewards, rule)

    def policy_gradient(
        self, batch: Sequence[Experience], loss: PolicyLoss, whole: Totals | None = None
    ) -> Update:
        """Add the gradient of the whole batch, a share of it on each rank."""
        _must_be_whole(whole)
        if not batch:
            return self._own.policy_gradient(batch, loss)  # raises
        command = PolicyGradient(tuple(batch), loss)
        parts = self._crew.ask(command, _optional(Update))
        return sharding.join_updates(batch, loss, shares_of(command, self._size), parts)

    def together(self) -> AbstractContextManager[None]:
        """Do nothing: each call has all ranks in step."""
        return nullcontext()

    def sum_gradients(self) -> None:
        """Do nothing: `optim_step` does it."""

    def optim_step(self, lr: float, optimizer: AdamW) -> Metrics:
        """Sum the gradients of all ranks, then step on each of them."""
        metrics, *others = self._crew.ask(OptimStep(lr, optimizer), dict[str, float])
        for rank, other in enumerate(others, start=1):
            for name in ("grad_norm", "adapter_norm"):
                if abs(other[name] - metrics[name]) > DRIFT * metrics[name]:
                    raise BackendError(
                        f"rank {rank} has {name} {other[name]:g}, and rank 0 {metrics[name]:g}:"
                        " they no longer train the same weights.",
                        next_step="Use the same versions of offapi and its libraries everywhere.",
                    )
        return metrics

    def state(self) -> TrainState:
        """Return adapter and optimizer, which all ranks have alike."""
        return self._own.state()

    def restore(self, state: TrainState) -> None:
        """Put `state` in place on every rank."""
        self._crew.ask(Restore(state), type(None))

    def memory(self) -> Memory:
        """Return the memory of rank 0."""
        return self._own.memory()

    def close(self) -> None:
        """Free the model on every rank."""
        self._crew.ask(Close(), type(None))


def _documents(starts: Sequence[StartMatcher | None]) -> tuple[str | None, ...] | None:
    """Return the documents that bound the completions; None where another rank cannot make them."""
    documents: list[str | None] = []
    for start in starts:
        if start is None:
            documents.append(None)
        elif isinstance(start, DocumentStart) and start.alike:
            documents.append(start.document)
        else:
            return None
    return tuple(documents)


def _must_be_whole(whole: Totals | None) -> None:
    if whole is not None:
        raise ValueError("the batch of all ranks is whole, so it has no larger one to be a part of")


def _optional(kind: type[T]) -> type[T | None]:
    return kind | None  # type: ignore[return-value]


def _error(rank: int, failed: Failed) -> Exception:
    what = f"rank {rank}: {failed.what}"
    if not failed.code:
        return RuntimeError(what)
    error = BackendError(what, where=failed.where, next_step=failed.next_step)
    error.code = failed.code
    return error
