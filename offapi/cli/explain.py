"""`offapi explain`: what a task file and a recipe can say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import orjson

from offapi.cli.output import Output, options
from offapi.errors import ConfigError, nearest

if TYPE_CHECKING:
    from offapi.explain.checks import ExplainedCheck

RECIPE_NAMES = ("sft", "distill", "filtered_sft", "grpo")
TASK_NOTES = (
    "A check is written as a name, the check and its weight: checks={'json': (is_json, 1.0)}.",
    "own(...) makes a check of your function; offapi.judge(...) asks a model.",
    "audit=('json',) names checks that are scored and never rewarded.",
    "reward=function replaces the checks in GRPO: it takes (documents, answers) and returns a number"
    " for each answer, or None to leave one out.",
)


@click.group("explain", short_help="Explain kinds of fields, checks, or the keys of a recipe.")
def command() -> None:
    """Explain what a task file or a recipe can say: kinds of fields, checks, keys.

    \b
    Examples:
      offapi explain match
      offapi explain checks
      offapi explain recipe grpo
    """


@command.command(short_help="List the kinds of fields that a task's match can name.")
@options
def match(output: Output) -> None:
    """List the kinds of fields: how an answer's field is compared with gold.

    A task's `match` gives each field a kind, or offapi.Kind(...) with a tolerance. A dot leads into
    an object.

    \b
    Example:
      offapi explain match
    """
    from offapi.checks.kinds import EXPLAINED

    for name, kind in EXPLAINED.items():
        output.say(f"{name}: {kind.equal}.")
        for word, pair in (("equal", kind.same), ("not equal", kind.different)):
            answer, gold = (orjson.dumps(value).decode() for value in pair)
            output.say(f"    {word}: answer {answer}, gold {gold}")
    output.say('Written as match={"total": "number"}, or offapi.Kind("number", relative=0.01).')
    output.result({name: {"right_if": kind.equal} for name, kind in EXPLAINED.items()})


@command.command(short_help="List all checks, or explain one.")
@click.argument("name", required=False)
@options
def checks(output: Output, *, name: str | None) -> None:
    """List all checks with what their score means; with NAME, print all that one check does.

    \b
    Examples:
      offapi explain checks
      offapi explain checks in_range
    """
    from offapi.explain.checks import explained_checks

    found = explained_checks()
    if name is not None:
        _explain_check(output, name, found)
        return
    for check in found:
        output.say(f"{check.call}: {check.meaning}")
    for note in TASK_NOTES:
        output.say(note)
    output.result({check.name: {"call": check.call, "score": check.meaning} for check in found})


def _explain_check(output: Output, name: str, found: list[ExplainedCheck]) -> None:
    check = next((each for each in found if each.name.removeprefix("offapi.") == name), None)
    if check is None:
        names = [each.name.removeprefix("offapi.") for each in found]
        raise ConfigError(f"there is no check {name!r}.", next_step=nearest(name, names))
    output.say(check.call)
    output.say(check.doc)
    output.result({"name": check.name, "call": check.call, "doc": check.doc})


@command.command(short_help="List the keys of a recipe with type, default and meaning.")
@click.argument("name", type=click.Choice(RECIPE_NAMES))
@options
def recipe(output: Output, *, name: str) -> None:
    """List the keys of the recipe NAME: type, default and meaning of each.

    A dot stands for a table: lora.rank is the key rank in the table [lora]. Any key can be set on the
    command line too: --set lora.rank=8.

    \b
    Example:
      offapi explain recipe grpo
    """
    from offapi.explain.recipe_keys import recipe_keys

    keys = recipe_keys(name)
    for key in keys:
        default = key.default if key.default == "must be given" else f"default {key.default}"
        output.say(f"{key.name} ({key.type}; {default}): {key.meaning}")
    output.result(
        {
            key.name: {"type": key.type, "default": key.default, "meaning": key.meaning}
            for key in keys
        }
    )
