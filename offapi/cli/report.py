"""`offapi report`: what became of a run, as one HTML file or as Markdown."""

from __future__ import annotations

from pathlib import Path

import click

from offapi.cli.output import Output, options
from offapi.errors import ConfigError

FILE = click.Path(path_type=Path)


@click.command(short_help="Write what became of a run as one HTML file, or as Markdown.")
@click.argument("runs", type=FILE, nargs=-1, required=True, metavar="RUN [RUN2 | FILE.jsonl]...")
@click.option("--md", "as_markdown", is_flag=True, help="Markdown instead of HTML.")
@click.option(
    "--out", type=FILE, help="Where it goes.  [default: RUN/report.html, or RUN/report.md]"
)
@click.option(
    "--cost",
    "cost_file",
    type=FILE,
    help="What `offapi cost --json` printed.  [default: RUN/cost.json]",
)
@click.option(
    "--no-documents",
    is_flag=True,
    help="Leave the documents' text out; ids, answers and gold stay.",
)
@options
def command(
    output: Output,
    *,
    runs: tuple[Path, ...],
    as_markdown: bool,
    out: Path | None,
    cost_file: Path | None,
    no_documents: bool,
) -> None:
    """Write what became of a run: figures with intervals, curves, samples, and how to make it again.

    More runs, or predictions files (.jsonl), are shown beside the first, whose answers are compared
    with theirs. The file needs no network and nothing beside it. The documents are in it, where the
    run can still read them: mind who gets it.

    \b
    offapi report runs/distill
    offapi report runs/grpo runs/sft base.jsonl --out report.html
    """
    from offapi.report.write import write_page

    if out is not None and not out.absolute().parent.is_dir():
        raise ConfigError(
            "there is no such folder.", where=f"--out {out}", next_step="Make it, or name another."
        )
    path = out or runs[0] / ("report.md" if as_markdown else "report.html")
    story, size = write_page(
        runs, path, cost_file=cost_file, as_markdown=as_markdown, documents=not no_documents
    )
    shown = (story.samples.first if as_markdown else story.samples.rows) if story.samples else ()
    documents = sum(row.document is not None for row in shown)
    told = f", {documents} documents in it" if documents else ", no documents in it"
    output.say(f"Report: {path} ({size / 1000:,.0f} kB{told}).")
    for note in () if no_documents or not story.samples else story.samples.notes:
        output.say(f"  {note}")
    output.result({"report": str(path), "bytes": size, "documents": documents})
