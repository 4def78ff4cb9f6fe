"""Whether what is served computes what the training did: the adapter's own record is compared.

Servers have answered with the base, or with another adapter, and no error said so. Left out:
adapters without a record, those that an older version trained, and those of a base in other bits.
"""

from __future__ import annotations

from collections.abc import Sequence

from offapi.errors import ModelError
from offapi.models.adapter_probe import holds_for, largest, probe_rows, read_probe, tolerance
from offapi.models.parity import ParityRecord
from offapi.serve.engine_loop import EngineLoop
from offapi.serve.served_models import ServedModel


async def check_adapters(loop: EngineLoop, models: Sequence[ServedModel]) -> dict[str, float]:
    """Return by how much (nats) each adapter, or whole model, with a record differs from it.

    Raise ModelError for one that differs by more than rounding.
    """
    found = {}
    for model in models:
        folder = model.answering.recorded
        record = read_probe(folder)
        bits, backend = model.answering.quantize, model.predictor.backend_name
        if record is None or not holds_for(record, backend, bits):
            continue
        difference = await _difference(loop, model.adapter, record)
        allowed = tolerance(record, loop.dtype)
        if not difference <= allowed:  # NaN is not
            raise ModelError(
                f"{model.name!r} does not compute what it was trained to: a logprob differs by"
                f" {difference:.2g} nats, and rounding explains {allowed:g} at most.",
                where=str(folder),
                next_step="Take the run's folder from where it was trained again, or train again.",
            )
        found[model.name] = difference
    return found


async def _difference(loop: EngineLoop, adapter: str | None, record: ParityRecord) -> float:
    logprobs: list[list[float]] = [[] for _ in record.sequences]
    async with loop.rows(probe_rows(adapter, record)) as rows:
        async for token in rows:
            assert token.signals is not None
            logprobs[token.row].append(token.signals[0])
    return largest(record, logprobs)
