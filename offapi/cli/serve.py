"""`offapi serve`: runs and models behind an OpenAI-compatible server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from offapi.cli.backend_option import backend_option, dtype_option
from offapi.cli.output import Output, options
from offapi.cli.quantize_option import quantize_option
from offapi.cli.template_option import template_option

FILE = click.Path(path_type=Path)
MB = 1 << 20


@click.command(short_help="Serve runs and models as an OpenAI-compatible API.")
@click.argument("sources", nargs=-1, required=True, metavar="[NAME=]RUN|MODEL...")
@click.option("--task", "task_file", type=FILE, help="Task file (Python).  [default: each run's]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Port to listen at; 0 for any that is free.",
)
@click.option(
    "--key-file",
    type=FILE,
    help="File of mode 0600 with the key that clients need; the variable OFFAPI_SERVE_KEY is the other way to give one.",
)
@click.option(
    "--allow-host",
    "names",
    multiple=True,
    metavar="NAME",
    help="Host name by which clients reach the server, besides its address and localhost (repeatable).",
)
@click.option(
    "--cache",
    "cache_mb",
    type=click.IntRange(0),
    metavar="MB",
    default=256,
    show_default=True,
    help="Memory for beginnings of prompts that are kept between requests.",
)
@click.option(
    "--traces",
    type=FILE,
    metavar="DIR",
    help="Keep questions and answers in this folder, for `offapi grade --traces DIR` and the recipe"
    " filtered_sft.",
)
@click.option(
    "--traces-mb",
    type=click.IntRange(1),
    metavar="MB",
    default=1024,
    show_default=True,
    help="Most that the folder of --traces may take; the oldest answers go first.",
)
@click.option(
    "--traces-days",
    type=click.FloatRange(0, min_open=True),
    metavar="DAYS",
    default=30,
    show_default=True,
    help="Days after which a kept answer is removed.",
)
@click.option(
    "--constrain",
    type=click.Choice(("off", "schema", "source", "register")),
    help="How answers to the task are bound.  [default: as the run was calibrated, else the"
    " strongest that the task declares]",
)
@click.option(
    "--escalate",
    metavar="URL",
    help="Ask the stronger endpoint at http://HOST:PORT/v1 or https://... about documents whose"
    " answers are not accepted, and serve its answers.",
)
@click.option("--escalate-model", metavar="NAME", help="Model to ask for there.")
@click.option(
    "--escalate-key-env", metavar="VARIABLE", help="Environment variable with the key for it."
)
@click.option(
    "--ask",
    type=FILE,
    help="Put documents whose answers are not accepted into this file, for a person (JSONL).",
)
@click.option(
    "--below",
    type=click.FloatRange(0, 1),
    metavar="P",
    help="Accept an answer if no field's confidence is below P.  [default: as the run's promise"
    " says]",
)
@click.option(
    "--jobs",
    type=FILE,
    metavar="DIR",
    help="Train what clients ask for by /v1/files and /v1/fine_tuning/jobs, and keep it in this folder;"
    " its finished models are served too.",
)
@template_option
@backend_option()
@dtype_option
@quantize_option
@options
def command(output: Output, *, sources: tuple[str, ...], **values: Any) -> None:
    """Serve trained runs, or models, where an application now calls OpenAI's API.

    RUN is a run's folder, which has base model, adapter and task; MODEL is a local model's name or
    folder. Several have one base, and requests choose by name: a run is called as its folder, or
    NAME. With NAME=RUN an application keeps the model's name that it has, and changes its base URL
    alone. Without a temperature in the request, answers are greedy, as they were measured.

    The server listens on this machine alone, and refuses web pages. With a --host that other
    machines reach, clients need a key. Ctrl-C or SIGTERM lets it finish what it is answering; a
    second one ends it at once.

    \b
    Examples:
      offapi serve runs/student
      offapi serve gpt-4o-mini=runs/student --port 8000
      offapi serve runs/invoices runs/receipts --backend mlx
      offapi serve runs/student --traces kept
    """
    from offapi.backend import default_backend
    from offapi.serve.capture import CaptureOptions
    from offapi.serve.run import ServeOptions, serve
    from offapi.serve.unaccepted import UnacceptedOptions

    traces: Path | None = values["traces"]
    size, days = values["traces_mb"] * MB, values["traces_days"]
    kept = None if traces is None else CaptureOptions(traces, size, days)
    names = ("escalate", "escalate_model", "escalate_key_env", "ask", "below")
    asked = ServeOptions(
        sources=sources,
        backend=values["backend"] or default_backend(),
        task_file=values["task_file"],
        host=values["host"],
        port=values["port"],
        names=values["names"],
        key_file=values["key_file"],
        dtype=values["dtype"],
        cache_bytes=values["cache_mb"] * MB,
        capture=kept,
        level=values["constrain"],
        template=values["template"],
        bits=values["bits"],
        unaccepted=UnacceptedOptions(**{name: values[name] for name in names}),
        jobs=values["jobs"],
    )
    server = serve(asked, output)
    output.result({"models": [each.name for each in server.models], **server.metrics.totals()})
