"""What it costs that an adapter trained on a base in few bits is used on the base as it is stored.

Most forms have the base's own weights, so an adapter that has learned to make up for their
quantisation meets other ones. The run computes the same sequences on both. Left out: accuracy,
where no documents are named.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from offapi import backend as backends
from offapi.export.accuracy_lost import AccuracyLost, Documents, compare_texts
from offapi.export.check import SourceAnswers, score_sequences
from offapi.export.source import ExportSource
from offapi.progress import Progress


@dataclass(frozen=True)
class OtherBits:
    """The run on the base as it is stored, compared with the run as it was trained.

    Differences of logprobs are in nats.
    """

    bits: int
    backend: str  # that computed in those bits
    largest: float
    mean: float
    lost: AccuracyLost | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the object that export.json and --json show."""
        return {
            "bits": self.bits,
            "computed_on": self.backend,
            "largest_difference_nats": self.largest,
            "mean_difference_nats": self.mean,
            "accuracy": self.lost.as_dict() if self.lost else None,
        }

    def lines(self) -> list[str]:
        """Return what was found, as sentences."""
        said = (
            f"The adapter was trained on the base in {self.bits} bits. On the base as it is stored,"
            f" which the export is of, the largest difference of a logprob is {self.largest:.2g}"
            f" nats, the mean {self.mean:.2g}."
        )
        return [said] + (self.lost.lines() if self.lost else [])


def measure_other_bits(
    source: ExportSource,
    answers: SourceAnswers,
    documents: Documents | None,
    known: tuple[str, ...],
    progress: Progress,
) -> OtherBits | None:
    """Return what it costs; None where the export has the training's bits.

    `answers` and `known` are those on the base as it is stored. Raise what loading raises.
    """
    bits, name = source.trained.bits, source.trained.backend or backends.default_backend()
    if bits is None or source.answering.quantize is not None:
        return None
    progress.say(f"Loading the base in {bits} bits, as it was for the training ...")
    backend = backends.load(name, replace(source.spec, quantize=bits))
    try:
        rows = score_sequences(backend, answers.sequences)
        texts = documents.ask(backend, source, progress) if documents else ()
    finally:
        backend.close()
    pairs = zip(rows, answers.logprobs, strict=True)
    differences = np.concatenate([np.abs(np.subtract(one, other)) for one, other in pairs])
    lost = compare_texts(documents, texts, known) if documents else None
    return OtherBits(bits, name, float(differences.max()), float(differences.mean()), lost)
