"""Results of `offapi compare`, `curve` and `cost`, in place of rules of thumb and skipped answers.

Reads their --json objects. Left out: everything in them that does not affect the advice.
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

WRITERS = "Name the JSON that `offapi compare`, `offapi curve` or `offapi cost` wrote with --json."
RECIPES = {"sft": "sft", "distill": "distill", "filtered_sft": "graded"}
BASE = "base"
UNDECIDED, NOT_WORTH = "cannot tell", "not worth its hours"  # how verdicts of a comparison begin
ALMOST_NEVER = 1e12  # requests a month, for a break-even that is never reached


@dataclass(frozen=True)
class Measured:
    """Measured thresholds, answers for skipped questions, and sentences to show."""

    thresholds: tuple[Threshold, ...] = ()
    answers: Mapping[str, Value] | None = None
    said: tuple[str, ...] = ()


def read_measured(path: Path) -> Measured:
    """Read one file. Raise DataError if it is not one of the three."""
    try:
        result: Any = orjson.loads(path.read_bytes())
    except OSError as error:
        raise DataError.at(
            f"cannot be read: {error.strerror}.", path=path, next_step="Check the path."
        ) from None
    except orjson.JSONDecodeError as error:
        raise DataError.at(
            f"the file must be JSON: {error}.", path=path, next_step=WRITERS
        ) from None
    readers = (("cases", _cost), ("law", _curve), ("take", _comparison))
    known = {key: reader for key, reader in readers if isinstance(result, dict) and key in result}
    reader = next(iter(known.values()), None)
    try:
        if reader is not None:
            return reader(result, str(path))
    except (KeyError, TypeError, AttributeError) as error:
        what = f"the file is not as it was written: {error!r}."
        raise DataError.at(what, path=path, next_step=WRITERS) from None
    what = "the file does not hold a comparison, a curve or a cost estimate."
    raise DataError.at(what, path=path, next_step=WRITERS)


def _cost(result: dict[str, Any], path: str) -> Measured:
    best = result["sensitivity"]["case"]
    start = result["cases"][best]["break_even_start"]  # takes the assumed growth into account
    volume = start["likely"] if start["likely"] is not None else ALMOST_NEVER
    span = ", ".join(
        f"{start[end]:,.0f}" if start[end] is not None else "never" for end in ("low", "high")
    )
    source = f"measured: {path}, break-even on a machine {best} [{span}]"
    thresholds = (
        Threshold("volume", volume, "requests a month", source),
        Threshold("burst_volume", 2 * volume, "requests a month", f"twice `volume` of {path}"),
    )
    said = (f"{path}: {result['verdict']}.",)
    return Measured(thresholds, {"volume": result["inputs"]["requests"]["likely"]}, said)


def _curve(result: dict[str, Any], path: str) -> Measured:
    answer, gain = result["answer"], result["doubling"]
    if answer is None and gain is None:
        return Measured(said=(f"{path}: {result['misfit']}",))
    if answer is None:
        text = f"twice the rows would change accuracy by {100 * gain['mean']:+.1f} points"
        return Measured(said=(f"{path}: {text}.",))
    if answer["rows"] is None:
        return Measured(said=(f"{path}: {answer['text']}",))
    source = f"measured: {path}, for {100 * answer['want']:.0f}% by {result['road']}"
    return Measured(
        (Threshold("answers", answer["rows"], "answers", source),),
        said=(f"{path}: {answer['text']}",),
    )


def _comparison(result: dict[str, Any], path: str) -> Measured:
    """Return the recipe shown to be better, or `base` if none is worth its hours."""
    taken, rows = result["take"], result["rows"]
    verdicts = {name: rows[name].get("verdict") or "" for name in rows if name != BASE}
    recipes = {
        name: verdict
        for name, verdict in verdicts.items()
        if verdict.startswith((UNDECIDED, NOT_WORTH))
    }
    answers: dict[str, Value] = {}
    if taken == "grpo":
        answers["measured"] = (
            "grpo_after" if (rows[taken].get("arm") or {}).get("start") else "grpo"
        )
    elif taken in RECIPES:
        answers["measured"] = RECIPES[taken]
    elif recipes and all(verdict.startswith(NOT_WORTH) for verdict in recipes.values()):
        answers["measured"] = BASE
    for key, names in (("teacher_quality", ("recorded", "teacher")), ("prompted", (BASE,))):
        reports = [rows[name]["report"] for name in names if "report" in rows.get(name, {})]
        if reports:
            answers[key] = reports[0]["all_fields"]["mean"]
    if taken != BASE:
        verdict = f"{path}: take {taken}; {verdicts[taken]}".rstrip("; ")
        return Measured(answers=answers, said=(f"{verdict}.",))
    sentences = [
        _undecided(result, name) if why.startswith(UNDECIDED) else f"{name}: {why}"
        for name, why in recipes.items()
    ]
    sentences = sentences or ["no recipe was compared"]
    said = tuple(f"{path}: {sentence}." for sentence in sentences)
    return Measured(answers=answers, said=said)


def _undecided(result: dict[str, Any], name: str) -> str:
    """Say that the comparison is undecided, and how many documents would decide it."""
    row, n, margin = result["rows"][name], result["test"]["documents"], result["margin"]
    needed = sample_size.documents(row["to_rival"]["only_a"] + row["to_rival"]["only_b"], n, margin)
    documents = plural(n, "test document")
    return (
        f"cannot tell {name} apart from {row['rival']} with {documents}; about {needed:,} would"
        f" show a difference of {100 * margin:g} points"
    )
