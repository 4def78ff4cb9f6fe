"""What README and docs/ say holds: their Python runs, their commands exist, their links lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from pages import DOCS, ROOT, Block, blocks, pages

from offapi.cli import COMMANDS, cli

BLOCKS = [block for page in pages() for block in blocks(page)]
NEEDS_A_RUN = "needs a run"  # a block that tests/e2e runs where there is one
PYTHON = [block for block in BLOCKS if block.language == "python" and block.title != NEEDS_A_RUN]
SHELL = [block for block in BLOCKS if block.language == "sh"]
LANGUAGES = {"sh", "python", "toml", "json", "text"}
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
INLINE = re.compile(r"`([^`\n]+)`")
FOLDERS = ("offapi/", "backends/", "recipes/", "scripts/", "tests/", "docs/", ".ci/")
README_LINES = 120


def names(block: Block) -> str:
    return block.name


@pytest.mark.parametrize("block", PYTHON, ids=names)
def test_python_runs(block: Block) -> None:
    exec(compile(block.text, str(block.page), "exec"), {"__name__": "page"})


@pytest.mark.parametrize("block", SHELL, ids=names)
def test_commands_parse(block: Block) -> None:
    """Click itself reads each `offapi` line; scripts that are named exist."""
    assert block.commands, "a shell block holds commands"
    for words in block.commands:
        program = words[0].removeprefix(".venv/bin/")
        if program == "offapi":
            parse(words[1:])
        elif program == "python" or words[0].startswith("./"):
            script = words[1] if program == "python" else words[0]
            assert (ROOT / script).is_file(), script


def parse(words: list[str]) -> click.Context:
    """Parse a command line as `offapi` does, without running it."""
    command: click.Command = cli
    context = click.Context(cli, info_name="offapi")
    while isinstance(command, click.Group) and words:
        name, found, words = command.resolve_command(context, words)
        assert found is not None, name
        command, context = found, click.Context(found, parent=context, info_name=name)
    return command.make_context(context.info_name, list(words), parent=context.parent)


def test_parse_refuses_what_the_command_would() -> None:
    for words in (["trian", "x.toml"], ["train"], ["train", "x.toml", "--sett", "a=1"]):
        with pytest.raises(click.UsageError):
            parse(words)


def inline() -> Iterator[tuple[Path, str]]:
    """Every piece of inline code, with its page; fenced blocks left out."""
    for page in pages():
        text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text("utf-8"), flags=re.M | re.S)
        yield from ((page, code) for code in INLINE.findall(text))


def test_inline_commands_and_options_exist() -> None:
    for page, code in inline():
        words = code.removeprefix(".venv/bin/").split()
        if words[0] != "offapi" or len(words) == 1 or words[1].startswith("-"):
            continue
        assert words[1] in COMMANDS, (page, code)
        command = cli.get_command(click.Context(cli), words[1])
        assert command is not None
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words[2:] if word.startswith("--")} <= known, (page, code)


def test_named_files_exist() -> None:
    named = {
        (page, code)
        for page, code in inline()
        if code.startswith(FOLDERS) and re.fullmatch(r"[\w./*-]+", code)
    }
    assert len(named) > 20
    missing = [(page, code) for page, code in named if not list(ROOT.glob(code.rstrip("/")))]
    assert missing == []


def test_links_lead_somewhere() -> None:
    for page in pages():
        for link in LINK.findall(page.read_text("utf-8")):
            path, _, anchor = link.partition("#")
            assert not path.startswith(("http:", "https:")), f"{page}: {link} needs a network"
            target = (page.parent / path).resolve() if path else page
            assert target.is_file(), f"{page}: {link}"
            assert not anchor or anchor in anchors(target), f"{page}: {link}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as Markdown makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.M)
    plain = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings)
    return {re.sub(r"[-\s]+", "-", heading) for heading in plain}


def test_blocks_name_a_known_language() -> None:
    assert {block.language for block in BLOCKS} <= LANGUAGES
    opened = sum(page.read_text("utf-8").count("```") for page in pages())
    assert opened == 2 * len(BLOCKS), "each fence is opened and closed in its own line"


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= README_LINES


def test_readme_lists_every_command() -> None:
    table = re.findall(r"^\| `(\w+)` \| ", (ROOT / "README.md").read_text("utf-8"), re.M)
    assert set(table) >= set(COMMANDS)


def test_every_page_is_in_the_navigation() -> None:
    nav = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:")[2]
    listed = re.findall(r"- ([\w/-]+\.md)$", nav, re.M)
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_architecture_names_every_package() -> None:
    page = (DOCS / "architecture.md").read_text("utf-8")
    packages = [path.parent.name for path in (ROOT / "offapi").glob("*/__init__.py")]
    assert [name for name in packages if f"`{name}/`" not in page] == []
