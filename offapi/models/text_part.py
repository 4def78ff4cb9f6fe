"""The text part of a multimodal folder: its config and tensors, under a text model's own names.

Published folders differ in where the text model lies (`language_model.model.`,
`model.language_model.`); here its tensors become `model.` and `lm_head.`. Bytes are copied, so the
numbers stay. Left out: images and sound, and folders whose `text_config` names no type.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from offapi.errors import ModelError
from offapi.models.safe_folder import MODEL_TYPE
from offapi.models.weight_files import INDEX, check_header
from offapi.text.display import plural

INSIDE = "language_model."
HEAD = "lm_head."
# what a wrapper says of its text model too
SHARED = ("dtype", "torch_dtype", "tie_word_embeddings", "quantization", "quantization_config")
BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2}
CHUNK = 1 << 24  # bytes


@dataclass(frozen=True)
class TextPart:
    """What was taken from a multimodal folder of type `whole`, and how much was left out."""

    whole: str
    left_out: int  # tensors
    left_bytes: int

    def __str__(self) -> str:
        return (
            f"the text part of a {self.whole} model, without {plural(self.left_out, 'tensor')}"
            f" ({self.left_bytes / 1e6:.1f} MB) for images and other inputs"
        )


def rewrites(name: str) -> bool:
    """Return whether a file of that name is written anew for the text part."""
    return name in ("config.json", INDEX) or name.endswith(".safetensors")


def has_text_part(config: Mapping[str, Any]) -> bool:
    """Return whether the config is of a model that wraps a text model."""
    text = config.get("text_config")
    kind = text.get("model_type") if isinstance(text, dict) else None
    return isinstance(kind, str) and MODEL_TYPE.fullmatch(kind) is not None


def text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of the text model alone, with what only the wrapper says."""
    shared = {key: config[key] for key in SHARED if config.get(key) is not None}
    return shared | dict(config["text_config"])


def text_name(name: str) -> str | None:
    """Return the tensor's name in the text model, None if it belongs to another part."""
    before, found, after = name.partition(INSIDE)
    if found and before in ("", "model."):
        return after if after.startswith(("model.", HEAD)) else f"model.{after}"
    return name if name.startswith(HEAD) else None


def extract_text_part(source: Path, folder: Path) -> TextPart:
    """Write config and weights of the text part of `source` into `folder`.

    `source` has passed `check_folder`. Raise ModelError where no tensor is of a text model.
    """
    config = orjson.loads((source / "config.json").read_bytes())
    (folder / "config.json").write_bytes(orjson.dumps(text_config(config)))
    holds: dict[str, str] = {}
    left_out = left_bytes = 0
    for path in sorted(source.glob("model*.safetensors")):
        header = check_header(path)
        kept = {name: new for name in header if (new := text_name(name)) is not None}
        left_out += len(header) - len(kept)
        left_bytes += sum(_size(header[name]) for name in header if name not in kept)
        if kept:
            _copy(path, folder / path.name, kept)
            holds |= dict.fromkeys(kept.values(), path.name)
    if not holds:
        raise ModelError(
            "none of the folder's tensors belongs to a text model.",
            where=str(source),
            next_step="Use a text model, or a folder whose text model lies in `language_model.`.",
        )
    if (source / INDEX).is_file():
        (folder / INDEX).write_bytes(orjson.dumps({"metadata": {}, "weight_map": holds}))
    return TextPart(str(config.get("model_type")), left_out, left_bytes)


def _size(entry: tuple[str, tuple[int, ...]]) -> int:
    dtype, shape = entry
    return BYTES.get(dtype, 1) * math.prod(shape)


def _copy(source: Path, target: Path, kept: Mapping[str, str]) -> None:
    """Write the tensors `kept` (old name -> new) of one safetensors file, in the file's order."""
    with source.open("rb") as file, target.open("wb") as out:
        size = int.from_bytes(file.read(8), "little")
        whole = orjson.loads(file.read(size))
        names = sorted(kept, key=lambda name: whole[name]["data_offsets"][0])
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name in names:
            begin, stop = whole[name]["data_offsets"]
            start, end = end, end + stop - begin
            header[kept[name]] = whole[name] | {"data_offsets": [start, end]}
        text = orjson.dumps(header)
        text += b" " * (-len(text) % 8)
        out.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            begin, stop = whole[name]["data_offsets"]
            file.seek(8 + size + begin)
            for place in range(begin, stop, CHUNK):
                out.write(file.read(min(CHUNK, stop - place)))
