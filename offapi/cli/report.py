"""`offapi report`: a run's report as one HTML or Markdown file."""

from __future__ import annotations

from pathlib import Path

import click

from offapi.cli.output import Output, options
from offapi.errors import ConfigError
from offapi.text.display import plural

FILE = click.Path(path_type=Path)


@click.command(short_help="Write a run's report as one HTML (or Markdown) file.")
@click.argument("runs", type=FILE, nargs=-1, required=True, metavar="RUN [RUN2 | FILE.jsonl]...")
@click.option("--md", "as_markdown", is_flag=True, help="Write Markdown instead of HTML.")
@click.option(
    "--out",
    type=FILE,
    help="File to write.  [default: RUN/report.html, or RUN/report.md with --md]",
)
@click.option(
    "--cost",
    "cost_file",
    type=FILE,
    help="JSON printed by `offapi cost --json`, to include the costs."
    "  [default: RUN/cost.json, if you saved it there]",
)
@click.option(
    "--no-documents",
    is_flag=True,
    help="Leave out the text of the documents. Ids, answers and gold answers stay, and may be confidential.",
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
    """Write a run's report: accuracy with 95% intervals, curves, samples, and how to reproduce it.

    Use it to look at a training run, or to show its result to others. RUN is the folder of a run or
    of a comparison. Further runs, or predictions files of `offapi eval` (.jsonl), are compared with
    it. The report is a single file and needs no network. It holds the text of the documents that
    are shown, so mind who gets it.

    \b
    Examples:
      offapi report runs/distill
      offapi report runs/grpo runs/sft base.jsonl --out report.html
    """
    from offapi.report.write import write_page

    if out is not None and not out.absolute().parent.is_dir():
        raise ConfigError(
            "the folder does not exist.",
            where=f"--out {out}",
            next_step="Create it, or name another.",
        )
    path = out or runs[0] / ("report.md" if as_markdown else "report.html")
    story, size = write_page(
        runs, path, cost_file=cost_file, as_markdown=as_markdown, documents=not no_documents
    )
    shown = (story.samples.first if as_markdown else story.samples.rows) if story.samples else ()
    documents = sum(row.document is not None for row in shown)
    held = f"with the text of {plural(documents, 'document')}" if documents else "without documents"
    output.say(f"Report: {path} ({size / 1000:,.0f} kB, {held}).")
    for note in () if no_documents or not story.samples else story.samples.notes:
        output.say(f"  {note}")
    output.result({"report": str(path), "bytes": size, "documents": documents})
