"""`offapi advise`: recommend a recipe, or advise against training; the flowchart on demand."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from offapi.advise.questions import BY_KEY, QUESTIONS, Answers, Question, Value
from offapi.cli.output import Output, options
from offapi.errors import ConfigError, nearest
from offapi.text.display import plural

if TYPE_CHECKING:
    from offapi.advise.measured import Measured

FILE = click.Path(path_type=Path)


def questions(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add a flag for every question, in the order in which they are asked."""
    for question in reversed(QUESTIONS):
        metavar = "|".join(question.choices) or {"share": "SHARE", "months": "MONTHS"}.get(
            question.kind, "N"
        )
        function = click.option(question.flag, question.key, metavar=metavar, help=question.asks)(
            function
        )
    return function


@click.command(short_help="Recommend a recipe, or advise against training.")
@questions
@click.option(
    "--measured",
    type=FILE,
    multiple=True,
    help="JSON printed by `offapi compare`, `curve` or `cost` with --json. Its measurements replace"
    " rules of thumb. May be given more than once.",
)
@click.option("--chart", is_flag=True, help="Also show the flowchart that led to the advice.")
@click.option("--svg", type=FILE, help="Also write the flowchart to this SVG file.")
@click.option(
    "--no-input", is_flag=True, help="Ask no questions, even in a terminal; use the flags only."
)
@options
def command(
    output: Output,
    *,
    measured: tuple[Path, ...],
    chart: bool,
    svg: Path | None,
    no_input: bool,
    **given: str | None,
) -> None:
    """Recommend a recipe for your task, or advise against training a model.

    Use it before you collect data or train, and again when you have measurements. Each option down
    to --scorable answers one question; all may be left out. In a terminal it asks the questions that
    no option answered, and Enter skips one. The advice rests on your answers, on the files given
    with --measured, and on rules of thumb where nothing was measured.

    \b
    Examples:
      offapi advise
      offapi advise --narrow yes --volume 400000 --traces 5000 --scorable yes
      offapi advise --volume 50k --withdrawn 2 --labels 800 --chart
      offapi advise --labels 800 --measured compare.json --svg advice.svg
    """
    from offapi.advise import text
    from offapi.advise.engine import advise
    from offapi.advise.flowchart import draw_text
    from offapi.advise.measured import read_measured

    if svg is not None and not svg.absolute().parent.is_dir():
        raise ConfigError(
            "the folder does not exist.",
            where=f"--svg {svg}",
            next_step="Create it, or name another.",
        )
    measurements = [read_measured(path) for path in measured]
    answers = _given(given)
    if not (no_input or output.json) and sys.stdin.isatty() and sys.stderr.isatty():
        answers = _ask(answers, output)
    answers = {**_measured(measurements), **answers}
    if not answers:
        step = (
            "Give what you know as flags, such as --narrow yes --volume 50000, or run it in a"
            " terminal."
        )
        raise ConfigError("no question is answered.", next_step=step)
    thresholds = [threshold for each in measurements for threshold in each.thresholds]
    notes = [line for each in measurements for line in each.said]
    advice = advise(answers, thresholds)
    drawn = ["", *draw_text(advice)] if chart else []
    for line in [*text.lines(advice, notes), *drawn]:
        output.say(line)
    if svg is not None:
        _write_svg(svg, advice, output)
    output.result(text.as_dict(advice, notes) | ({"svg": str(svg)} if svg else {}))


def _given(given: Mapping[str, str | None]) -> Answers:
    """Return the answers given as flags. Raise ConfigError for a value that is not an answer."""
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
    """Ask the questions that are not answered yet; Enter skips one."""
    unanswered = [question for question in QUESTIONS if question.key not in answers]
    if unanswered:
        output.say(
            f"{plural(len(unanswered), 'question')}; Enter skips one. Nothing leaves this machine."
        )
    given = {question.key: _ask_one(question) for question in unanswered}
    return {**answers, **{key: value for key, value in given.items() if value is not None}}


def _ask_one(question: Question) -> Value | None:
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


def _measured(measurements: list[Measured]) -> dict[str, Value]:
    answers: dict[str, Value] = {}
    for each in measurements:
        answers |= each.answers or {}
    return answers


def _write_svg(path: Path, advice: Any, output: Output) -> None:
    from offapi.advise.flowchart_svg import draw_svg
    from offapi.files import atomic

    atomic.write_file(path, draw_svg(advice).encode())
    output.say(f"Flowchart: {path}")
