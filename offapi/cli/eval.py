"""`offapi eval`: a model's accuracy, or two systems compared, with 95% intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from offapi.cli.backend_option import backend_option, dtype_option
from offapi.cli.constrain_option import constrain_option
from offapi.cli.output import Output, options
from offapi.cli.quantize_option import quantize_option
from offapi.cli.template_option import template_option
from offapi.errors import ConfigError, DataError
from offapi.text.display import share

if TYPE_CHECKING:
    from offapi.evaluation.accuracy import Prediction, Report
    from offapi.evaluation.evaluate import EvalSettings, Questions
    from offapi.evaluation.sampled_accuracy import SampledReport

FILE = click.Path(path_type=Path)
RECORDED = "recorded"
EPISODES_HEAD = ("an agent's episodes", "mean, with 95% interval")
OWN_TEMPERATURE = 1.0  # the distribution that the model learned
FOR_MODELS = (
    "model",
    "adapter",
    "shots",
    "samples",
    "temperature",
    "limit",
    "out",
    "constrain",
    "template",
    "backend",
    "dtype",
    "bits",
)


@dataclass(frozen=True)
class Rival:
    """The answers to compare with, and how many documents were never answered."""

    name: str
    answers: Sequence[Prediction]
    missing: int = 0


@click.command(short_help="Measure a model's accuracy, or compare two, with 95% intervals.")
@click.argument("answers", type=FILE, required=False, metavar="[ANSWERS]")
@click.option("--task", "task_file", type=FILE, help="Task file (Python).")
@click.option(
    "--data",
    type=FILE,
    help="Documents or traces with gold answers, which are known to be right (JSONL).",
)
@click.option(
    "--model",
    default="demo",
    show_default=True,
    metavar="NAME",
    help="Name of a local model (see `offapi models list`), or its folder.",
)
@click.option(
    "--adapter",
    type=FILE,
    help="Adapter folder, such as runs/NAME/adapter. Without it, the base model answers alone.",
)
@click.option(
    "--shots",
    type=click.IntRange(0),
    metavar="N",
    default=0,
    show_default=True,
    help="Number of the task's worked examples to put into the prompt.",
)
@click.option(
    "--samples",
    type=click.IntRange(1),
    metavar="N",
    default=1,
    show_default=True,
    help="Answers to sample per document; with more than one, the share of right answers is reported too.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(0, 10),
    metavar="T",
    help="Sampling temperature; 0 takes the likeliest token.  [default: 0, or 1 with --samples]",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="N",
    help="Use only the first N documents.  [default: all]",
)
@click.option(
    "--out",
    type=FILE,
    default="predictions.jsonl",
    show_default=True,
    help="File for the predictions: every answer and its scores (JSONL).",
)
@click.option(
    "--against",
    metavar="FILE",
    help="Predictions file to compare with, or `recorded` for the answers in --data. Without it,"
    " nothing is compared.",
)
@click.option(
    "--margin",
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    metavar="FRACTION",
    help="Largest drop in accuracy you would accept when replacing B by A; 0.05 is 5 percentage points.",
)
@click.option(
    "--common",
    is_flag=True,
    help="With --against, compare only documents that both sides answered. Without it, a missing"
    " answer is an error, and a missing recorded answer counts as wrong.",
)
@constrain_option()
@template_option
@backend_option()
@dtype_option
@quantize_option
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
    **values: Any,
) -> None:
    """Measure a model's accuracy on documents with gold answers, or compare two models.

    Use it after training, on documents that the model has not seen. --task and --data are required
    unless ANSWERS is given. The model answers every document; the accuracy of each field is shown
    with a 95% interval, and the answers are written to --out.

    With --against, these answers (A) are compared with others (B) to the same documents. It reports
    which is better, whether A can replace B, or that there are too few documents to say. ANSWERS is
    a predictions file to use as A instead of running a model.

    \b
    Examples:
      offapi eval --task task.py --data val.jsonl --adapter runs/distill/adapter
      offapi eval student.jsonl --against teacher.jsonl --margin 0.05
      offapi eval student.jsonl --against recorded --task task.py --data val.jsonl
    """
    from offapi.data import documents
    from offapi.evaluation import accuracy
    from offapi.evaluation.evaluate import read_questions

    _check_usage(answers, task_file, data, against)
    questions = read_questions(task_file, data, limit) if task_file and data else None
    documents.say_left_out(output, data)
    rival = _rival(against, questions, common, output) if against else None
    predictions: Sequence[Prediction] = ()
    result: dict[str, Any] = {}
    if answers is not None:
        predictions = accuracy.read_predictions(answers)
    elif questions is not None:
        reads = [task_file, data, Path(against or RECORDED)]
        settings = _settings(values, reads, compared=against is not None)
        predictions, result = _score(settings, questions, rival, common, output)
    if rival is not None:
        name = str(answers or values["out"])
        comparison = _compare(predictions, name, rival, margin, common, output)
        result = {**result, "against": comparison} if result else comparison
    output.result(result)


def _check_usage(
    answers: Path | None, task_file: Path | None, data: Path | None, against: str | None
) -> None:
    """Raise UsageError for options that exclude each other: none may be without effect."""
    context = click.get_current_context()
    given = {
        name
        for name in context.params
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    reads = answers is None or against == RECORDED
    if reads and (task_file is None or data is None):
        instead = "" if answers else ", or name a predictions file and --against"
        raise click.UsageError(f"Missing option '--{'data' if task_file else 'task'}'{instead}.")
    if answers is not None and against is None:
        raise click.UsageError(
            "A predictions file needs another one to compare with: add --against."
        )
    unused = [name for name in FOR_MODELS if name in given] if answers is not None else []
    unused += [name for name in ("task_file", "data") if name in given and not reads]
    unused += [name for name in ("margin", "common") if name in given and against is None]
    if unused:
        why = (
            "no model runs, because ANSWERS is given"
            if answers
            else "nothing is compared without --against"
        )
        option = {"bits": "quantize"}.get(unused[0], unused[0].removesuffix("_file"))
        raise click.UsageError(f"--{option} has no effect: {why}.")


def _score(
    settings: EvalSettings, questions: Questions, rival: Rival | None, common: bool, output: Output
) -> tuple[Sequence[Prediction], dict[str, Any]]:
    """Return the model's answers, and the object that `--json` prints."""
    from offapi.evaluation import accuracy
    from offapi.evaluation.agent_answers import EPISODE_TOKENS
    from offapi.evaluation.compare import match_answers
    from offapi.evaluation.evaluate import evaluate_model
    from offapi.files import atomic

    # Checked before minutes of answering: a row is about 1 KB and four bytes per answer token.
    task = questions.task
    tokens = EPISODE_TOKENS if task.is_agent else task.max_answer_tokens
    row = 1024 + 4 * tokens
    atomic.need_room(settings.out, settings.samples * len(questions.rows) * row)
    if rival is not None:  # a mismatch of documents must show before the model runs
        unanswered = accuracy.make_predictions(
            questions.task, questions.rows, [""] * len(questions.rows)
        )
        with _naming(str(questions.data), rival.name):
            match_answers(unanswered, rival.answers, common=common)
    scored = evaluate_model(settings, questions, output)
    output.table(("field", "right, with 95% interval"), scored.report.table())
    if scored.report.episodes is not None:
        output.table(EPISODES_HEAD, scored.report.episodes.table())
    _show_details(scored.report, output)
    for line in scored.lines():
        output.say(line)
    return scored.report.predictions, scored.as_dict()


def _show_details(report: Report | SampledReport, output: Output) -> None:
    """Show what is right inside lists and objects, and nulls apart, where there are some."""
    from offapi.evaluation.field_details import INSIDE_HEAD, NULL_HEAD, FieldDetails

    details = FieldDetails.of(report.predictions)
    if rows := details.inside_rows():
        output.table(INSIDE_HEAD, rows)
    if details.has_nulls:
        output.table(NULL_HEAD, details.null_rows())


def _settings(
    values: dict[str, Any], reads: Sequence[Path | None], *, compared: bool
) -> EvalSettings:
    """Return the settings. Raise ConfigError for impossible sampling or an unusable --out."""
    from offapi.evaluation.evaluate import EvalSettings

    samples, temperature, out = values["samples"], values["temperature"], values["out"]
    if temperature is None:
        temperature = OWN_TEMPERATURE if samples > 1 else 0.0
    if samples > 1 and temperature == 0:
        raise ConfigError(
            "all samples are the same at temperature 0.", next_step="Raise --temperature."
        )
    if temperature > 0 and compared:
        step = "Compare greedy answers: leave out --samples and --temperature."
        raise ConfigError("sampled answers cannot be compared.", next_step=step)
    if any(path and path.exists() and out.exists() and out.samefile(path) for path in reads):
        what = "this command also reads that file, so writing to it would destroy the input."
        raise ConfigError(what, where=f"--out {out}", next_step="Name another --out.")
    if not out.absolute().parent.is_dir():
        raise ConfigError(
            "the folder does not exist.",
            where=f"--out {out}",
            next_step="Create it, or name another.",
        )
    return EvalSettings(**{**values, "temperature": temperature})


def _rival(against: str, questions: Questions | None, common: bool, output: Output) -> Rival:
    from offapi.evaluation import accuracy

    if against != RECORDED or questions is None:
        return Rival(against, accuracy.read_predictions(Path(against)))
    answers, missing = accuracy.recorded_predictions(questions.task, questions.rows)
    if missing:
        counted = "left out" if common else "counted as wrong (--common leaves them out)"
        count = share(len(missing), len(answers), "document", ("has", "have"))
        output.say(f"{count} no recorded answer: {counted}.")
    kept = [row for row in answers if row.id not in set(missing)] if common else answers
    return Rival(RECORDED, kept, len(missing))


def _compare(
    predictions: Sequence[Prediction],
    name: str,
    rival: Rival,
    margin: float,
    common: bool,
    output: Output,
) -> dict[str, Any]:
    from offapi.evaluation.compare import compare_answers

    with _naming(name, rival.name):
        comparison = compare_answers(predictions, rival.answers, margin=margin, common=common)
    output.say(f"A: {name}    B: {rival.name}")
    output.table(("", "A right", "B right", "A - B, points"), comparison.table())
    for line in comparison.lines():
        output.say(line)
    result = {"A": name, "B": rival.name, **comparison.as_dict()}
    return result | {"not_recorded": rival.missing} if rival.name == RECORDED else result


@contextmanager
def _naming(a: str, b: str) -> Iterator[None]:
    """Name the files A and B in errors."""
    try:
        yield
    except DataError as error:
        where = ", ".join([f"A = {a}", f"B = {b}", *filter(None, [error.where])])
        raise DataError(error.what, where=where, next_step=error.next_step) from None
