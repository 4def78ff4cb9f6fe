"""`--to adapter`: the adapter as it is, in PEFT's layout, opened by peft and transformers.

Left out: the base model, which the card names by the hash of its weights.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import orjson

from offapi import adapter as adapters
from offapi.errors import ConfigError
from offapi.export.part import ExportedPart
from offapi.export.source import ExportSource

OPEN = """\
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("BASE")
model = PeftModel.from_pretrained(base, "OUT")"""


def require_adapter(source: ExportSource) -> Path:
    """Return the adapter's folder. Raise ConfigError for a model without one."""
    if source.adapter is None:
        step = "Name a run, or an adapter in it."
        raise ConfigError("a model alone has no adapter to export.", next_step=step)
    return source.adapter


def no_quantisation(quantize: str | None, form: str) -> None:
    """Raise ConfigError where a form that is never quantised is to be."""
    if quantize is not None:
        step = "Leave --quantize out, or export --to mlx or --to gguf."
        raise ConfigError(f"--quantize does not go with --to {form}.", next_step=step)


def bytes_on_disk(source: ExportSource, quantize: str | None) -> int:
    """Return the size. Raise ConfigError where there is no adapter, or where it is quantised."""
    no_quantisation(quantize, "adapter")
    source.require_opener("torch", "adapter")
    return adapters.weights_file(require_adapter(source)).stat().st_size


def write_form(
    source: ExportSource, folder: Path, quantize: str | None
) -> tuple[ExportedPart, ...]:
    """Copy the adapter, and write the hash of its base where the adapter does not say it yet."""
    del quantize
    adapter = require_adapter(source)
    shape, arrays = adapters.read(adapter)  # damaged files are refused
    if (adapter / adapters.WEIGHTS).is_file():
        shutil.copyfile(adapter / adapters.WEIGHTS, folder / adapters.WEIGHTS)
        config = orjson.loads((adapter / adapters.CONFIG).read_bytes())
    else:  # mlx-lm's
        files = adapters.encode(arrays, shape)
        (folder / adapters.WEIGHTS).write_bytes(files[adapters.WEIGHTS])
        config = orjson.loads(files[adapters.CONFIG])
    config["base_model_name_or_path"] = source.answering.model.name
    (folder / adapters.CONFIG).write_bytes(orjson.dumps(config, option=orjson.OPT_INDENT_2))
    opener = "offapi.backends.torch_backend.exported:open_adapter"
    return (
        ExportedPart(what="adapter", tool="peft", opener=opener, how_to_open=OPEN, dtype="float32"),
    )
