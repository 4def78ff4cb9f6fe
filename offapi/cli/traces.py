"""`offapi traces`: what models once did, read from the logs of others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from offapi.cli.output import Output, options
from offapi.errors import ConfigError, nearest

if TYPE_CHECKING:
    from offapi.data.importers.run import Imported

FILE = click.Path(path_type=Path)
SAMPLES = 3
SHOWN = 100  # characters of a sample's question and answer


@click.group("traces", short_help="Import traces from the logs of others.")
def command() -> None:
    """Import traces, what models were asked and answered, from the logs of others.

    \b
    offapi traces import openai-ft train.jsonl --out traces.jsonl
    """


@command.command("import")
@click.argument("format", metavar="FORMAT")
@click.argument("paths", metavar="FILE...", type=FILE, nargs=-1, required=True)
@click.option(
    "--out", type=FILE, default="traces.jsonl", show_default=True, help="The traces, JSON Lines."
)
@click.option(
    "--map", "maps", metavar="NAME=$.PATH", multiple=True, help="For generic: where something lies."
)
@click.option("--strict", is_flag=True, help="Stop at the first malformed row, with exit code 2.")
@click.option("--limit", type=click.IntRange(1), help="Only the first N rows.")
@options
def import_(
    output: Output,
    *,
    format: str,
    paths: tuple[Path, ...],
    out: Path,
    maps: tuple[str, ...],
    strict: bool,
    limit: int | None,
) -> None:
    """Read logged requests and answers into traces, and say what became of every row.

    FILE is JSON Lines, one JSON array or object, either gzipped, or a folder of those. Nothing is
    guessed: a row that is no chat with an answer is dropped and counted with its reason. Stop it at any
    time: the same command goes on where it stopped.

    \b
    FORMAT is one of
      openai-ft      OpenAI's fine-tuning files for chat models
      openai         requests with responses, Batch files (name both), stored completions
      anthropic      Messages requests with responses, batches (name requests and results)
      otel           OpenTelemetry GenAI spans, OTLP/JSON or flat
      openinference  OpenInference spans, Phoenix exports
      langfuse       observations: API, blob export, the web page's download
      litellm        SpendLogs, standard logging payload
      agents-sdk     OpenAI Agents SDK, through `offapi traces processor`
      generic        any JSON, with --map

    \b
    offapi traces import openai-ft train.jsonl
    offapi traces import openai batch_input.jsonl batch_output.jsonl --out traces.jsonl
    offapi traces import generic log.jsonl --map input=$.prompt --map output=$.reply.text --map group=$.user
    """
    from offapi.data.importers import records
    from offapi.data.importers.importer import FORMATS
    from offapi.data.importers.run import ImportRequest, import_traces

    if format not in FORMATS:
        raise ConfigError(
            f"{format!r} is not a format.", where="FORMAT", next_step=nearest(format, FORMATS)
        )
    found = records.find_files(paths, but=out)
    if records.is_output(out, found):
        raise ConfigError(
            "it is read by this command too.", where=f"--out {out}", next_step="Name another file."
        )
    if maps and format != "generic":
        raise ConfigError(
            "--map has no effect.", where=f"FORMAT {format}", next_step="Use the format generic."
        )
    imported = import_traces(ImportRequest(format, found, _maps(maps), strict, limit), out, output)
    _tell(output, imported)
    reasons = {each.reason: each.count for each in imported.dropped}
    output.result(
        {
            "read": imported.read,
            "paired": imported.paired,
            "usable": imported.usable,
            "dropped": reasons,
            "out": str(out),
        }
    )


@command.command()
def processor() -> None:
    """Print the tracing processor for the OpenAI Agents SDK, a Python file for the agent's project.

    The SDK's own export holds no messages. The file needs nothing but Python.

    \b
    offapi traces processor > agents_processor.py
    """
    from importlib.resources import files

    click.echo(
        files("offapi.data.importers").joinpath("agents_processor.py").read_text(encoding="utf-8"),
        nl=False,
    )


def _maps(given: tuple[str, ...]) -> dict[str, str]:
    """--map's names and paths."""
    found: dict[str, str] = {}
    for each in given:
        name, equals, path = each.partition("=")
        if not equals or name in found:
            what = f"{name!r} is mapped twice." if equals else f"{each!r} names no place."
            raise ConfigError(
                what, where="--map", next_step="Write --map NAME=$.PATH, each name once."
            )
        found[name] = path
    return found


def _tell(output: Output, imported: Imported) -> None:
    """What became of the rows, warnings, samples, and where the rest is."""
    lost = sum(each.count for each in imported.dropped)
    output.say(f"{imported.read:,} rows read, {imported.usable:,} usable, {lost:,} dropped.")
    if imported.paired:
        entries = imported.read + imported.paired
        output.say(
            f"{imported.paired:,} requests lie apart from their results and are counted with them: "
            f"{entries:,} requests and results make {imported.read:,} rows."
        )
    if imported.dropped:
        rows = [
            (each.reason, f"{each.count:,}", ", ".join(each.places)) for each in imported.dropped
        ]
        output.table(("dropped because", "rows", "the first"), rows)
    for each in imported.dropped:
        if each.hint:
            output.say(f"{each.reason}: {each.hint}")
    if imported.personal:
        from offapi.data.importers.worker import LOOKED_AT, SPARSE

        looked = (
            f"the first {LOOKED_AT:,} rows of a file and one in {SPARSE} of the rest were looked at"
        )
        kinds = ", ".join(f"{kind} in {count:,}" for kind, count in imported.personal.items())
        output.say(
            f"Warning: rows seem to hold {kinds}; {looked}. A model can learn and repeat what is in"
            " its traces."
        )
    output.table(("id", "asked", "answered"), _samples(imported.out))
    output.say(
        f"Traces: {imported.out}. Grade them with `offapi grade --task task.py --traces"
        f" {imported.out}`."
    )


def _samples(path: Path) -> list[tuple[str, str, str]]:
    """The beginnings of some rows, from the whole of the file."""
    import orjson

    from offapi.data.traces import Trace

    size, found = path.stat().st_size, {}
    with path.open("rb") as file:
        for i in range(SAMPLES):
            file.seek(max(size * i // SAMPLES - 1, 0))
            if i:
                file.readline()  # the rest of a row
            line = file.readline()
            if line:
                row = orjson.loads(line)
                trace = Trace(row["id"], tuple(row["messages"]))
                calls = [
                    call["function"]["name"] for call in trace.messages[-1].get("tool_calls") or ()
                ]
                answer = trace.answer or f"calls {', '.join(calls)}"
                found[trace.id] = (_short(trace.id), _short(trace.document), _short(answer))
    return list(found.values())


def _short(text: str) -> str:
    from offapi.text.display import shorten

    return shorten(" ".join(text[: 4 * SHOWN].split()), SHOWN, "...")
