"""What `scripts/docs` writes into docs/ is what the code says now."""

from __future__ import annotations

from pathlib import Path

import generate_docs
import pytest
from pages import DOCS

from offapi.explain.recipe_keys import KEYS, RECIPES, recipe_keys

AGAIN = "run ./scripts/docs"


@pytest.mark.parametrize("path", generate_docs.pages(), ids=lambda path: path.name)
def test_pages_are_up_to_date(path: Path) -> None:
    made = generate_docs.pages()[path]
    assert path.read_text("utf-8") == made, AGAIN


def test_every_command_is_on_the_page() -> None:
    page = (DOCS / "cli.md").read_text("utf-8")
    for words in generate_docs.commands():
        assert f"## {' '.join(('offapi', *words))}\n" in page


def test_no_description_is_of_a_key_that_is_gone() -> None:
    described = set()
    for recipe in RECIPES:
        described |= {key.name for key in recipe_keys(recipe)}
    assert set(KEYS) <= described
