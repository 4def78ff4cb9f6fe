"""Which implementation each backend computes a model with: the first that agrees with a reference.

`models add` records what a library computes by its own plain forward, tries packed rows and then
the library's forward on every usable backend, and keeps what it found in `implementations.json`.
Windows too long to be tried are shortened in a copy of the folder. Left out: adapters, and dtypes
other than fp32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from offapi import backend as backends
from offapi.backend import Backend, Implementation
from offapi.errors import BackendError, ModelError
from offapi.implementations import FILE, MeasuredBackend, encode_measured
from offapi.model_spec import ModelSpec
from offapi.models import lock, parity
from offapi.models.parity import (
    GreedyRow,
    ParityRecord,
    largest_difference,
    parity_sequences,
    round_logprobs,
)
from offapi.models.reference import open_reference, shortened, with_config
from offapi.models.safe_folder import check_config
from offapi.models.store import Model

CONTINUED = 12  # tokens said greedily after each prompt
ORDER: tuple[Implementation, ...] = ("packed", "library")


@dataclass(frozen=True)
class ParityOutcome:
    """What `establish_parity` found.

    Who recorded ("" where nobody could), what each backend showed, and why backends were skipped.
    """

    recorded_by: str
    measured: Mapping[str, MeasuredBackend] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def differences(self) -> dict[str, float]:
        """The differences from the record (nats) of the backends that compute the model."""
        return {
            name: one.difference
            for name, one in self.measured.items()
            if one.implementation and one.difference is not None
        }


def record_reference(folder: Path, config: Mapping[str, Any]) -> ParityRecord:
    """Return what a library computes for the model in `folder` by its own plain forward.

    Raise BackendError where no library is installed; ModelError for a folder that it cannot read,
    and for a model whose logprobs depend on later tokens.
    """
    sequences = parity_sequences(int(config["vocab_size"]))
    model = open_reference(folder, config)
    rows = [model.logprobs(tokens) for tokens in sequences]
    first = len(sequences[1])
    ahead = float(np.abs(model.logprobs(sequences[-1][:first]) - rows[-1][: first - 1]).max())
    if not ahead <= parity.TOLERANCE:
        raise ModelError(
            f"a token's logprob depends on later tokens ({ahead:.2g} nats), so that nothing can be"
            " generated from it.",
            where=str(folder),
            next_step="Use a causal language model.",
        )
    said = [(prompt, *model.greedy(prompt, CONTINUED)) for prompt in greedy_prompts(sequences)]
    greedy = tuple(GreedyRow(prompt, tuple(tokens), tuple(lead)) for prompt, tokens, lead in said)
    return ParityRecord(model.by, sequences, tuple(map(round_logprobs, rows)), greedy)


def greedy_prompts(sequences: tuple[tuple[int, ...], ...]) -> list[tuple[int, ...]]:
    """Return three prompts with a common beginning, one of them the whole of it."""
    *_, middle, last = sequences
    return [middle[:20], middle[:20] + last[:30], middle[:40]]


def measure_parity(model: Model, name: str) -> float:
    """Load `model` with the backend `name` and compare it with its record.

    Raise ModelError when they differ by more than TOLERANCE or there is no record, BackendError
    when the backend cannot be used here.
    """
    known = parity.read_record(model.path)
    if known is None:
        raise ModelError(
            f"the model has no {lock.PARITY}.",
            where=str(model.path),
            next_step="Add the model again.",
        )
    with _loaded(name, ModelSpec(model.path)) as backend:
        difference = largest_difference(backend, known)
    if not difference <= parity.TOLERANCE:
        raise _disagree(model, known, f"{name}: {difference:.3g} nats")
    return difference


def establish_parity(model: Model) -> ParityOutcome:
    """Record the reference of a stored model if there is none, and measure every usable backend.

    Raise ModelError when no backend here computes what the reference does.
    """
    config = check_config(model.path)
    skipped = _skipped(model, config)
    names = [name for name in sorted(backends.available(), reverse=True) if name not in skipped]
    known = parity.read_record(model.path)
    if known is None and names:
        try:
            known = record_reference(model.path, config)
        except BackendError as error:
            return ParityOutcome("", {}, skipped | dict.fromkeys(names, error.what))
        lock.put(model.path, lock.PARITY, parity.encode_record(known))
    if known is None or not names:
        return ParityOutcome(known.by if known else "", {}, skipped)
    measured, unusable = _measure_all(model.path, config, known, names)
    skipped |= unusable
    if not measured:
        return ParityOutcome(known.by, {}, skipped)
    if not any(one.implementation for one in measured.values()):
        raise _disagree(model, known, "; ".join(f"{n}: {one.why}" for n, one in measured.items()))
    lock.put(model.path, FILE, encode_measured(known.by, measured))
    return ParityOutcome(known.by, measured, skipped)


def _skipped(model: Model, config: Mapping[str, Any]) -> dict[str, str]:
    """Return why backends cannot be measured here; all, where the reference itself cannot."""
    reasons = {}
    for name in backends.available():
        try:
            backends.require_installed(name)
            reasons[name] = parity.too_large_for(model.path, config, name)
        except BackendError as error:
            reasons[name] = error.what
    return {name: reason for name, reason in reasons.items() if reason}


def _measure_all(
    folder: Path, config: Mapping[str, Any], known: ParityRecord, names: list[str]
) -> tuple[dict[str, MeasuredBackend], dict[str, str]]:
    short = shortened(config)
    if short is None:
        return _measure_each(names, [(folder, known)])
    with with_config(folder, short) as copy:
        return _measure_each(names, [(folder, known), (copy, _record_short(copy, short))])


def _measure_each(
    names: list[str], cases: list[tuple[Path, ParityRecord]]
) -> tuple[dict[str, MeasuredBackend], dict[str, str]]:
    """Return what each backend showed, and why the others cannot be used here."""
    measured, skipped = {}, {}
    for name in names:
        try:
            measured[name] = _measure(name, cases)
        except BackendError as error:
            skipped[name] = error.what
    return measured, skipped


def _record_short(copy: Path, config: Mapping[str, Any]) -> ParityRecord:
    """Return the reference of a copy with short windows; angles may depend on the length there."""
    model = open_reference(copy, config)
    sequences = parity_sequences(int(config["vocab_size"]))[1:]
    rows = map(model.logprobs, sequences)
    return ParityRecord(model.by, sequences, tuple(map(round_logprobs, rows)))


def _measure(name: str, cases: list[tuple[Path, ParityRecord]]) -> MeasuredBackend:
    """Return the first implementation of backend `name` that agrees on every folder.

    Raise BackendError where the backend cannot be used here at all.
    """
    wrong: list[str] = []
    for implementation in ORDER:
        try:
            difference = _largest(name, implementation, cases)
        except MemoryError:
            raise
        except BackendError as error:
            if not wrong:
                raise  # a device, not this implementation
            wrong.append(f"{implementation}: {error.what}")
        except Exception as error:  # whatever a library raises for what it was not made for
            wrong.append(f"{implementation}: {_first_line(error)}")
        else:
            if difference <= parity.TOLERANCE:
                return MeasuredBackend(implementation, difference, "; ".join(wrong))
            wrong.append(f"{implementation}: {difference:.2g} nats from the reference")
    return MeasuredBackend("", None, "; ".join(wrong))


def _largest(
    name: str, implementation: Implementation, cases: list[tuple[Path, ParityRecord]]
) -> float:
    """Return the largest difference over the folders.

    A backend may refuse rows beyond a limit: it then computes nothing wrong there.
    """
    (whole, known), *short = cases
    with _loaded(name, ModelSpec(whole, implementation=implementation)) as backend:
        differences = [_difference(backend, known, implementation)]
    for folder, record in short:
        spec = ModelSpec(folder, implementation=implementation)
        with suppress(BackendError), _loaded(name, spec) as backend:
            differences.append(_difference(backend, record, implementation))
    return max(differences)


def _first_line(error: Exception) -> str:
    what = error.what if isinstance(error, ModelError) else str(error)
    return what.splitlines()[0][:200].rstrip(".") if what else type(error).__name__


def _difference(backend: Backend, known: ParityRecord, implementation: str) -> float:
    if backend.implementation != implementation:
        raise ModelError(f"{backend.name} has no such implementation of it")
    difference = largest_difference(backend, known)
    if difference <= parity.TOLERANCE and (where := parity.other_greedy_tokens(backend, known)):
        raise ModelError(f"its greedy tokens differ from the reference's at {where}")
    return difference if difference == difference else float("inf")


@contextmanager
def _loaded(name: str, spec: ModelSpec) -> Iterator[Backend]:
    backend = backends.load(name, spec)
    try:
        yield backend
    finally:
        backend.close()


def _disagree(model: Model, known: ParityRecord, how: str) -> ModelError:
    return ModelError(
        f"backends and {known.by} compute different logprobs, of which at most"
        f" {parity.TOLERANCE:g} nats are allowed: {how}.",
        where=str(model.path),
        next_step=(
            "Do not train the model: a setting in config.json is read differently, or not computed"
            " here. `offapi models verify` shows whether a file has changed."
        ),
    )
