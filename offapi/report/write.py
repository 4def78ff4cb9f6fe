"""Write a report: read the runs, render the page, and put it in place as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from offapi.files import atomic
from offapi.report.render import html, markdown
from offapi.report.story import Story, make_story
from offapi.text.display import terminal_safe


def write_page(
    runs: Sequence[Path],
    path: Path,
    *,
    cost_file: Path | None = None,
    as_markdown: bool = False,
    documents: bool = True,
) -> tuple[Story, int]:
    """Write the report of `runs` to `path`; return its story and its size in bytes.

    Raise what reading and writing raise.
    """
    story = make_story(runs, cost_file=cost_file, with_documents=documents)
    page = terminal_safe((markdown if as_markdown else html).render(story)).encode()
    atomic.write_file(path, page)
    return story, len(page)
