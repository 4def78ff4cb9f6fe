"""`offapi traces purge`: take answers that a server kept out of their file, for good."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from offapi.cli.output import Output, options
from offapi.text.display import plural


@click.command("purge", short_help="Remove answers that `offapi serve --traces` kept.")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--before",
    type=click.DateTime(),
    metavar="DATE",
    help="Remove what was answered before this time (UTC), such as 2026-11-01 or 2026-11-01T12:00:00.",
)
@click.option(
    "--older-than",
    type=click.FloatRange(0),
    metavar="DAYS",
    help="Remove what was answered more than this many days ago.",
)
@click.option(
    "--id", metavar="ID", help="Remove the answer with this id, all choices of a response."
)
@click.option("--all", "everything", is_flag=True, help="Remove all answers.")
@options
def purge_command(
    output: Output,
    *,
    folder: Path,
    before: datetime | None,
    older_than: float | None,
    id: str | None,
    everything: bool,
) -> None:
    """Remove answers that `offapi serve --traces DIR` kept, so that no byte of them stays in DIR.

    Use it when someone asks for their data to be deleted. The server may be running. Copies are not
    found: graded files, folders that `offapi init --from DIR` made, and backups are yours to
    delete, and a model may remember what it was trained on.

    \b
    Examples:
      offapi traces purge kept --older-than 30
      offapi traces purge kept --id chatcmpl-7f3a
      offapi traces purge kept --all
    """
    from offapi.data.captured_purge import Purge, purge

    given = (before is not None, older_than is not None, id is not None, everything)
    if sum(given) != 1:
        raise click.UsageError("Name one of --before, --older-than, --id and --all.")
    if older_than is not None:
        before = datetime.now(UTC) - timedelta(days=older_than)
    limit = None if before is None else before.replace(tzinfo=UTC).timestamp()
    purged = purge(folder, Purge(limit, id))
    output.say(f"Removed {plural(purged.removed, 'answer')}; {purged.left:,} left.")
    output.result({"removed": purged.removed, "left": purged.left})
