"""What the object of `offapi eval --json` tells about costs: seconds and tokens of an answer.

Its seconds hold the first call's compiling and allocating: of few answers they are an upper bound.
Left out: tokens of the prompt, which the API counts in its own way.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from offapi.cost.inputs import Layer, Quantity, Range
from offapi.errors import DataError


@dataclass(frozen=True)
class Told:
    """Those of its keys that count here."""

    n: Annotated[int, msgspec.Meta(ge=1)]  # documents
    seconds: Annotated[float, msgspec.Meta(gt=0)]  # of all answers
    completion_tokens: Annotated[int, msgspec.Meta(ge=0)]
    samples: Annotated[int, msgspec.Meta(ge=1)] = 1  # answers a document


def read(path: Path) -> Layer:
    """`seconds` and `own_tokens` of an answer. DataError where the file holds no such object."""
    try:
        told = msgspec.json.decode(path.read_bytes(), type=Told)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        step = "Write it with `offapi eval --task ... --data ... --json`, or name a run's folder."
        raise DataError.at(
            f"no measured answers in it: {error}.", path=path, next_step=step
        ) from None
    answers = told.n * told.samples
    where = f"{path.name}: measured on {answers} answers"
    known = {"seconds": told.seconds / answers, "own_tokens": told.completion_tokens / answers}
    return Layer({key: Quantity(Range(x, x, x), where) for key, x in known.items()}, {})
