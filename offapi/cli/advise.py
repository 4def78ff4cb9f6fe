"""`offapi advise`: which road to take, and when to take none, with the flowchart."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from offapi.advise.questions import BY_KEY, QUESTIONS, Answers, Question, Value
from offapi.cli.output import Output, options
from offapi.errors import ConfigError, nearest

if TYPE_CHECKING:
    from offapi.advise.measured import Measured

FILE = click.Path(path_type=Path)


def questions(function: Callable[..., Any]) -> Callable[..., Any]:
    """A flag for every question, in the order they are asked."""
    for question in reversed(QUESTIONS):
        metavar = "|".join(question.choices) or {"share": "SHARE", "months": "MONTHS"}.get(
            question.kind, "N"
        )
        function = click.option(question.flag, question.key, metavar=metavar, help=question.asks)(
            function
        )
    return function


@click.command(short_help="Say which road to take, and when to take none.")
@questions
@click.option(
    "--measured", type=FILE, multiple=True, help="What compare, curve or cost printed with --json."
)
@click.option("--svg", type=FILE, help="Write the flowchart as a picture too.")
@click.option("--no-input", is_flag=True, help="Ask nothing, also in a terminal.")
@options
def command(
    output: Output,
    *,
    measured: tuple[Path, ...],
    svg: Path | None,
    no_input: bool,
    **given: str | None,
) -> None:
    """Say which road to a model of your own to take, and when to take none.

    In a terminal it asks what no flag has said; Enter skips a question. It knows nothing but your
    answers, and what was measured on your own task where you name it.

    \b
    offapi advise
    offapi advise --narrow yes --volume 400000 --traces 5000 --scorable yes --terms allowed
    offapi advise --labels 800 --measured compare.json --measured cost.json --svg advice.svg
    """
    from offapi.advise import text
    from offapi.advise.engine import advise
    from offapi.advise.flowchart import draw_text
    from offapi.advise.measured import read_measured

    if svg is not None and not svg.absolute().parent.is_dir():
        raise ConfigError(
            "there is no such folder.", where=f"--svg {svg}", next_step="Make it, or name another."
        )
    found = [read_measured(path) for path in measured]
    answers = _given(given)
    if not (no_input or output.json) and sys.stdin.isatty() and sys.stderr.isatty():
        answers = _ask(answers, output)
    answers = {**_measured(found), **answers}
    if not answers:
        step = (
            "Give what you know as flags, such as --narrow yes --volume 50000, or run it in a"
            " terminal."
        )
        raise ConfigError("not one question is answered.", next_step=step)
    advice = advise(answers, [threshold for one in found for threshold in one.thresholds])
    said = [line for one in found for line in one.said]
    for line in [*draw_text(advice), "", *text.lines(advice, said)]:
        output.say(line)
    if svg is not None:
        _write_svg(svg, advice, output)
    output.result(text.as_dict(advice, said) | ({"svg": str(svg)} if svg else {}))


def _given(given: Mapping[str, str | None]) -> Answers:
    """The flags as answers. ConfigError names a flag whose value is none."""
    answers: dict[str, Value] = {}
    for key, text in given.items():
        if text is not None:
            question = BY_KEY[key]
            try:
                answers[key] = question.read(text)
            except ValueError as error:
                step = (
                    nearest(text, question.choices)
                    if question.choices
                    else f"{question.asks} {question.hint}."
                )
                raise ConfigError(
                    f"{error}.", where=f"{question.flag} {text}", next_step=step
                ) from None
    return answers


def _ask(answers: Answers, output: Output) -> Answers:
    """Ask for what is not answered; Enter skips."""
    open_ones = [question for question in QUESTIONS if question.key not in answers]
    if open_ones:
        output.say(f"{len(open_ones)} questions; Enter skips one. Nothing leaves this machine.")
    return {
        **answers,
        **{
            question.key: value for question in open_ones if (value := _asked(question)) is not None
        },
    }


def _asked(question: Question) -> Value | None:
    while True:
        text = click.prompt(
            f"{question.asks} [{question.hint}]", default="", show_default=False, err=True
        ).strip()
        if not text:
            return None
        try:
            return question.read(text)
        except ValueError as error:
            click.echo(f"  {error}.", err=True)


def _measured(found: list[Measured]) -> dict[str, Value]:
    return {key: value for one in found for key, value in (one.answers or {}).items()}


def _write_svg(path: Path, advice: Any, output: Output) -> None:
    from offapi.advise.flowchart_svg import draw_svg
    from offapi.files import atomic

    atomic.write_file(path, draw_svg(advice).encode())
    output.say(f"Flowchart: {path}")
