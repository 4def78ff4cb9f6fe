"""Check that the backends compute the same from one model folder, on a few fixed token sequences.

The tokens are drawn from a fixed seed, so neither tokenizer nor template plays a part. The logprobs
in the folder's `parity.json` are the truth: those of the demo model come with offapi, computed by
transformers; for other models the first usable backend writes them. Left out: adapters, and dtypes
other than fp32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from offapi import backend as backends
from offapi.backend import Backend, ModelSpec
from offapi.episodes import Episode, Floats, Segment
from offapi.errors import BackendError, ModelError
from offapi.models import lock
from offapi.models.safe_folder import check_config
from offapi.models.settings_files import read_json
from offapi.models.store import Model
from offapi.models.weight_files import check_weights
from offapi.randomness import uniforms

TOLERANCE = 1e-3  # nats
SEED = 20261
LENGTHS = (5, 24, 61, 130)  # tokens; a wrong rope shows more in longer sequences
# Who records first: transformers' implementation is the models' own.
ORDER = ("torch", "mlx")


@dataclass(frozen=True)
class ParityRecord:
    """Logprobs (nats) of `sequences`, computed by `by`.

    Row i has one fewer than sequence i, whose first token has no context.
    """

    by: str
    sequences: tuple[tuple[int, ...], ...]
    logprobs: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class ParityOutcome:
    """What `establish_parity` found.

    Who recorded ("" where no backend could), the differences in nats, and why backends were
    skipped.
    """

    recorded_by: str
    differences: Mapping[str, float] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)


def parity_sequences(
    vocabulary: int, lengths: Sequence[int] = LENGTHS
) -> tuple[tuple[int, ...], ...]:
    """Return the fixed sequences for a model with a vocabulary of that size."""
    draws = [uniforms(SEED, 0, i, 0, length) for i, length in enumerate(lengths)]
    return tuple(tuple(map(int, draw.astype(np.float64) * vocabulary)) for draw in draws)


def record_parity(backend: Backend, tokens: Sequence[tuple[int, ...]], by: str) -> ParityRecord:
    """Return what `backend` computes for `tokens`."""
    rows = backend.score(_episodes(tokens))
    return ParityRecord(by, tuple(tokens), tuple(map(_round_logprobs, rows)))


def _round_logprobs(logprobs_T: Floats) -> tuple[float, ...]:
    return tuple(round(float(logprob), 6) for logprob in logprobs_T)


def largest_difference(backend: Backend, record: ParityRecord) -> float:
    """Return the largest difference (nats) between `backend` and the record.

    It is NaN if either contains NaN.
    """
    rows = backend.score(_episodes(record.sequences))
    pairs = zip(rows, record.logprobs, strict=True)
    return float(
        np.max([np.max(np.abs(np.asarray(a, np.float64) - np.asarray(b))) for a, b in pairs])
    )


def measure_parity(model: Model, name: str) -> float:
    """Load `model` with the backend `name` and compare it with its record.

    Raise ModelError when they differ by more than TOLERANCE or there is no record, BackendError
    when the backend cannot be used here.
    """
    known = read_record(model.path)
    if known is None:
        raise ModelError(
            f"the model has no {lock.PARITY}.",
            where=str(model.path),
            next_step="Add the model again.",
        )
    return _compare(model, name, known)


def establish_parity(model: Model) -> ParityOutcome:
    """Compare every usable backend with the stored model's record.

    The first backend writes the record if there is none. Raise ModelError when one differs by more
    than TOLERANCE.
    """
    known, config = read_record(model.path), check_config(model.path)
    differences: dict[str, float] = {}
    skipped: dict[str, str] = {}
    for name in sorted(
        backends.available(), key=lambda name: (name not in ORDER, name != ORDER[0], name)
    ):
        if reason := too_large_for(model.path, config, name):
            skipped[name] = reason
            continue
        try:
            if known is None:
                known = _record(model, name, config)
                lock.put(model.path, lock.PARITY, encode_record(known))
            else:
                differences[name] = _compare(model, name, known)
        except BackendError as error:
            skipped[name] = error.what
    return ParityOutcome(known.by if known else "", differences, skipped)


def encode_record(record: ParityRecord) -> bytes:
    """Return the content of `parity.json`."""
    pairs = zip(record.sequences, record.logprobs, strict=True)
    rows = [{"tokens": tokens, "logprobs": logprobs} for tokens, logprobs in pairs]
    return orjson.dumps({"version": 1, "by": record.by, "sequences": rows})


def read_record(folder: Path, name: str = lock.PARITY, again: str = "") -> ParityRecord | None:
    """Return the record in `folder`, None if it has none.

    Raise ModelError when it is damaged; `again` says what the user does then.
    """
    path = folder / name
    if not path.is_file():
        return None
    content = read_json(path)
    try:
        rows = [
            (tuple(map(int, row["tokens"])), tuple(map(float, row["logprobs"])))
            for row in content["sequences"]
        ]
        if not rows or any(len(logprobs) != len(tokens) - 1 for tokens, logprobs in rows):
            raise ValueError("every token but the first needs a logprob")
        sequences = tuple(tokens for tokens, _ in rows)
        return ParityRecord(str(content["by"]), sequences, tuple(logprobs for _, logprobs in rows))
    except (KeyError, TypeError, ValueError) as error:
        again = again or f"Run `offapi models remove {path.parent.name}`, and add the model again."
        raise ModelError(
            f"the file is not a parity record ({error}).", where=str(path), next_step=again
        ) from None


def _record(model: Model, name: str, config: Mapping[str, Any]) -> ParityRecord:
    backend = backends.load(name, ModelSpec(model.path))
    try:
        return record_parity(
            backend, parity_sequences(int(config["vocab_size"])), f"{name} on {backend.device}"
        )
    finally:
        backend.close()


def _compare(model: Model, name: str, known: ParityRecord) -> float:
    backend = backends.load(name, ModelSpec(model.path))
    try:
        difference = largest_difference(backend, known)
    finally:
        backend.close()
    if not difference <= TOLERANCE:
        raise ModelError(
            f"{name} and {known.by} compute different logprobs: they differ by {difference:.3g}"
            f" nats, at most {TOLERANCE:g} is allowed.",
            where=str(model.path),
            next_step=(
                "Do not train the model: that backend reads a setting in config.json differently."
                " `offapi models verify` shows whether a file has changed."
            ),
        )
    return difference


def _episodes(tokens: Sequence[tuple[int, ...]]) -> list[Episode]:
    return [
        Episode(f"parity-{i}", (Segment(row[:1], sampled=False), Segment(row[1:], sampled=True)))
        for i, row in enumerate(tokens)
    ]


def too_large_for(folder: Path, config: Mapping[str, Any], name: str) -> str:
    """Return why the backend `name` should not try to load `folder` in fp32, or ""."""
    import psutil

    if config.get("quantization"):
        return "" if name == "mlx" else "the weights are quantised for MLX"
    need = 4 * sum(int(np.prod(shape)) for _, shape in check_weights(folder).values())  # bytes
    free = int(psutil.virtual_memory().available)
    return f"needs {need / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free" if need > free else ""
