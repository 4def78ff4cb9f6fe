"""A record of what an adapter computes tells the right adapter from others, on either backend."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import oracle
import pytest
from conftest import NEEDS
from test_engine import MIXED, alone, drain, gather, same
from test_engine import folders as folders

from offapi import adapter as adapters
from offapi.backend import Backend
from offapi.errors import ModelError
from offapi.model_spec import DType, ModelSpec
from offapi.models.adapter_probe import (
    LENGTHS,
    PROBE,
    ROUGH_TOLERANCE,
    TOLERANCE,
    engine_difference,
    largest,
    probe_files,
    probe_rows,
    read_probe,
    tolerance,
)
from offapi.models.parity import ParityRecord
from offapi.optimizer import Arrays

Load = Callable[..., Backend]


@pytest.fixture
def trained(adapted: Load, adapter: Arrays, model_folder: Path, tmp_path: Path) -> Path:
    """The folder of a trained adapter, with its record."""
    return written(adapted(), adapter, model_folder, tmp_path / "trained")


def written(
    backend: Backend, adapter: Arrays, model: Path, folder: Path, dtype: DType = "float32"
) -> Path:
    """Write the adapter that `backend` has, as a recipe does."""
    base = adapters.Base.of("tiny", model)
    files = adapters.encode(adapter, oracle.SHAPE, base)
    folder.mkdir()
    probe = probe_files(backend, ModelSpec(model, dtype=dtype, device="cpu"))
    for file, content in {**files, **probe}.items():
        (folder / file).write_bytes(content)
    return folder


def record_in(folder: Path) -> ParityRecord:
    record = read_probe(folder)
    assert record is not None
    return record


def test_the_right_adapter_computes_what_was_recorded_and_others_do_not(
    load: Load, trained: Path, folders: Mapping[str, Path | None]
) -> None:
    record = record_in(trained)
    assert tuple(map(len, record.sequences)) == LENGTHS
    engine = load().engine({"right": trained, "wrong": folders["invoices"]})
    assert engine_difference(engine, "right", record) < TOLERANCE / 10
    assert engine_difference(engine, "wrong", record) > 1
    assert engine_difference(engine, None, record) > 0.1, "the base alone"
    engine.add_adapter("late", trained)
    assert engine_difference(engine, "late", record) < TOLERANCE / 10
    assert engine_difference(load(adapter=trained).engine(), None, record) < TOLERANCE / 10


@pytest.mark.parametrize("by", sorted(NEEDS))
def test_either_backend_serves_what_the_other_trained(
    load: Load, adapter: Arrays, model_folder: Path, tmp_path: Path, by: str
) -> None:
    if any(find_spec(library) is None for library in NEEDS[by]):
        pytest.skip(f"{by} is not installed")
    folder = written(
        load(name=by, adapter=plain(adapter, tmp_path)), adapter, model_folder, tmp_path / "by"
    )
    record = record_in(folder)
    assert record.by == f"{by} on {load(name=by).device}, in float32"
    assert engine_difference(load().engine({"a": folder}), "a", record) < TOLERANCE / 10


def plain(adapter: Arrays, folder: Path) -> Path:
    """Write an adapter without a record."""
    for file, content in adapters.encode(adapter, oracle.SHAPE).items():
        (folder / file).write_bytes(content)
    return folder


@pytest.mark.parametrize(("trains", "serves"), [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_bfloat16_is_given_more_room_and_still_tells_adapters_apart(
    load: Load,
    adapter: Arrays,
    model_folder: Path,
    folders: Mapping[str, Path | None],
    tmp_path: Path,
    trains: DType,
    serves: DType,
) -> None:
    trainer = load(adapter=plain(adapter, tmp_path), dtype=trains)
    folder = written(trainer, adapter, model_folder, tmp_path / "rough", trains)
    record = record_in(folder)
    assert tolerance(record, serves) == ROUGH_TOLERANCE
    engine = load(dtype=serves).engine({"right": folder, "wrong": folders["invoices"]})
    assert TOLERANCE < engine_difference(engine, "right", record) < ROUGH_TOLERANCE
    assert engine_difference(engine, "wrong", record) > 2 * ROUGH_TOLERANCE


def test_only_float32_on_both_sides_is_exact(trained: Path) -> None:
    record = record_in(trained)
    assert tolerance(record, "float32") == TOLERANCE
    assert tolerance(record, "bfloat16") == ROUGH_TOLERANCE
    assert tolerance(replace(record, by="torch on cuda, in bfloat16"), "float32") == ROUGH_TOLERANCE


def test_the_record_is_the_same_bytes_again(
    adapted: Load, adapter: Arrays, model_folder: Path, trained: Path, tmp_path: Path
) -> None:
    again = written(adapted(), adapter, model_folder, tmp_path / "again")
    assert (again / PROBE).read_bytes() == (trained / PROBE).read_bytes()


def test_rows_of_a_probe_may_run_beside_others(load: Load, trained: Path) -> None:
    record = record_in(trained)
    engine = load().engine({"a": trained})
    (live,) = engine.insert(MIXED[:1])
    answers = gather(engine.step())
    with pytest.raises(ValueError, match="no rows in progress"):
        engine_difference(engine, "a", record)
    numbers = engine.insert(probe_rows("a", record))
    drain(engine, answers)
    free = [[pair[0] for pair in answers[number].signals if pair] for number in numbers]
    assert largest(record, free) < TOLERANCE / 10
    same(answers[live], alone(load, MIXED[0]))
    free[1][3] -= 2
    assert largest(record, free) == pytest.approx(2, abs=TOLERANCE)
    with pytest.raises(ValueError, match="shape"):
        largest(record, [row[:-1] for row in free])
    assert math.isnan(largest(record, [[np.nan] * len(row) for row in free]))


def test_an_adapter_of_before_has_no_record_and_a_damaged_one_is_named(trained: Path) -> None:
    (trained / PROBE).write_bytes(b'{"by": "torch", "sequences": []}')
    with pytest.raises(ModelError, match="not a parity record") as raised:
        read_probe(trained)
    assert "train again" in raised.value.next_step
    (trained / PROBE).unlink()
    assert read_probe(trained) is None
