"""The recipes of a task folder: the packaged files, with the keys that this folder needs.

Comments and all other keys stay as they are. Left out: whether a model can be trained on this
machine, which `offapi doctor` says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources

import orjson

NAMES = ("sft", "distill", "filtered_sft", "grpo", "compare")
Keys = Mapping[str, str | float | bool | None]  # None: the line becomes a comment


def packaged(name: str) -> str:
    """Return the packaged file of a recipe."""
    path = resources.files("offapi.recipes") / "configs" / f"{name}.toml"
    return path.read_text(encoding="utf-8")


def with_keys(text: str, keys: Keys, table: str = "") -> str:
    """Return a recipe's text with `keys` of one table set; a key that it lacks is added.

    A line that is a comment (`# key = ...`) is used too; the remark after the value stays.
    """
    header = re.search(rf"^\[{table}\].*\n", text, re.MULTILINE) if table else None
    start = header.end() if header else 0
    before, (body, following) = text[:start], _split(text[start:])
    for key, value in keys.items():
        line = re.compile(rf"^(?:# )?{key} = .*?(?P<remark> +# .*)?$", re.MULTILINE)
        found = line.search(body)
        if found is None:
            if value is not None:
                body = body.rstrip("\n") + f"\n{key} = {_toml(value)}\n\n"
            continue
        if value is None:
            new = f"# {found[0].removeprefix('# ')}"
        else:
            new = f"{key} = {_toml(value)}{found['remark'] or ''}"
        body = body[: found.start()] + new + body[found.end() :]
    return before + body + following


def _split(text: str) -> tuple[str, str]:
    """Return what stands before the next table, and the rest."""
    at = re.search(r"^\[", text, re.MULTILINE)
    return (text[: at.start()], text[at.start() :]) if at else (text, "")


def _toml(value: str | float) -> str:
    return orjson.dumps(value).decode()
