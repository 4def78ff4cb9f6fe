"""Ranks behind a clock: what is said arrives, and no wait is without end."""

from __future__ import annotations

import time
from pathlib import Path

import memory_link
import numpy as np
import pytest

from offapi.errors import RunError
from offapi.launch import OtherRankFailed
from offapi.model_spec import LoraSpec, ModelSpec
from offapi.optimizer import TrainState
from offapi.ranks import ranks
from offapi.ranks.member import Member
from offapi.ranks.messages import Close, Command, LoadModel, Restore, decode_command, encode


class SlowLink:
    """A link to a rank that never answers, or has ended."""

    rank, size = 1, 2

    def join(self) -> None:
        time.sleep(5)

    def broadcast(self, data: bytes) -> bytes:
        raise RuntimeError("[ring] connection to a peer was lost\nmore")

    def gather(self, data: bytes) -> list[bytes]:
        return [data, data]


def test_a_rank_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "JOIN_SECONDS", 0.05)
    with pytest.raises(RunError, match="rank 1 of 2: a rank did not answer within"):
        ranks.Ranks(SlowLink()).join()


def test_a_rank_that_has_ended_is_said() -> None:
    alone = ranks.Ranks(SlowLink())
    assert alone.gather(b"x") == [b"x", b"x"]
    with pytest.raises(RunError) as error:
        alone.broadcast()
    assert error.value.what == (
        "another rank has ended, or cannot be reached ([ring] connection to a peer was lost)."
    )
    assert "--resume" in error.value.next_step


class Failing(Member):
    """A rank that fails: the last first, and the others because of it."""

    def do(self, command: Command) -> object:
        if self.ranks.rank == self.ranks.size - 1:
            raise ValueError("a number too large")
        raise OtherRankFailed("another rank failed.")


@pytest.mark.parametrize("size", [2, 3])
def test_the_rank_that_failed_first_is_named(size: int) -> None:
    with memory_link.crew_of(size, member=Failing) as crew:
        for _ in range(2):  # and the ranks hear what comes next
            with pytest.raises(RuntimeError, match=f"rank {size - 1}: ValueError: a number too"):
                crew.ask(Close(), type(None))


def test_commands_arrive_as_they_were() -> None:
    spec = ModelSpec(Path("/models/a"), lora=LoraSpec(rank=4))
    assert decode_command(encode(LoadModel("mlx", spec))) == LoadModel("mlx", spec)
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    arrived = decode_command(encode(Restore(TrainState({"a": matrix}, step=3))))
    assert isinstance(arrived, Restore)
    assert arrived.state.step == 3
    np.testing.assert_array_equal(arrived.state.adapter["a"], matrix)


def test_objects_are_never_sent() -> None:
    with pytest.raises(TypeError, match="nothing that ranks send each other"):
        encode(np.array([object()]))
