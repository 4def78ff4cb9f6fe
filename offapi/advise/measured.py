"""What `offapi compare`, `curve` and `cost` found on one's
own task, in place of rules of thumb and skipped answers.

Reads their --json objects. Left out: what they do not tell about the advice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from offapi.advise.questions import Value
from offapi.advise.thresholds import Threshold
from offapi.errors import DataError
from offapi.stats import sample_size
from offapi.text.display import plural

WRITERS = "Name what `offapi compare`, `offapi curve` or `offapi cost` printed with --json."
RECIPES = {"sft": "sft", "distill": "distill", "filtered_sft": "graded"}
BASE, UNDECIDED, NOT_WORTH = (
    "base",
    "cannot tell",
    "not worth its hours",
)  # how verdicts of a comparison begin
ALMOST_NEVER = 1e12  # requests a month, where a volume never breaks even


@dataclass(frozen=True)
class Measured:
    """Thresholds that were measured, answers that stand
    where a question was skipped, and what else it said.
    """

    thresholds: tuple[Threshold, ...] = ()
    answers: Mapping[str, Value] | None = None
    said: tuple[str, ...] = ()


def read_measured(path: Path) -> Measured:
    """One file. DataError where it is none of the three."""
    try:
        told: Any = orjson.loads(path.read_bytes())
    except OSError as error:
        raise DataError.at(
            f"cannot be read: {error.strerror}.", path=path, next_step="Check the path."
        ) from None
    except orjson.JSONDecodeError as error:
        raise DataError.at(f"not JSON: {error}.", path=path, next_step=WRITERS) from None
    readers = (("cases", _cost), ("law", _curve), ("take", _comparison))
    reader = next((found for key, found in readers if isinstance(told, dict) and key in told), None)
    try:
        if reader is not None:
            return reader(told, str(path))
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError.at(
            f"not as it was written: {error!r}.", path=path, next_step=WRITERS
        ) from None
    raise DataError.at("nothing in it is known here.", path=path, next_step=WRITERS)


def _cost(told: dict[str, Any], path: str) -> Measured:
    best = told["sensitivity"]["case"]
    meets = told["cases"][best]["break_even_start"]  # with the growth that was reckoned with
    volume = meets["likely"] if meets["likely"] is not None else ALMOST_NEVER
    span = ", ".join(
        f"{meets[end]:,.0f}" if meets[end] is not None else "never" for end in ("low", "high")
    )
    source = f"measured: {path}, break-even on a machine {best} [{span}]"
    both = (
        Threshold("volume", volume, "requests a month", source),
        Threshold("burst_volume", 2 * volume, "requests a month", f"twice `volume` of {path}"),
    )
    said = (f"{path}: {told['verdict']}.",)
    return Measured(both, {"volume": told["inputs"]["requests"]["likely"]}, said)


def _curve(told: dict[str, Any], path: str) -> Measured:
    answer, gain = told["answer"], told["doubling"]
    if answer is None and gain is None:
        return Measured(said=(f"{path}: {told['misfit']}",))
    if answer is None:
        return Measured(
            said=(f"{path}: twice the rows would bring {100 * gain['mean']:+.1f} points.",)
        )
    if answer["rows"] is None:
        return Measured(said=(f"{path}: {answer['text']}",))
    source = f"measured: {path}, for {100 * answer['want']:.0f}% by {told['road']}"
    return Measured(
        (Threshold("answers", answer["rows"], "answers", source),),
        said=(f"{path}: {answer['text']}",),
    )


def _comparison(told: dict[str, Any], path: str) -> Measured:
    """A road where it is shown to be better; `base`
    where each road is shown not to be worth its hours.
    """
    taken, rows = told["take"], told["rows"]
    verdicts = {name: rows[name].get("verdict") or "" for name in rows if name != BASE}
    recipes = {
        name: said for name, said in verdicts.items() if said.startswith((UNDECIDED, NOT_WORTH))
    }
    answers: dict[str, Value] = {}
    if taken == "grpo":
        answers["measured"] = (
            "grpo_after" if (rows[taken].get("arm") or {}).get("start") else "grpo"
        )
    elif taken in RECIPES:
        answers["measured"] = RECIPES[taken]
    elif recipes and all(said.startswith(NOT_WORTH) for said in recipes.values()):
        answers["measured"] = BASE
    for key, names in (("teacher_quality", ("recorded", "teacher")), ("prompted", (BASE,))):
        found = next(
            (rows[name]["report"] for name in names if "report" in rows.get(name, {})), None
        )
        if found is not None:
            answers[key] = found["all_fields"]["mean"]
    if taken != BASE:
        return Measured(
            answers=answers, said=(f"{path}: take {taken}; {verdicts[taken]}".rstrip("; ") + ".",)
        )
    said = [
        _undecided(told, name) if why.startswith(UNDECIDED) else f"{name}: {why}"
        for name, why in recipes.items()
    ]
    return Measured(
        answers=answers, said=tuple(f"{path}: {one}." for one in said or ["no road was compared"])
    )


def _undecided(told: dict[str, Any], name: str) -> str:
    """That the comparison could not tell, and how many documents could."""
    row, n, margin = told["rows"][name], told["test"]["documents"], told["margin"]
    needed = sample_size.documents(row["to_rival"]["only_a"] + row["to_rival"]["only_b"], n, margin)
    documents = plural(n, "test document")
    return (
        f"cannot tell {name} from {row['rival']} in {documents}; about {needed:,} would show"
        f" {100 * margin:g} points"
    )
