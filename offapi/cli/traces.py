"""`offapi traces`: import traces from other tools' logs, and purge those that a server kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from offapi.cli.output import Output, options
from offapi.cli.traces_purge import purge_command
from offapi.errors import ConfigError, nearest
from offapi.text.display import plural

if TYPE_CHECKING:
    from offapi.data.importers.run import Imported

FILE = click.Path(path_type=Path)
SAMPLES = 3
SHOWN = 100  # characters of a sample's question and answer


@click.group("traces", short_help="Import traces from other tools' logs, or purge kept ones.")
def command() -> None:
    """Import traces from other tools' logs, or purge those that a server kept.

    A trace is a logged chat that ends with a model's answer. Import traces to grade them with
    `offapi grade` and to train on the best with the recipe filtered_sft.

    \b
    Examples:
      offapi traces import openai-ft train.jsonl --out traces.jsonl
      offapi traces processor > agents_processor.py
      offapi traces purge kept --older-than 30
    """


command.add_command(purge_command)


@command.command("import", short_help="Read logged requests and answers into traces.")
@click.argument("format", metavar="FORMAT")
@click.argument("paths", metavar="FILE...", type=FILE, nargs=-1, required=True)
@click.option(
    "--out",
    type=FILE,
    default="traces.jsonl",
    show_default=True,
    help="File for the traces (JSONL).",
)
@click.option(
    "--map",
    "maps",
    metavar="NAME=$.PATH",
    multiple=True,
    help="For the format generic: where a row holds NAME (such as input, output, group), as a JSON path."
    " May be given more than once.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Stop at the first malformed row, with exit code 2. Without it, such rows are dropped.",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="N",
    help="Read only the first N rows.  [default: all]",
)
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
    """Read logged requests and answers into traces, and report what happened to every row.

    FILE is JSON Lines, one JSON array, or objects over several lines; it may be gzipped or in UTF-16,
    or a folder of such files. A file of another kind is named, with how to convert it.
    Nothing is guessed: a row that is not a chat with an answer is dropped and counted with its
    reason. A question with its known answer (reinforcement fine-tuning) becomes a document with
    gold. Run the same command again to resume.

    \b
    FORMAT is one of:
      openai-ft      training files for chat models: OpenAI's, ShareGPT, Gemini's, TRL's
      alpaca         training files with instruction, input and output
      openai         requests with responses, Batch files (name both), stored completions, Weave
      anthropic      Messages requests with responses, batches (name both files), Bedrock logs
      otel           OpenTelemetry GenAI spans: OTLP/JSON, Tempo, Jaeger, Zipkin, MLflow, flat
      openinference  OpenInference spans, Phoenix exports
      langfuse       observations: API, blob export, the web page's download
      langsmith      runs, from the API, the SDK or an export
      litellm        SpendLogs, standard logging payload
      agents-sdk     OpenAI Agents SDK, through `offapi traces processor`
      generic        any JSON, with --map

    \b
    Examples:
      offapi traces import openai-ft train.jsonl
      offapi traces import openai batch_input.jsonl batch_output.jsonl --out traces.jsonl
      offapi traces import generic log.jsonl --map input=$.prompt --map output=$.reply.text
    """
    from offapi.data.importers import records
    from offapi.data.importers.importer import FORMATS
    from offapi.data.importers.run import ImportRequest, import_traces

    if format not in FORMATS:
        raise ConfigError(
            f"{format!r} is not a format.", where="FORMAT", next_step=nearest(format, FORMATS)
        )
    files = records.find_files(paths, but=out, say=output.say)
    if records.is_output(out, files):
        what = "this command also reads that file, so writing to it would destroy the input."
        raise ConfigError(what, where=f"--out {out}", next_step="Name another file.")
    if maps and format != "generic":
        raise ConfigError(
            "--map has no effect.", where=f"FORMAT {format}", next_step="Use the format generic."
        )
    imported = import_traces(ImportRequest(format, files, _maps(maps), strict, limit), out, output)
    _show_import(output, imported)
    reasons = {each.reason: each.count for each in imported.dropped}
    output.result(
        {
            "read": imported.read,
            "paired": imported.paired,
            "usable": imported.usable,
            "documents": imported.documents,
            "dropped": reasons,
            "out": str(out),
        }
    )


@command.command(short_help="Print a tracing processor for the OpenAI Agents SDK.")
def processor() -> None:
    """Print a tracing processor for the OpenAI Agents SDK: a Python file for your agent's project.

    Use it if your agent is built with that SDK, whose own export leaves out the messages. The file
    needs no other package; it writes a log that `offapi traces import agents-sdk` reads.

    \b
    Example:
      offapi traces processor > agents_processor.py
    """
    from importlib.resources import files

    click.echo(
        files("offapi.data.importers").joinpath("agents_processor.py").read_text(encoding="utf-8"),
        nl=False,
    )


def _maps(given: tuple[str, ...]) -> dict[str, str]:
    """Return the paths given with --map, by name."""
    places: dict[str, str] = {}
    for each in given:
        name, equals, path = each.partition("=")
        if not equals or name in places:
            what = f"{name!r} is mapped twice." if equals else f"{each!r} has no path."
            raise ConfigError(
                what, where="--map", next_step="Write --map NAME=$.PATH, each name once."
            )
        places[name] = path
    return places


def _show_import(output: Output, imported: Imported) -> None:
    """Show what happened to the rows, warnings, samples, and where the traces are."""
    lost = sum(each.count for each in imported.dropped)

    output.say(
        f"{plural(imported.read, 'row')} read, {imported.usable:,} usable, {lost:,} dropped."
    )
    if imported.paired:
        entries = imported.read + imported.paired
        output.say(
            f"{plural(imported.paired, 'request is', 'requests are')} stored apart from the results:"
            f" {plural(entries, 'request')} and results make {plural(imported.read, 'row')}."
        )
    if imported.documents:
        output.say(
            f"Documents with a known answer (gold) and no model's answer: {imported.documents:,}. They"
            " are for the recipes sft and grpo, and for `offapi eval`."
        )
    if imported.dropped:
        rows = [
            (each.reason, f"{each.count:,}", _short(", ".join((each.first, *each.places[1:]))))
            for each in imported.dropped
        ]
        output.table(("dropped because", "rows", "first found in"), rows)
    for each in imported.dropped:
        if each.hint:
            output.say(f"{each.reason}: {each.hint}")
    if imported.nulls:
        output.say(
            f"{plural(imported.nulls, 'row')} with NaN or Infinity, which JSON does not have: read as"
            f" null (first in {imported.null_at})."
        )
    if imported.personal:
        from offapi.data.importers.worker import LOOKED_AT, SPARSE

        sample = f"the first {LOOKED_AT:,} rows of a file and one in {SPARSE} of the rest"
        kinds = ", ".join(
            f"{kind} ({plural(count, 'row')})" for kind, count in imported.personal.items()
        )
        output.say(
            f"Warning: rows seem to hold {kinds} (checked: {sample}). A model can learn and repeat"
            " what is in its traces."
        )
    output.table(("id", "asked", "answered"), _samples(imported.out))
    output.say(
        f"Traces: {imported.out}. Grade them with `offapi grade --task task.py --traces"
        f" {imported.out}`."
    )


def _samples(path: Path) -> list[tuple[str, str, str]]:
    """Return the beginnings of a few rows, spread over the file."""
    import orjson

    size, samples = path.stat().st_size, {}
    with path.open("rb") as file:
        for i in range(SAMPLES):
            file.seek(max(size * i // SAMPLES - 1, 0))
            if i:
                file.readline()  # the rest of a row
            line = file.readline()
            if line:
                id, asked, answer = _sample(orjson.loads(line))
                samples[id] = (_short(id), _short(asked), _short(answer))
    return list(samples.values())


def _sample(row: dict[str, Any]) -> tuple[str, str, str]:
    """Return a row's id, what was asked, and what was answered or is the known answer."""
    import orjson

    from offapi.data.traces import Trace

    if "document" in row:
        return row["id"], row["document"], orjson.dumps(row["gold"]).decode()
    trace = Trace(row["id"], tuple(row["messages"]))
    calls = [call["function"]["name"] for call in trace.messages[-1].get("tool_calls") or ()]
    return trace.id, trace.document, trace.answer or f"calls {', '.join(calls)}"


def _short(text: str) -> str:
    """Return the beginning of a text in one line, without what a terminal would obey."""
    from offapi.text.display import safe_line

    return safe_line(text[: 4 * SHOWN], SHOWN - len("..."))
