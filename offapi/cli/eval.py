"""`offapi eval`: a model's answers against gold, or two
systems' answers against each other, with intervals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from offapi.cli.backend_option import backend_option
from offapi.cli.output import Output, options
from offapi.errors import ConfigError, DataError

if TYPE_CHECKING:
    from offapi.evaluation.accuracy import Prediction
    from offapi.evaluation.evaluate import EvalSettings, Questions

FILE = click.Path(path_type=Path)
RECORDED = "recorded"
OWN_TEMPERATURE = 1.0  # the distribution that the model learned
FOR_MODELS = (
    "model",
    "adapter",
    "shots",
    "samples",
    "temperature",
    "limit",
    "out",
    "backend",
    "dtype",
)


@dataclass(frozen=True)
class Rival:
    """The answers to compare with, and the documents among them that were never answered."""

    name: str
    answers: Sequence[Prediction]
    missing: int = 0


@click.command(short_help="Score a model on known answers, or compare two, with intervals.")
@click.argument("answers", type=FILE, required=False)
@click.option("--task", "task_file", type=FILE, help="The task file (Python).")
@click.option("--data", type=FILE, help="Documents or traces with gold answers (JSONL).")
@click.option(
    "--model", default="demo", show_default=True, help="A model in the store, or its folder."
)
@click.option("--adapter", type=FILE, help="An adapter folder, such as runs/NAME/adapter.")
@click.option(
    "--shots",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Worked examples in the prompt.",
)
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Answers to sample a document.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(0, 10),
    help="Of sampling.  [default: 0, or 1 with --samples]",
)
@click.option("--limit", type=click.IntRange(1), help="Only the first N documents.")
@click.option("--out", type=FILE, default="predictions.jsonl", show_default=True)
@click.option(
    "--against",
    metavar="FILE",
    help="Other predictions to compare with, or `recorded`: those in --data.",
)
@click.option(
    "--margin",
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    help="How much less would do.",
)
@click.option("--common", is_flag=True, help="Leave out documents that only one side answered.")
@backend_option()
@click.option(
    "--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True
)
@options
def command(
    output: Output,
    *,
    answers: Path | None,
    task_file: Path | None,
    data: Path | None,
    limit: int | None,
    against: str | None,
    margin: float,
    common: bool,
    **asked: Any,
) -> None:
    """Score a model (and adapter) on documents with gold answers; predictions are written to --out.

    With --against, two systems' answers to the same documents are compared: which is better,
    whether A could replace B, or that so many documents cannot tell. ANSWERS is a predictions
    file to use as A instead of asking a model.

    \b
    offapi eval --task task.py --data val.jsonl --model demo --adapter runs/distill/adapter
    offapi eval student.jsonl --against teacher.jsonl --margin 0.05
    offapi eval student.jsonl --against recorded --task task.py --data val.jsonl
    """
    from offapi.evaluation import accuracy
    from offapi.evaluation.evaluate import read_questions

    _check_usage(answers, task_file, data, against)
    questions = read_questions(task_file, data, limit) if task_file and data else None
    rival = _rival(against, questions, common, output) if against else None
    found: Sequence[Prediction] = ()
    told: dict[str, Any] = {}
    if answers is not None:
        found = accuracy.read_predictions(answers)
    elif questions is not None:
        wanted = _asked(
            asked, [task_file, data, Path(against or RECORDED)], compared=against is not None
        )
        found, told = _score(wanted, questions, rival, common, output)
    if rival is not None:
        compared = _compare(found, str(answers or asked["out"]), rival, margin, common, output)
        told = {**told, "against": compared} if told else compared
    output.result(told)


def _check_usage(
    answers: Path | None, task_file: Path | None, data: Path | None, against: str | None
) -> None:
    """UsageError for options that do not go together: none may be without effect."""
    context = click.get_current_context()
    given = {
        name
        for name in context.params
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    reads = answers is None or against == RECORDED
    if reads and (task_file is None or data is None):
        instead = "" if answers else ", or name a predictions file to compare with another"
        raise click.UsageError(f"Missing option '--{'data' if task_file else 'task'}'{instead}.")
    if answers is not None and against is None:
        raise click.UsageError("A predictions file is compared with another one: add --against.")
    unused = [name for name in FOR_MODELS if name in given] if answers is not None else []
    unused += [name for name in ("task_file", "data") if name in given and not reads]
    unused += [name for name in ("margin", "common") if name in given and against is None]
    if unused:
        why = (
            "no model is asked, the answers are there"
            if answers
            else "nothing is compared without --against"
        )
        raise click.UsageError(f"--{unused[0].removesuffix('_file')} has no effect: {why}.")


def _score(
    wanted: EvalSettings, questions: Questions, rival: Rival | None, common: bool, output: Output
) -> tuple[Sequence[Prediction], dict[str, Any]]:
    """The model's answers, and what `--json` tells of them."""
    from offapi.evaluation import accuracy
    from offapi.evaluation.compare import match_answers
    from offapi.evaluation.evaluate import evaluate_model
    from offapi.files import atomic

    # Before minutes of answering: a row holds the answer,
    # of some four bytes a token, and about 1 KB beside it.
    row = 1024 + 4 * questions.task.max_answer_tokens
    atomic.need_room(wanted.out, wanted.samples * len(questions.rows) * row)
    if rival is not None:  # what keeps the two apart is told before the model is asked
        unanswered = accuracy.make_predictions(
            questions.task, questions.rows, [""] * len(questions.rows)
        )
        with _naming(str(questions.data), rival.name):
            match_answers(unanswered, rival.answers, common=common)
    scored = evaluate_model(wanted, questions, output)
    output.table(("field", "right, with 95% interval"), scored.report.table())
    for line in scored.lines():
        output.say(line)
    return scored.report.predictions, scored.as_dict()


def _asked(values: dict[str, Any], reads: Sequence[Path | None], *, compared: bool) -> EvalSettings:
    """ConfigError where sampling or --out cannot be as asked."""
    from offapi.evaluation.evaluate import EvalSettings

    samples, temperature, out = values["samples"], values["temperature"], values["out"]
    if temperature is None:
        temperature = OWN_TEMPERATURE if samples > 1 else 0.0
    if samples > 1 and temperature == 0:
        raise ConfigError(
            "at temperature 0 all samples are the same.", next_step="Raise --temperature."
        )
    if temperature > 0 and compared:
        step = "Compare greedy answers, one a document: leave --samples and --temperature out."
        raise ConfigError("sampled answers are not compared.", next_step=step)
    if any(path and path.exists() and out.exists() and out.samefile(path) for path in reads):
        raise ConfigError(
            "it is read by this command too.", where=f"--out {out}", next_step="Name another --out."
        )
    if not out.absolute().parent.is_dir():
        raise ConfigError(
            "there is no such folder.", where=f"--out {out}", next_step="Make it, or name another."
        )
    return EvalSettings(**{**values, "temperature": temperature})


def _rival(against: str, questions: Questions | None, common: bool, output: Output) -> Rival:
    from offapi.evaluation import accuracy

    if against != RECORDED or questions is None:
        return Rival(against, accuracy.read_predictions(Path(against)))
    answers, missing = accuracy.recorded_predictions(questions.task, questions.rows)
    if missing:
        counted = "are left out" if common else "count as wrong (--common leaves them out)"
        output.say(
            f"{len(missing)} of {len(answers)} documents have no recorded answer and {counted}."
        )
    kept = [row for row in answers if row.id not in set(missing)] if common else answers
    return Rival(RECORDED, kept, len(missing))


def _compare(
    found: Sequence[Prediction],
    name: str,
    rival: Rival,
    margin: float,
    common: bool,
    output: Output,
) -> dict[str, Any]:
    from offapi.evaluation.compare import compare_answers

    with _naming(name, rival.name):
        compared = compare_answers(found, rival.answers, margin=margin, common=common)
    output.say(f"A: {name}    B: {rival.name}")
    output.table(("", "A right", "B right", "A - B, points"), compared.table())
    for line in compared.lines():
        output.say(line)
    return {
        "A": name,
        "B": rival.name,
        **compared.as_dict(),
        **({"not_recorded": rival.missing} if rival.name == RECORDED else {}),
    }


@contextmanager
def _naming(a: str, b: str) -> Iterator[None]:
    """Say in errors which files A and B are."""
    try:
        yield
    except DataError as error:
        where = ", ".join([f"A = {a}", f"B = {b}", *filter(None, [error.where])])
        raise DataError(error.what, where=where, next_step=error.next_step) from None
