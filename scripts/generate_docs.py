"""Write the parts of docs/ that follow from the code.

They are `cli.md`, each recipe's table of keys, and the tables of kinds and checks: what `offapi
explain` prints. Left out: the site, which `scripts/docs` builds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import orjson
from click.testing import CliRunner

from offapi.checks.kinds import EXPLAINED
from offapi.cli import COMMANDS, cli
from offapi.explain.checks import explained_checks
from offapi.explain.recipe_keys import RECIPES, recipe_keys

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
WIDTH = 92  # of a help text, in characters


def commands() -> Iterator[tuple[str, ...]]:
    """Yield every command and subcommand, as the words that call it."""
    yield ()
    for name in COMMANDS:
        yield (name,)
        command = cli.get_command(click.Context(cli), name)
        if isinstance(command, click.Group):
            yield from ((name, inner) for inner in command.list_commands(click.Context(command)))


def cli_page() -> str:
    """Return docs/cli.md: the help text of every command."""
    parts = [
        "# Commands\n",
        "Made by `scripts/docs` from each command's `--help`. People read stderr; with `--json`"
        " programs read\none object on stdout. Exit codes: 0 done, 1 error, 2 usage or"
        " configuration, 3 ran but a gate failed,\n130 interrupted.\n",
    ]
    for words in commands():
        done = CliRunner().invoke(
            cli, [*words, "--help"], prog_name="offapi", terminal_width=WIDTH, env={"COLUMNS": "0"}
        )
        title = " ".join(("offapi", *words))
        parts.append(f"## {title}\n\n```text\n{done.output.rstrip()}\n```\n")
    return "\n".join(parts)


def keys_table(recipe: str) -> str:
    """Return a recipe's table of keys."""
    rows = []
    for key in recipe_keys(recipe):
        default = key.default if key.default in ("none", "must be given") else f"`{key.default}`"
        rows.append((f"`{key.name}`", key.type, default.replace(", ", "`, `"), key.meaning))
    return table(("key", "type", "default", "meaning"), rows)


def kinds_table() -> str:
    """Return the table of the kinds that `match` gives to fields."""
    rows = [
        (f"`{name}`", kind.equal, *(f"`{json(pair)}`" for pair in (kind.same, kind.different)))
        for name, kind in EXPLAINED.items()
    ]
    return table(("kind", "right if", "equal", "not equal"), rows)


def json(pair: tuple[Any, Any]) -> str:
    """Return an answer and gold as JSON."""
    answer, gold = (orjson.dumps(value).decode() for value in pair)
    return f"{answer}, {gold}"


def checks_table() -> str:
    """Return the table of all checks."""
    rows = [(f"`{check.call}`", check.meaning) for check in explained_checks()]
    return table(("check", "its score"), rows)


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a table in Markdown."""
    lines = [head, tuple("---" for _ in head), *rows]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return (
        "\n".join(f"| {' | '.join(line)} |" for line in cells)
        .replace("| --- ", "|---")
        .replace("--- |", "---|")
    )


def with_part(page: str, name: str, content: str) -> str:
    """Return the page with the part between the marks of `name` replaced."""
    start, end = f"<!-- {name}: made by scripts/docs -->", f"<!-- end of {name} -->"
    before, _, rest = page.partition(start)
    _, _, after = rest.partition(end)
    return f"{before}{start}\n\n{content}\n\n{end}{after}"


def pages() -> dict[Path, str]:
    """Return every page that is generated, wholly or in part, with its content."""
    generated = {DOCS / "cli.md": cli_page()}
    for recipe in RECIPES:
        path = DOCS / "recipes" / f"{recipe}.md"
        generated[path] = with_part(path.read_text("utf-8"), "keys", keys_table(recipe))
    path = DOCS / "tasks-and-checks.md"
    page = with_part(path.read_text("utf-8"), "kinds", kinds_table())
    generated[path] = with_part(page, "checks", checks_table())
    return generated


if __name__ == "__main__":
    for path, content in pages().items():
        path.write_text(content, "utf-8")
