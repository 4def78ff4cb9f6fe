"""The state between calls: a JSON file of the fresh rows so far, a few bytes for each."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from offapi.drift.outliers import OutlierRow
from offapi.drift.sequential_test import BLOCK, STEPS, Bets, Test
from offapi.errors import ConfigError, RunError
from offapi.files import atomic
from offapi.files.lock import hold
from offapi.grading.similarity.hash_set import Ids
from offapi.text.type_names import plain_types

FORMAT = 1


@dataclass(frozen=True)
class State:
    """All that a later call needs. W signals make S series: all falls, then some rises."""

    rows: int
    counts: NDArray[np.int64]  # (W, STEPS + 1)
    bets: Bets
    pending: NDArray[np.int64]  # (B, W): steps of the rows since the last whole block
    peak: NDArray[np.float64]  # (W,): logs of the highest e-values so far, 0 at first
    right: tuple[int, int] = (0, 0)  # rows right in all fields, and rows with gold
    failed: int = 0
    tops: Mapping[str, tuple[OutlierRow, ...]] = field(default_factory=dict)
    ids: Ids = field(default_factory=Ids)

    @classmethod
    def start(cls, test: Test, watched: int) -> State:
        """Return the state before any row."""
        nothing = np.zeros((watched, STEPS + 1), np.int64)
        return cls(
            0, nothing, Bets.start(test), np.zeros((0, watched), np.int64), np.zeros(watched)
        )


@contextmanager
def alone(path: Path | None) -> Iterator[None]:
    """Lock `path` from reading it to writing it; None locks nothing.

    Raise RunError if another process holds the lock.
    """
    if path is None:
        yield
        return
    with hold(path.with_name(f".{path.name}.lock"), "this state", f"--state {path}"):
        yield


def read(path: Path, key: Mapping[str, Any], fresh: State) -> State:
    """Return the state in `path`, or `fresh` if there is no file.

    Raise ConfigError if it was made with a different task, reference or margin, and RunError if it
    is damaged.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return fresh
    try:
        stored = orjson.loads(data)
        different = [name for name, value in key.items() if stored["key"][name] != value]
        if not different:
            return _state(stored, fresh)
    except (ValueError, KeyError, TypeError, AttributeError, msgspec.ValidationError) as error:
        what = f"the state file is damaged ({plain_types(str(error))})."
        step = "Name another file with --state to start again."
        raise RunError(what, where=f"--state {path}", next_step=step) from None
    what = f"the state file was made with a different {different[0]}."
    step = "Name another file with --state to start a new comparison."
    raise ConfigError(what, where=f"--state {path}", next_step=step)


def write(path: Path, key: Mapping[str, Any], state: State) -> None:
    """Replace `path` atomically."""
    bets = {
        name: _packed(getattr(state.bets, name)) for name in ("wealth", "rows", "sums", "squares")
    }
    counts = [_counted_steps(row) for row in state.counts]
    value = {
        "key": {**key},
        "rows": state.rows,
        "counts": counts,
        "bets": bets,
        "pending": state.pending.tolist(),
        "peak": state.peak.tolist(),
        "right": state.right,
        "failed": state.failed,
        "tops": msgspec.to_builtins(state.tops),
        "ids": _packed(state.ids.sorted()),
    }
    atomic.write_file(path, orjson.dumps(value))


def _state(found: Mapping[str, Any], fresh: State) -> State:
    """Return the state in an object; raise ValueError and others if it is not one."""
    counts = np.zeros_like(fresh.counts)
    for row, stored in zip(counts, found["counts"], strict=True):
        for step, times in stored.items():
            row[int(step)] = times
    names = ("wealth", "rows", "sums", "squares")
    bets = Bets(*(_unpacked(found["bets"][name], getattr(fresh.bets, name)) for name in names))
    pending = np.array(found["pending"], np.int64).reshape(-1, len(counts))
    peak = np.array(found["peak"], np.float64).reshape(len(counts))
    rows, failed, right = msgspec.convert(
        [found[name] for name in ("rows", "failed", "right")], Numbers
    )
    if (counts.sum(axis=1) != rows).any() or (counts < 0).any() or len(pending) != rows % BLOCK:
        raise ValueError("the rows do not add up")
    if ((pending < 0) | (pending > STEPS)).any() or np.isnan(peak).any():
        raise ValueError("a value is out of range")
    tops = msgspec.convert(found["tops"], dict[str, tuple[OutlierRow, ...]])
    ids = np.frombuffer(b64decode(found["ids"], validate=True), "<u8").astype(np.uint64)
    return State(rows, counts, bets, pending, peak, right, failed, tops, Ids(ids))


Numbers = tuple[int, int, tuple[int, int]]


def _counted_steps(counts: NDArray[np.int64]) -> dict[str, int]:
    """Return the counts by step, without those that are 0."""
    return {str(step): int(counts[step]) for step in np.flatnonzero(counts)}


def _packed(values: NDArray[Any]) -> str:
    return b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _unpacked(text: str, like: NDArray[np.float64]) -> NDArray[np.float64]:
    values = np.frombuffer(b64decode(text, validate=True), "<f8").reshape(like.shape)
    if np.isnan(values).any():
        raise ValueError("an array contains NaN")
    return values.copy()
