"""Cost inputs from the JSON of `offapi eval --json`: seconds and tokens per answer.

The seconds include the first call's compiling and allocating; for few answers they are an upper
bound. Left out: tokens of the prompt, which the API counts in its own way.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from offapi.cost.inputs import Layer, Quantity, Range
from offapi.errors import DataError
from offapi.text.display import plural
from offapi.text.type_names import plain_types


@dataclass(frozen=True)
class EvalFile:
    """The keys of the file that are used here."""

    n: Annotated[int, msgspec.Meta(ge=1)]  # documents
    seconds: Annotated[float, msgspec.Meta(gt=0)]  # for all answers
    completion_tokens: Annotated[int, msgspec.Meta(ge=0)]
    samples: Annotated[int, msgspec.Meta(ge=1)] = 1  # answers per document


def read(path: Path) -> Layer:
    """Return `seconds` and `own_tokens` per answer. Raise DataError if the file lacks them."""
    try:
        measured = msgspec.json.decode(path.read_bytes(), type=EvalFile)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        what = f"the file must be the JSON of `offapi eval --json`: {plain_types(str(error))}."
        step = "Write it with `offapi eval --task ... --data ... --json`, or name a run's folder."
        raise DataError.at(what, path=path, next_step=step) from None
    answers = measured.n * measured.samples
    where = f"{path.name}: measured on {plural(answers, 'answer')}"
    known = {
        "seconds": measured.seconds / answers,
        "own_tokens": measured.completion_tokens / answers,
    }
    return Layer({key: Quantity(Range(x, x, x), where) for key, x in known.items()}, {})
