"""A count and its noun agree, everywhere in the code: `1 row`, `2 rows`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from offapi.text.display import plural

ROOT = Path(__file__).parents[3]
FOLDERS = ("offapi", "recipes", "backends")
# What is counted in messages. Measures (points, nats, months, GiB) keep their plural.
NOUNS = (
    "answer|attempt|byte|character|check|completion|connection|document|draw|duplicate|episode|"
    "evaluation|example|field|file|group|host|hour|input|item|label|line|machine|minute|model|"
    "pair|prompt|question|record|reply|request|reward|row|run|sample|scoring|second|signal|step|"
    "student|system|token|tool call|trace"
)
AFTER = re.compile(rf" (?:[a-z][a-z-]* )?(?:{NOUNS})s\b")
# A fixed number above 1, a share in percent, or a name that does something.
FIXED = re.compile(r"^[A-Z_.]+$|\.[A-Z_]+$|100 \*|^(name|server)$")


def counts(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and text of every count that is followed by a plural, whatever its value."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.JoinedStr):
            continue
        for value, text in zip(node.values, node.values[1:], strict=False):
            if not (isinstance(value, ast.FormattedValue) and isinstance(text, ast.Constant)):
                continue
            decimals = value.format_spec is not None and "," not in ast.unparse(value.format_spec)
            said, shown = ast.unparse(value.value), AFTER.match(str(text.value))
            named = value.conversion != -1 or said.startswith(("plural(", "'", "_about("))
            if shown and not (decimals or named or FIXED.search(said)):
                yield node.lineno, f"{{{said}}}{shown[0]}"


def test_a_count_and_its_noun_agree() -> None:
    assert [plural(n, "row") for n in (0, 1, 2, 1200)] == [
        "0 rows",
        "1 row",
        "2 rows",
        "1,200 rows",
    ]
    assert plural(1, "row is", "rows are") == "1 row is"
    assert plural(3, "row is", "rows are") == "3 rows are"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('f"{n} rows"', ["{n} rows"]),
        ('f"This run: {tally.asked:,} answers"', ["{tally.asked} answers"]),
        ('f"{k} of {len(rows)} test documents"', ["{len(rows)} test documents"]),
        ("f\"{plural(n, 'row')} and {MANY} rows, {x:.1f} hours, {name!r} fields\"", []),
        ('f"{100 * share} points, {n} rowsome"', []),
    ],
)
def test_plurals_are_found(source: str, found: list[str]) -> None:
    assert [text for _, text in counts(source)] == found


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_message_says_one_rows(folder: str) -> None:
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert paths
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in paths
        for line, text in counts(path.read_text())
    ]
    assert found == []
