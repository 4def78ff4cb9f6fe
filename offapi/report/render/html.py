"""The report as one HTML file that loads nothing.

Jinja and markupsafe escape every text, including the script's data. A content security policy
allows only the page's own style and script, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import orjson
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from offapi.report.story import Story

UNSAFE = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&'\u2028\u2029"}


def render(story: Story) -> str:
    """Return the whole file."""
    loader = PackageLoader("offapi.report.render", "templates")
    pages = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters["is_hash"] = is_hash
    style, script = (_source(loader, pages, name) for name in ("page.css", "page.js"))
    return pages.get_template("page.html").render(
        story=story,
        style=style,
        script=script,
        policy=policy(style, script),
        data=data(story.samples.as_dict()) if story.samples else "",
    )


def is_hash(text: str) -> bool:
    """Return whether a cell is a SHA-256, which stays on one line."""
    return re.fullmatch(r"[0-9a-f]{64}", text) is not None


def policy(style: str, script: str) -> str:
    """Return the content security policy that allows only `style` and `script`."""
    kept = "; ".join(
        f"{kind}-src 'sha256-{_hash(text)}'"
        for kind, text in (("style", style), ("script", script))
    )
    return f"default-src 'none'; {kept}; img-src data:; base-uri 'none'; form-action 'none'"


def data(value: Any) -> Markup:
    """Return `value` as JSON for a script element: nothing in it is markup or ends the element."""
    return Markup(orjson.dumps(value).decode().translate(UNSAFE))


def _source(loader: PackageLoader, pages: Environment, name: str) -> Markup:
    return Markup(loader.get_source(pages, name)[0])


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
