"""`offapi calibrate`: how sure each field is, and which answers need no review."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from offapi.cli.backend_option import backend_option, dtype_option
from offapi.cli.output import Output, options

FILE = click.Path(path_type=Path)
LEVELS = ("off", "schema", "source", "register")
SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)


@click.command(short_help="Promise which of a run's answers need no review.")
@click.argument("run", type=FILE, metavar="RUN")
@click.option(
    "--data",
    type=FILE,
    required=True,
    help="Reviewed documents with gold answers, which the student never learned (JSONL).",
)
@click.option(
    "--error",
    type=SHARE,
    default=0.01,
    show_default=True,
    metavar="FRACTION",
    help="Largest share of wrong answers among the accepted ones of a field.",
)
@click.option(
    "--delta",
    type=SHARE,
    default=0.05,
    show_default=True,
    metavar="PROBABILITY",
    help="Probability that the promise does not hold.",
)
@click.option(
    "--signals",
    "answers",
    type=FILE,
    help="Answers to the documents, from `offapi predict --signals`. Without it, the model is asked.",
)
@click.option(
    "--constrain",
    type=click.Choice(LEVELS),
    help="How answers are bound: off, schema, source or register.  [default: the strongest that the"
    " task declares]",
)
@backend_option()
@dtype_option
@options
def command(output: Output, *, run: Path, **values: Any) -> None:
    """Give each field of a run's answers a probability, and accept those that need no review.

    Use it when a student is trained and you have documents with answers that a person has checked.
    The run answers them; from how sure it was of the right and of the wrong ones, a small model
    learns a probability for each field. Answers from a threshold on are accepted: at most --error
    of them are wrong, with probability 1 - --delta. A field that cannot keep that accepts nothing,
    and the reason is shown.

    The result, calibration.json in the run's folder, is used by `offapi predict`. It holds for
    documents like the reviewed ones; `offapi drift --promise` watches that.

    \b
    Examples:
      offapi calibrate runs/distill --data reviewed.jsonl
      offapi calibrate runs/distill --data reviewed.jsonl --error 0.05
    """
    from offapi.calibrate.calibrate import CalibrateSettings, calibrate
    from offapi.predict.predictor import Predictor, open

    settings = CalibrateSettings(
        values["data"], values["error"], values["delta"], values["answers"], values["constrain"]
    )
    opened = open(run, backend=values["backend"])
    with Predictor(
        opened.answering,
        opened.task,
        opened.task_file,
        opened.backend_name,
        values["dtype"],
        output.say,
    ) as predictor:
        for doubt in predictor.answering.doubts(predictor.task_file):
            output.say(doubt)
        result = calibrate(predictor, settings, output)
    output.table(*result.table())
    for line in result.lines:
        output.say(line)
    output.say(f"Calibration: {result.path}")
    output.result(result.as_dict())
