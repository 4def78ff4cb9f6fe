"""The JSON files of a model folder: of a limited size, and with nothing that runs code.

Left out: what the settings mean (`normal_config`), and the tokenizer's behaviour
(`offapi.chat.template_probe`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from offapi.errors import ModelError
from offapi.text.display import plural

MAX_TEMPLATE = 100_000  # bytes
MAX_JSON = {
    "tokenizer.json": 64_000_000,
    "model.safetensors.index.json": 64_000_000,
    "vocab.json": 64_000_000,
}
MAX_OTHER_JSON = 4_000_000  # bytes
CODE_KEYS = (
    "auto_map",
    "model_file",
    "custom_pipeline",
    "custom_pipelines",
    "trust_remote_code",
    "_attn_implementation_internal",
)
# With these, transformers reads other files than the ones that are checked and stored.
FILE_KEYS = ("configuration_files", "fast_tokenizer_files", "transformers_weights")
SOURCE = "Take the model from somewhere you trust, or ask its author for plain safetensors."


def read_json(path: Path) -> Any:
    """Return the parsed file. Raise ModelError when it is too large or not JSON."""
    limit = MAX_JSON.get(path.name, MAX_OTHER_JSON)
    if path.stat().st_size > limit:
        raise ModelError(
            f"the file must not exceed {plural(limit, 'byte')}.",
            where=str(path),
            next_step=SOURCE,
        )
    try:
        return orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ModelError(
            f"the file is not valid JSON ({error}).",
            where=str(path),
            next_step="Copy the file again.",
        ) from None


def read_object(path: Path) -> dict[str, Any]:
    """Return the file's JSON object, {} where there is no file. Raise ModelError for another."""
    value = read_json(path) if path.is_file() else {}
    if not isinstance(value, dict):
        raise ModelError(
            f"the file must be a JSON object, got {type(value).__name__}.",
            where=str(path),
            next_step="Copy the file again.",
        )
    return value


def check_settings(value: Any, path: Path) -> None:
    """Raise ModelError for a setting, at any depth, that makes a loader read or run what it names.

    That is code, a kernel of the hub, or files that were not checked.
    """
    if path.name in ("tokenizer.json", "vocab.json"):
        return
    for key, entry in _items(value):
        hub = "implementation" in key and isinstance(entry, str) and "/" in entry
        if (key in CODE_KEYS and entry not in (None, False)) or hub:
            raise ModelError(
                f"`{key}` asks the loader to run code.", where=str(path), next_step=SOURCE
            )
        if key in FILE_KEYS and entry is not None:
            raise ModelError(
                f"`{key}` makes a loader read other files than the usual ones.",
                where=str(path),
                next_step=f"Remove the key, if the model is whole without it. {SOURCE}",
            )
        if key == "chat_template" and len(orjson.dumps(entry)) > MAX_TEMPLATE:
            raise ModelError(
                f"the chat template exceeds {MAX_TEMPLATE} bytes.",
                where=str(path),
                next_step=SOURCE,
            )


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key with its value, at any depth; JSON may be deeper than Python can recurse."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield from each.items()
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
