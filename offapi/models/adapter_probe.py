"""What an adapter computes on a few fixed token sequences, recorded by the backend that trained it.

Others served an adapter of another run, or none, without an error. Whoever loads an adapter, serves
or exports it compares with the record in its folder. It is computed by the engine that answers, as
rows that a matcher forces. Left out: texts and answers, which differ with every task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from offapi.backend import Backend, resolve_dtype
from offapi.completions import Sampling
from offapi.engine import Engine, RowRequest, Words
from offapi.model_spec import ModelSpec
from offapi.models.parity import (
    TOLERANCE,
    ParityRecord,
    encode_record,
    parity_sequences,
    read_record,
    record_parity,
)
from offapi.models.safe_folder import check_config

PROBE = "probe.json"
LENGTHS = (5, 24, 48)  # tokens; each one after the first is a decoding step
ROUGH_TOLERANCE = 0.5  # nats, where one of both computes in bfloat16
EXACT = "float32"
FEW_BITS = ", base in "  # of a record, where the base was quantised for the training


def probe_files(backend: Backend, spec: ModelSpec) -> Mapping[str, bytes]:
    """Return the file that records what `backend`, loaded from `spec`, computes with its adapter.

    Two runs that end with the same weights have the same bytes. Raise ModelError for a model folder
    without a usable config.json.
    """
    vocabulary = int(check_config(spec.path)["vocab_size"])
    dtype = resolve_dtype(spec.dtype, backend.name, spec.device)
    base = "" if spec.quantize is None else f"{FEW_BITS}{spec.quantize} bits"
    by = f"{backend.name} on {backend.device}{base}, in {dtype}"
    record = record_parity(backend, parity_sequences(vocabulary, LENGTHS), by)
    return {PROBE: encode_record(record)}


def read_probe(folder: Path) -> ParityRecord | None:
    """Return the record in an adapter's folder, None if it has none, as those of before.

    Raise ModelError when it is damaged.
    """
    again = "Take the adapter's folder from its run again, or train again."
    return read_record(folder, PROBE, again)


def holds_for(record: ParityRecord, backend: str, bits: int | None) -> bool:
    """Whether the record is of a base that `backend` loads so in `bits` (None: as it is stored).

    Backends pack alike in no number of bits, but compute alike what is stored.
    """
    if bits is None:
        return FEW_BITS not in record.by
    return record.by.startswith(f"{backend} on ") and f"{FEW_BITS}{bits} bits" in record.by


def tolerance(record: ParityRecord, dtype: str) -> float:
    """Return the difference (nats) allowed to an engine that computes in `dtype`.

    Backends agree in float32 alone: bfloat16 has 8 bits of precision.
    """
    return TOLERANCE if record.by.endswith(EXACT) and dtype == EXACT else ROUGH_TOLERANCE


@dataclass
class Forced:
    """A matcher that allows exactly the next of `tokens`."""

    tokens: Sequence[int]
    said: int = 0

    def fill(self, words: Words) -> bool:
        """See `offapi.engine.Matcher.fill`."""
        token = self.tokens[self.said]
        words[:] = 0
        words.view(np.uint32)[token // 32] = np.uint32(1 << token % 32)
        return True

    def accept(self, token: int) -> None:
        """See `offapi.engine.Matcher.accept`."""
        self.said += 1

    @property
    def rank(self) -> int:
        """See `offapi.engine.Matcher.rank`."""
        return 0


def probe_rows(adapter: str | None, record: ParityRecord) -> list[RowRequest]:
    """Return a row for each sequence of the record, to be forced through an engine.

    Their tokens' `signals` are what `largest` compares.
    """
    return [_forced(tokens, adapter) for tokens in record.sequences]


def _forced(tokens: tuple[int, ...], adapter: str | None) -> RowRequest:
    return RowRequest(
        tokens[:1],
        Sampling(max_tokens=len(tokens) - 1, stop_ids=(), signals=True),
        adapter=adapter,
        start=lambda _: Forced(tokens[1:]),
    )


def largest(record: ParityRecord, logprobs: Sequence[Sequence[float]]) -> float:
    """Return the largest difference (nats) between the record and the rows' free logprobs.

    It is NaN if either contains NaN. Raise ValueError for a row that is not complete.
    """
    pairs = zip(record.logprobs, logprobs, strict=True)
    return float(np.max([np.max(np.abs(np.subtract(one, other))) for one, other in pairs]))


def engine_difference(engine: Engine, adapter: str | None, record: ParityRecord) -> float:
    """Return how far (nats) the engine's rows of `adapter` are from the record, at the most.

    Raise ValueError for an adapter that the engine does not have, or while other rows are in it:
    their tokens would be lost. There, insert `probe_rows`.
    """
    if not engine.idle:
        raise ValueError("the engine must have no rows in progress")
    numbers = engine.insert(probe_rows(adapter, record))
    free: dict[int, list[float]] = {number: [] for number in numbers}
    while not engine.idle:
        for token in engine.step():
            assert token.signals is not None
            free[token.row].append(token.signals[0])
    return largest(record, [free[number] for number in numbers])
