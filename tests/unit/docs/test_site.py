"""The built site asks nothing of the network when it is read."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from pages import ROOT

LOADS = re.compile(
    r"<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href|srcset)=[\"']?(?:https?:)?//[^>]*>",
    re.I,
)
STYLE_LOADS = re.compile(r"(?:url\(|@import\s+)[\"']?(?:https?:)?//", re.I)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, built strictly: a broken link or a page outside the navigation fails."""
    if find_spec("mkdocs") is None or find_spec("material") is None:
        pytest.skip("the site's builder is not installed: pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir"]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [*command, str(folder)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    html = list(site.rglob("*.html"))
    assert len(html) > 20
    loads = {path.name: LOADS.findall(path.read_text("utf-8")) for path in html}
    assert {name: found for name, found in loads.items() if found} == {}
    styles = [path for path in site.rglob("*.css") if STYLE_LOADS.search(path.read_text("utf-8"))]
    assert styles == []


def test_search_needs_no_server(site: Path) -> None:
    assert (site / "search" / "search_index.js").stat().st_size > 10_000
    assert "assets/iframe-worker.js" in (site / "index.html").read_text("utf-8")


def test_loads_would_be_found() -> None:
    for text in (
        '<script src="https://unpkg.com/x"></script>',
        "<link rel=stylesheet href=//fonts.example/css>",
        '<img alt="x" src="http://example.com/a.png">',
    ):
        assert LOADS.search(text), text
    assert not LOADS.search('<a href="https://example.com">a link loads nothing</a>')
    assert STYLE_LOADS.search("src: url('https://fonts.example/x.woff2')")
