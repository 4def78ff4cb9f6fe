"""The report as Markdown: the page's figures, its charts in words, and the first samples.

Documents, answers and names are escaped, so that no Markdown viewer reads them as markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from offapi.report.episodes import EpisodeSection
from offapi.report.render.charts import Chart
from offapi.report.render.table import Table
from offapi.report.run_files import Object
from offapi.report.samples import DocumentSample, Samples
from offapi.report.story import Story
from offapi.text.display import plural, shorten

MARKUP = re.compile(
    r"([\\`*_{}\[\]<>#|~$&@]|:(?=//)|^[-+=]|(?<=^\d)[.)])"
)  # a viewer would also link http://
SIGNS = {"good": "✓", "info": "·", "warn": "!", "bad": "✗"}
EPISODES = 3  # of each source
LONG, LONG_TEXT = 200, 2_000  # characters of a cell, and of a document or an answer


def render(story: Story) -> str:
    """Return the whole text."""
    return "\n".join(_lines(story)).rstrip() + "\n"


def _lines(story: Story) -> Iterator[str]:
    yield from (f"# {escape(story.title)}", "", escape(story.lede), "")
    for one in story.figures:
        yield (
            f"- **{escape(one.value)}**"
            f" {escape(one.name)}{f' ({escape(one.note)})' if one.note else ''}"
        )
    yield from ("", *(f"- {SIGNS[note.kind]} {escape(note.text)}" for note in story.notes), "")
    if story.comparison:
        yield from (
            "## Comparison",
            "",
            *_table(story.comparison.table),
            *_list(story.comparison.verdicts),
        )
    if story.accuracy:
        yield from ("## Accuracy", "", *_table(story.accuracy.table))
        for details in story.accuracy.details:
            yield from _table(details)
    for difference in story.differences:
        yield from (*_table(difference.table), *_list(difference.verdicts))
    yield from _charts("## Learning", story.learning)
    yield from _charts("## Health of GRPO", story.health)
    if story.gamed:
        yield from _table(story.gamed)
    if story.confidence:
        yield from ("## Confidence", "", *_list(story.confidence.lines))
        for table in story.confidence.tables:
            yield from _table(table)
        yield from _charts("", story.confidence.charts)
    if story.cost:
        yield from ("## Cost", "", escape(story.cost.verdict), "")
        for table in story.cost.tables:
            yield from _table(table)
        yield from _charts("", story.cost.charts)
    if story.samples:
        yield from _samples(story.samples)
    if story.episodes:
        yield from _episodes(story.episodes)
    yield from ("## Run details", "")
    if story.differing:
        yield from _table(story.differing)
    for table in (table for _, tables in story.details for table in tables):
        yield from _table(table)
    yield from ("## Reproduce", "")
    for command in story.commands:
        yield from (f"{escape(command.what)}:", "", *_code(command.text), "")
    yield f"Written by offapi {story.version}."


def escape(text: str) -> str:
    """Return `text` on one line, escaped so that no Markdown viewer reads it as markup."""
    return MARKUP.sub(r"\\\1", " ".join(text.split()))


def _samples(samples: Samples) -> Iterator[str]:
    failing = sum(row.fails for row in samples.first)
    flipped = f", {sum(row.flips for row in samples.first)} flipped" if samples.pair_note else ""
    counts = (
        f"{len(samples.first)} of {plural(samples.total, 'document')} are shown, {failing} of them"
        f" failing{flipped}."
    )
    notes = [note for note in (samples.pair_note, *samples.notes) if note]
    yield from ("## Samples", "", " ".join([counts, *map(escape, notes)]), "")
    for row in samples.first:
        yield from (f"### {escape(shorten(row.id, LONG))}", "")
        if row.document is not None:
            yield from (*_code(shorten(row.document, LONG_TEXT)), "")
        yield from _answers(row, samples)


def _episodes(section: EpisodeSection) -> Iterator[str]:
    """Write what episodes took, and the first of each source turn by turn."""
    yield from ("## Episodes", "")
    if section.table:
        yield from _table(section.table)
    for title, rows in section.sources:
        yield from (f"### {escape(title)}", "")
        for one in sorted(rows, key=lambda row: row.right)[:EPISODES]:
            yield from (f"{escape(shorten(one.name, LONG))} ({escape(one.facts)}):", "")
            for turn in one.turns:
                note = f" ({turn.note})" if turn.note else ""
                calls = [f"calls {name}: {arguments}" for name, arguments in turn.calls]
                said = "\n".join([turn.text, *calls] if turn.text else calls)
                yield from (escape(f"{turn.who}{note}:"), "")
                yield from (*_code(shorten(said, LONG_TEXT)), "")


def _answers(row: DocumentSample, samples: Samples) -> Iterator[str]:
    """Write the answers by field with the gold; as text if not JSON, or without gold."""
    pairs = zip(samples.systems, row.answers, strict=True)
    answered = [(name, answer) for name, answer in pairs if answer is not None]
    scored = [(name, answer) for name, answer in answered if answer.get("right")]
    if scored:
        rows = []
        for i, (field, gold) in enumerate(zip(samples.fields, row.gold, strict=True)):
            expected = "nothing" if gold is None else gold
            rows.append((field, expected, *(_field(answer, i) for _, answer in scored)))
        head = ("field", "expected", *(name for name, _ in scored))
        yield from _table(Table("", head, tuple(rows)))
    if row.expected is not None:
        yield from ("expected:", "", *_code(shorten(row.expected, LONG_TEXT)), "")
    for name, answer in answered:
        if answer.get("values") is None or samples.of_text:
            grade = "" if answer.get("grade") is None else f", grade {answer['grade']:.2f}"
            output = shorten(answer["output"], LONG_TEXT)
            yield from (f"{escape(name)}{grade}:", "", *_code(output), "")


def _field(answer: Object, i: int) -> str:
    """Return the answer's `i`-th field, and whether it is right."""
    right, values = answer["right"], answer["values"]
    if i >= len(right):
        return ""
    value = "not JSON" if values is None else "nothing" if values[i] is None else values[i]
    return f"{'✓' if right[i] else '✗'} {value}"


def _list(lines: Sequence[str]) -> list[str]:
    return [*(f"- {escape(line)}" for line in lines), ""]


def _charts(title: str, charts: Sequence[Chart]) -> Iterator[str]:
    if charts:
        yield from ([title, ""] if title else [])
        yield from (
            f"- **{escape(chart.title)}**{f' ({chart.unit})' if chart.unit else ''}:"
            f" {escape(chart.summary)}"
            for chart in charts
        )
        yield ""


def _table(table: Table) -> Iterator[str]:
    width = len(table.head) or len(table.rows[0])
    if table.title:
        yield from (f"### {escape(table.title)}", "")
    yield _row(table.head or ("",) * width)
    yield _row(("---",) * width, raw=True)
    yield from map(_row, table.rows)
    yield ""
    if table.note:
        yield from (escape(table.note), "")


def _row(cells: Sequence[str], *, raw: bool = False) -> str:
    shown = cells if raw else [escape(shorten(cell, LONG)) for cell in cells]
    return f"| {' | '.join(shown)} |"


def _code(text: str) -> Iterator[str]:
    """Fence `text` with more backticks than it has in a row."""
    most = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, most + 1)
    yield from (fence, text.rstrip("\n"), fence)
