"""Which implementation each backend computes a stored model with, as `models add` measured it.

The record is `implementations.json` in the stored folder, in its lock. Left out: the measurement
(`offapi.models.parity`), and folders outside the store, where the backend looks for itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import orjson

from offapi.errors import ModelError

FILE = "implementations.json"
# packed: rows packed and prefixes shared, by offapi; library: the library's own forward and cache
Implementation = Literal["auto", "packed", "library"]
# rotary embeddings whose angles depend on the length of the text, so that packed rows are not apart
GROWING_ROPES = ("dynamic", "longrope")


@dataclass(frozen=True)
class MeasuredBackend:
    """What one backend showed: the implementation that agrees with the reference, or none.

    `difference` is the largest from the reference (nats) of the chosen one; `why` says what was
    wrong with those that were not taken.
    """

    implementation: str = ""
    difference: float | None = None
    why: str = ""


def encode_measured(reference: str, backends: Mapping[str, MeasuredBackend]) -> bytes:
    """Return the content of the file."""
    content = {
        "version": 1,
        "reference": reference,
        "backends": {name: asdict(one) for name, one in backends.items()},
    }
    return orjson.dumps(content, option=orjson.OPT_INDENT_2)


def read_measured(folder: Path) -> dict[str, MeasuredBackend]:
    """Return what was measured for each backend, {} where nothing was.

    Raise ModelError for a file that offapi did not write.
    """
    path = folder / FILE
    try:
        content = orjson.loads(path.read_bytes())
        return {name: MeasuredBackend(**one) for name, one in content["backends"].items()}
    except FileNotFoundError:
        return {}
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"the file is not a record of implementations ({error}).",
            where=str(path),
            next_step=f"Run `offapi models remove {folder.name}`, and add the model again.",
        ) from None


def implementations_sentence(folder: Path) -> str:
    """Return which implementation each measured backend takes: "torch packed, mlx library"."""
    return ", ".join(
        f"{name} {one.implementation or 'not'}" for name, one in read_measured(folder).items()
    )


def choose_implementation(folder: Path, name: str) -> Implementation:
    """Return what backend `name` takes for the model in `folder`: `auto` if it was not measured.

    Raise ModelError if none of its implementations computes the model.
    """
    measured = read_measured(folder).get(name)
    if measured is None:
        return "auto"
    if measured.implementation == "packed":
        return "packed"
    if measured.implementation == "library":
        return "library"
    raise ModelError(
        f"{name} does not compute this model: {measured.why}.",
        where=str(folder),
        next_step="Use another --backend. `offapi doctor` names those that compute it.",
    )
