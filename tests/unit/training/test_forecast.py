"""The forecast of time and memory before a training starts."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import orjson
import pytest
import tiny_llama

from offapi.activation_memory import TRAINED, Account
from offapi.backend import Backend, Memory
from offapi.episodes import Episode, Segment
from offapi.model_spec import Limits, ModelSpec
from offapi.optimizer import TrainState
from offapi.training import forecast, forecast_text
from offapi.training.forecast import measure
from offapi.training.schedule import Schedule

ROW = Episode("a", (Segment((1,) * 90, False), Segment((2,) * 10, True)))


class Small:
    """A machine of two MiB: what a forecast asks of a backend, and no more."""

    name, device, implementation = "torch", "cpu", "packed"
    ranks, seconds = 1, 0.0

    def __init__(self, tokens: int, implementation: str = "packed") -> None:
        self.limits, self.implementation = Limits(train_tokens=tokens), implementation

    def score(self, episodes: list[Episode]) -> None:
        time.sleep(self.seconds)

    def memory(self) -> Memory:
        return Memory(used=0, peak=0, total=2**21, free=2**21)

    def state(self) -> TrainState:
        return TrainState({"a": np.zeros((2, 5), np.float32)})


def taken(folder: Path, tokens: int, longest: int) -> float:
    """Return what a micro-batch takes whose layers are kept."""
    return Account.of(folder, "torch", "float32").training(tokens, longest, 256, False)


def test_ranks_are_timed_at_once_so_that_minutes_are_those_of_all() -> None:
    machine = Small(100)
    machine.ranks, machine.seconds = 4, 0.02
    assert measure(cast(Backend, machine), 256).score == pytest.approx(0.02 / 4 / 256, rel=0.5)


@pytest.mark.parametrize(("tokens", "fits"), [(100, True), (400, False)])
def test_training_that_exceeds_memory_is_reported_before(
    tmp_path: Path, tokens: int, fits: bool
) -> None:
    (tmp_path / "config.json").write_bytes(orjson.dumps(tiny_llama.CONFIG))
    spec = ModelSpec(tmp_path, limits=Limits(train_tokens=tokens), checkpointing=False)
    schedule = Schedule(rows=8, batch_size=4, epochs=2.0, lr=1e-3, warmup_steps=0, seed=0)
    rows = [replace(ROW, id=str(i)) for i in range(8)]
    sentence = forecast_text.training(cast(Backend, Small(tokens)), rows, schedule, 0, spec)
    assert sentence.startswith(
        "Training on 8 rows, 800 tokens (80 of them learned), in 4 steps of 4 rows: about "
    )
    assert ("lower limits.train_tokens (the longest row has 100)" in sentence) is not fits
    assert "slower" not in sentence
    library = cast(Backend, Small(tokens, "library"))
    slower = forecast_text.training(library, rows, schedule, 0, spec)
    assert slower.endswith("by its library's own forward, row by row, which is slower.")


def test_the_forecast_of_a_reinforcement_by_hand(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(orjson.dumps(tiny_llama.CONFIG))
    spec = ModelSpec(path=tmp_path)
    schedule = Schedule(rows=4, batch_size=2, epochs=1.5, lr=1e-3, warmup_steps=0, seed=0)
    rounds = forecast.Rounds([10, 20, 30, 40], [50, 70], answer=5, group=4, updates=2, eval_every=2)
    speed = forecast.Speed(1.0)
    # Three steps of two prompts: 25 tokens are read twice, 20 are written and scored,
    # and both are learned twice.
    steps = 3 * 2 * (2 * 25 + 20 + speed.decode * 20 + speed.train * (25 + 20) * 2)
    looks = 3 * (50 + 70 + speed.decode * 5 * 2)  # before the first step, after two, at the end
    machine = forecast.Machine("torch", speed, 7.0, 1e9, 1e9, 11, Limits(train_tokens=100))
    work = forecast.reinforcement(machine, rounds, schedule, spec)
    assert work.seconds == pytest.approx(steps + looks)
    assert work.bytes == 7 + 11 * TRAINED + taken(tmp_path, 100, 45)
    assert work.trained == 3 * 2 * (25 + 20) * 2
    assert work.decoded == 3 * 2 * 20 + 3 * 2 * 5


def test_many_rows_sampled_at_once_set_the_memory(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(orjson.dumps(tiny_llama.CONFIG))
    account = Account.of(tmp_path, "torch", "float32")
    schedule = Schedule(rows=4, batch_size=2, epochs=1.0, lr=1e-3, warmup_steps=0, seed=0)
    limits = Limits(train_tokens=1, logit_rows=1, rollout_rows=300)
    machine = forecast.Machine("torch", forecast.Speed(1.0), 7.0, 1e9, 1e9, limits=limits)
    rounds = forecast.Rounds([40], [30] * 900, 5, group=4, updates=1, eval_every=2, shared=10)
    work = forecast.reinforcement(machine, rounds, schedule, ModelSpec(tmp_path))
    assert work.bytes == 7 + account.sampling(300, 35, 10)
    few = replace(rounds, heldout=[30])
    assert forecast.reinforcement(machine, few, schedule, ModelSpec(tmp_path)).bytes < work.bytes


def test_a_longest_answer_beyond_the_micro_batch_sets_the_memory(tmp_path: Path) -> None:
    """One completion is never split: its prompt and its answer are computed together."""
    (tmp_path / "config.json").write_bytes(orjson.dumps(tiny_llama.CONFIG))
    spec = ModelSpec(path=tmp_path)
    schedule = Schedule(rows=4, batch_size=2, epochs=1.0, lr=1e-3, warmup_steps=0, seed=0)
    limits = Limits(train_tokens=20)
    machine = forecast.Machine("torch", forecast.Speed(1.0), 7.0, 1e9, 1e9, limits=limits)
    rounds = forecast.Rounds([10, 40], [50], answer=5, group=4, updates=1, eval_every=2)
    assert forecast.reinforcement(machine, rounds, schedule, spec).bytes == 7 + taken(
        tmp_path, 45, 45
    )
    # more than a step has: the two groups, of 30 and 60 tokens
    ample = replace(machine, limits=Limits(train_tokens=1000))
    assert forecast.reinforcement(ample, rounds, schedule, spec).bytes == 7 + taken(
        tmp_path, 90, 45
    )
    for limited, tokens in ((machine, 30), (ample, 40)):
        work = forecast.training(limited, [30, 10], schedule, spec)
        assert (work.bytes, work.trained) == (7 + taken(tmp_path, tokens, 30), 40)


def test_what_all_rows_begin_with_is_computed_once_in_a_micro_batch(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(orjson.dumps(tiny_llama.CONFIG))
    schedule = Schedule(rows=4, batch_size=2, epochs=1.0, lr=1e-3, warmup_steps=0, seed=0)
    machine = forecast.Machine("torch", forecast.Speed(1.0), 0.0, 1e9, 1e9)
    rows = [30, 20, 25, 25]
    work = forecast.training(machine, rows, schedule, ModelSpec(tmp_path), shared=15)
    assert (work.trained, work.bytes) == (40 + 2 * 15, taken(tmp_path, 15 + 15 + 10, 30))
    apart = replace(machine, packed=False)
    work = forecast.training(apart, rows, schedule, ModelSpec(tmp_path), shared=15)
    assert (work.trained, work.bytes) == (100, taken(tmp_path, 55, 30))
    assert forecast.shared_tokens([ROW, ROW]) == 89
    assert forecast.shared_tokens([ROW]) == 0


def test_a_resumed_training_takes_the_time_of_the_steps_left(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(orjson.dumps(tiny_llama.CONFIG))
    schedule = Schedule(rows=4, batch_size=2, epochs=2.0, lr=1e-3, warmup_steps=0, seed=0)
    machine = forecast.Machine("torch", forecast.Speed(1.0), 7.0, 1e9, 1e9)
    spec, rows = ModelSpec(path=tmp_path), [10, 20, 30, 40]
    whole = forecast.training(machine, rows, schedule, spec).seconds
    assert whole == pytest.approx(2 * 100 * machine.speed.train)
    assert forecast.training(machine, rows, schedule, spec, 3).seconds == pytest.approx(whole / 4)


def test_layers_computed_again_take_less_memory_and_the_plan_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(orjson.dumps(tiny_llama.CONFIG))
    schedule = Schedule(rows=4, batch_size=4, epochs=2.0, lr=1e-3, warmup_steps=0, seed=0)
    rows = [replace(ROW, id=str(i)) for i in range(4)]

    def said(tokens: int, asked: bool | None) -> str:
        spec = ModelSpec(tmp_path, checkpointing=asked)
        return forecast_text.training(cast(Backend, Small(tokens)), rows, schedule, 0, spec)

    again = "Layers are computed again in the backward pass"
    assert again in said(100, True)
    assert again not in said(100, None)
    assert again not in said(100, False)
    deep = {**tiny_llama.CONFIG, "num_hidden_layers": 12}
    (tmp_path / "config.json").write_bytes(orjson.dumps(deep))
    machine = forecast.Machine("torch", forecast.Speed(1.0), 7.0, 2e6, 2e6)
    asked = {
        answer: forecast.training(
            machine, [200], schedule, ModelSpec(tmp_path, checkpointing=answer)
        )
        for answer in (False, True, None)
    }
    assert asked[None] == asked[True]  # 200 tokens do not fit otherwise
    assert asked[False].bytes > asked[True].bytes
    assert asked[True].seconds == pytest.approx(forecast.AGAIN * asked[False].seconds)
