"""`--to fused`: base and adapter as one model in safetensors, for transformers, vLLM and others.

The files have the base's names, order and dtype; config.json is the base's. Left out: other dtypes
than the base's, which every tool can make on its own.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import orjson

from offapi.export.adapter_form import no_quantisation
from offapi.export.part import ExportedPart
from offapi.export.safetensors_file import read_layout, write_like
from offapi.export.source import ExportSource, merged_tensors, weight_files
from offapi.models.source import kept_files

GENERATION = "generation_config.json"
OPEN = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("OUT")
tokenizer = AutoTokenizer.from_pretrained("OUT")"""
OPEN_MLX = """\
from mlx_lm import load

model, tokenizer = load("OUT")"""


def bytes_on_disk(source: ExportSource, quantize: str | None) -> int:
    """Return the size. Raise ConfigError or ModelError where it cannot be written."""
    no_quantisation(quantize, "fused")
    source.require_plain()
    return sum(path.stat().st_size for path in fused_files(source))


def write_form(
    source: ExportSource, folder: Path, quantize: str | None
) -> tuple[ExportedPart, ...]:
    """Write the fused model; transformers opens it, or mlx-lm where torch is not installed."""
    del quantize
    write_fused(source, folder)
    if find_spec("torch") is None:
        opener, tool, how = "offapi.backends.mlx_backend.exported:open_fused", "mlx-lm", OPEN_MLX
    else:
        opener, tool, how = (
            "offapi.backends.torch_backend.exported:open_fused",
            "transformers",
            OPEN,
        )
    return (
        ExportedPart(
            what="fused model", tool=tool, opener=opener, how_to_open=how, dtype=source.dtype
        ),
    )


def write_fused(source: ExportSource, folder: Path) -> None:
    """Write the model's files: merged weights, and what the base has for tokens and templates."""
    for path in fused_files(source):
        if path.suffix != ".safetensors":
            shutil.copyfile(path, folder / path.name)
    write_stop_ids(source, folder)
    tensors = merged_tensors(source.base, source.adapter)
    for path in weight_files(source.base):
        count = len(read_layout(path))
        write_like(folder / path.name, path, islice(tensors, count))
    if rest := list(islice(tensors, 1)):  # runs to its end, which checks the adapter's layers
        raise ValueError(f"tensor {rest[0][0]!r} belongs to no file")


def write_stop_ids(source: ExportSource, folder: Path) -> None:
    """Name every id that ends a turn in generation_config.json, where all tools look for them."""
    path = folder / GENERATION
    known = orjson.loads(path.read_bytes()) if path.is_file() else {}
    known["eos_token_id"] = list(source.chat.stop_ids)
    path.write_bytes(orjson.dumps(known, option=orjson.OPT_INDENT_2))


def fused_files(source: ExportSource) -> list[Path]:
    """Return the base's files, less its own card."""
    return [path for path in kept_files(source.base) if not path.name.startswith("README")]
