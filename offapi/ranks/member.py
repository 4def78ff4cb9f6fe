"""What each rank does for a command: its own share, on its own backend. Rank 0 does so too.

Left out: rollouts of rank 0, which it hands on as they finish (`ranked_backend`).
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property

from offapi import backend as backends
from offapi.backend import Backend, StartMatcher
from offapi.constrain import Constraints
from offapi.episodes import Totals
from offapi.errors import BackendError, ModelError, OffapiError, RunError, describe_error
from offapi.files.hashing import sha256_file
from offapi.launch import LostStep
from offapi.models.lock import LOCK
from offapi.ranks import sharding
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
    decode_command,
    encode,
)
from offapi.ranks.ranks import Ranks


class Member:
    """One rank and the model it has loaded. `bounds` makes the run's constraint where one is."""

    def __init__(self, ranks: Ranks, bounds: Callable[[], Constraints]) -> None:
        self.ranks, self._bounds = ranks, bounds
        self._backend: Backend | None = None

    @property
    def backend(self) -> Backend:
        """The loaded model."""
        if self._backend is None:
            raise BackendError("no model is loaded on this rank.")
        return self._backend

    @cached_property
    def constraints(self) -> Constraints:
        """What bounds the run's completions, made when it is first needed."""
        return self._bounds()

    def follow(self) -> None:
        """Do what rank 0 asks until it asks nothing more."""
        while not isinstance(command := decode_command(self.ranks.broadcast()), Dismiss):
            self.ranks.gather(encode(self._reply(command)))
        with suppress(RunError):  # rank 0 may be gone when it has heard this
            self.ranks.gather(b"")

    def _reply(self, command: Command) -> RankReply:
        try:
            return RankReply(encode(self.do(command)))
        except LostStep:  # the others wait in that step, until this process has ended
            raise
        except OffapiError as error:
            return RankReply(failed=Failed(error.what, error.where, error.next_step, error.code))
        except Exception as error:
            if os.environ.get("OFFAPI_DEBUG"):
                traceback.print_exc()
            return RankReply(failed=Failed(describe_error(error)))

    def do(self, command: Command) -> object:
        """Carry out this rank's share of `command` and return its result; None: it has no share."""
        match command:
            case LoadModel():
                return self._load(command)
            case SampleGroups():
                return self._rollout(command)
            case OptimStep():
                self.ranks.in_time(self.backend.sum_gradients)
                return self.backend.optim_step(command.lr, command.optimizer)
            case Restore():
                self.backend.restore(command.state)
            case Assist():
                with self.backend.together():
                    pass  # the passes of the others
            case Close():
                self.backend.close()
            case Score() | ForwardBackward() | PolicyGradient():
                return self._compute(command)
        return None

    def _compute(self, command: Score | ForwardBackward | PolicyGradient) -> object:
        share = shares_of(command, self.ranks.size)[self.ranks.rank]
        with self.backend.together():
            return self._share_of(command, share)

    def _share_of(
        self, command: Score | ForwardBackward | PolicyGradient, share: list[int]
    ) -> object:
        if not share:
            return [] if isinstance(command, Score) else None
        if isinstance(command, Score):
            episodes = sharding.take(command.episodes, share)
            return self.backend.score(episodes, command.by, command.temperature)
        if isinstance(command, ForwardBackward):
            whole = Totals.of(command.batch)
            return self.backend.forward_backward(sharding.take(command.batch, share), whole)
        whole = Totals.of([experience.episode for experience in command.batch])
        batch = sharding.take(command.batch, share)
        return self.backend.policy_gradient(batch, command.loss, whole)

    def _load(self, command: LoadModel) -> str:
        """LoadModel a model; return a hash that another model has not."""
        folder = command.spec.path
        if not folder.is_dir():
            raise ModelError(
                "the model is not on this rank's machine.",
                where=str(folder),
                next_step="Add the same model there too, with the same OFFAPI_HOME.",
            )
        self._backend = backends.load(command.name, command.spec)
        lock = folder / LOCK
        return sha256_file(lock if lock.is_file() else folder / "config.json")

    def _rollout(self, command: SampleGroups) -> SampledGroups:
        share = sharding.deal(len(command.prompts), self.ranks.size)[self.ranks.rank]
        with self.backend.together():
            return self._drawn(command, share)

    def _drawn(self, command: SampleGroups, share: list[int]) -> SampledGroups:
        if not share:
            return SampledGroups()
        before = self.backend.prefilled_tokens
        prompts = sharding.take(command.prompts, share)
        keys = sharding.take(command.keys, share)
        starts = self._starts(command, share)
        drawn = tuple(self.backend.rollout(prompts, command.n, command.sampling, keys, starts))
        return SampledGroups(drawn, self.backend.prefilled_tokens - before)

    def _starts(self, command: SampleGroups, share: list[int]) -> list[StartMatcher | None] | None:
        if command.documents is None:
            return None
        texts = sharding.take(command.documents, share)
        return [None if text is None else self.constraints.start(text) for text in texts]


def shares_of(command: Score | ForwardBackward | PolicyGradient, size: int) -> sharding.Shares:
    """Return the places of the batch that each rank computes."""
    match command:
        case Score():
            return sharding.split_episodes(command.episodes, size)
        case ForwardBackward():
            return sharding.split_episodes(command.batch, size)
        case PolicyGradient():
            return sharding.split_experiences(command.batch, command.loss, size)
