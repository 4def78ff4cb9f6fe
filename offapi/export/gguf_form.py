"""`--to gguf`: base and adapter as one GGUF file, with a Modelfile for Ollama.

`--quantize` names a type that the `gguf` package can write; without it, the file keeps the base's
dtype. Left out: an importance matrix, and files in several parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from offapi.episodes import Floats
from offapi.export.gguf_fields import find_architecture
from offapi.export.gguf_file import write_gguf
from offapi.export.gguf_tensors import BITS, Shapes, check_kind, plan_tensors, stored_bytes
from offapi.export.llama_cpp import FILE, require_llama_cpp
from offapi.export.modelfile import write_modelfile
from offapi.export.part import ExportedPart
from offapi.export.safetensors_file import read_layout
from offapi.export.source import ExportSource, merged_tensors, weight_files
from offapi.models.normal_config import normalise_config

KINDS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
UNROUNDED = "unrounded"  # the folder of a file that is removed once it has passed
OPEN = """\
llama-cli -m OUT/model.gguf
ollama create NAME -f OUT/Modelfile"""


def bytes_on_disk(source: ExportSource, quantize: str | None) -> int:
    """Return the size. Raise where llama.cpp is missing, or would compute something else."""
    require_llama_cpp()
    source.require_plain()
    config, shapes, where = _config(source), _shapes(source), str(source.base)
    architecture = find_architecture(config, where)
    total = 0
    for kind in _kinds(source, quantize):
        plans = plan_tensors(config, shapes, architecture, kind, where)
        total += sum(map(stored_bytes, plans.values()))
    return total


def write_form(
    source: ExportSource, folder: Path, quantize: str | None
) -> tuple[ExportedPart, ...]:
    """Write the GGUF file and the Modelfile; llama.cpp opens the file.

    One of few bits is preceded by one in the base's dtype, which must compute the same: few bits
    would hide a wrong rotation, or rows in a wrong order.
    """
    write_modelfile(folder, FILE, source.chat, _config(source))
    *before, kind = _kinds(source, quantize)
    parts = [_write(source, folder, UNROUNDED, each) for each in before]
    return (*parts, _write(source, folder, ".", kind))


def _write(source: ExportSource, folder: Path, inside: str, kind: str) -> ExportedPart:
    path = folder / inside / FILE
    path.parent.mkdir(exist_ok=True)
    write_gguf(
        path, _config(source), source.chat, _shapes(source), _tensors(source), kind, source.name
    )
    architecture = find_architecture(_config(source), str(source.base))
    dtypes = {kind: dtype for dtype, kind in KINDS.items()}
    temporary = inside == UNROUNDED
    return ExportedPart(
        what="GGUF file before quantisation" if temporary else "GGUF file",
        tool="llama.cpp",
        opener="offapi.export.llama_cpp:open_gguf",
        how_to_open=OPEN,
        dtype=dtypes.get(kind, "float16"),
        bits=BITS.get(kind),
        # llama.cpp looks GELU up in a table of 16 bits
        rounds=kind in ("f16", "bf16") or "hidden_activation" in architecture.constants,
        folder=inside,
        temporary=temporary,
    )


def _kinds(source: ExportSource, quantize: str | None) -> list[str]:
    """Return the types of the files to write, the exported one last."""
    kept = KINDS[source.dtype]
    kind = (quantize or kept).lower()
    check_kind(kind)
    return [kept, kind] if kind in BITS else [kind]


def _shapes(source: ExportSource) -> Shapes:
    """Return name -> shape in the order in which `merged_tensors` gives them."""
    tied = bool(_config(source)["tie_word_embeddings"])
    return {
        name: shape
        for name, shape in _stored(source).items()
        if not (tied and name == "lm_head.weight") and not name.endswith("rotary_emb.inv_freq")
    }


def _tensors(source: ExportSource) -> Iterator[tuple[str, Floats]]:
    """Yield the tensors of `_shapes`: others, as a copy of a tied head, are not computed with."""
    wanted = _shapes(source)
    merged = merged_tensors(source.base, source.adapter)
    return ((name, tensor) for name, tensor in merged if name in wanted)


def _stored(source: ExportSource) -> Shapes:
    layouts = [read_layout(path) for path in weight_files(source.base)]
    return {tensor.name: tensor.shape for layout in layouts for tensor in layout}


def _config(source: ExportSource) -> Mapping[str, Any]:
    return normalise_config(source.config, _stored(source), str(source.base))
