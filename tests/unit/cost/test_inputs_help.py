"""Every option of every command explains itself: its help is a phrase that needs no flag."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module

import click
import pytest

from offapi import cli
from offapi.advise.questions import QUESTIONS
from offapi.cost.inputs import INPUTS

DEFAULTS = re.compile(r"\s*\[(default|assumed): [^\]]*\]$")
ASKED = {question.asks for question in QUESTIONS}  # `offapi advise` asks its options as questions


def is_phrase(text: str) -> bool:
    """Whether `text` is a phrase of three words or more, from a capital to a full stop."""
    text = DEFAULTS.sub("", text)
    fragment = text.startswith(("Of ", "That "))
    return len(text.split()) >= 3 and text[0].isupper() and text.endswith(".") and not fragment


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every command and subcommand with its name."""
    for name in cli.COMMANDS:
        command: click.Command = import_module(f"offapi.cli.{name}").command
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {sub}", each) for sub, each in command.commands.items())


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_every_options_help_is_a_phrase(name: str, command: click.Command) -> None:
    options = [each for each in command.params if isinstance(each, click.Option)]
    texts = {option.name: option.help or "" for option in options}
    assert [key for key, text in texts.items() if not is_phrase(text) and text not in ASKED] == []


def test_every_cost_inputs_help_is_a_phrase() -> None:
    assert [row.key for row in INPUTS if not is_phrase(row.help)] == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Of the machine waiting.",
        "That a machine lasts.",
        "Draws each.",
        "power in watts.",
        "No",
    ],
)
def test_fragments_are_no_phrases(text: str) -> None:
    assert not is_phrase(text)
