"""In how many bits the base of an adapter is loaded: by default those that it was trained on.

An adapter trained on a base in few bits has learned to make up for what those lose. Left out:
packing (the backends' `quantised.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from offapi import adapter as adapters
from offapi.models.adapter_probe import read_probe
from offapi.training.run import Run

Bits = int | Literal["trained"] | None  # None: the base as it is stored


@dataclass(frozen=True)
class TrainedBits:
    """The bits of the base in an adapter's training, and the backend that packed it.

    None: as it is stored. The backend is "" where nothing says.
    """

    bits: int | None = None
    backend: str = ""

    @classmethod
    def of(cls, adapter: Path | None, run: Run | None) -> Self:
        """Return what the adapter's folder says, or else its run."""
        if adapter is None:
            return cls()
        manifest = run.manifest if run else {}
        bits = adapters.read_base(adapter).bits or manifest.get("config", {}).get("quantize")
        if not isinstance(bits, int):
            return cls()
        record = read_probe(adapter)
        return cls(bits, str(manifest.get("backend") or (record.by.split()[0] if record else "")))

    def choose(self, asked: Bits) -> int | None:
        """Return the bits to load the base in: what is asked for, or those of the training."""
        return self.bits if asked == "trained" else asked

    def lines(self, quantize: int | None, backend: str) -> list[str]:
        """Return what to say where `backend` loads the base in `quantize` bits."""
        if self.bits is None or quantize != self.bits:
            return []  # `doubt_base` says it
        said = f"The base is loaded in {self.bits} bits, as it was for the training."
        if self.backend and self.backend != backend:
            said += (
                f" {self.backend} packed it there, and {backend} packs otherwise: answers may"
                " differ from those that the run measured."
            )
        return [said]
