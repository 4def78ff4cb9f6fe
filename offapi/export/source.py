"""What is exported: a base model, the adapter on it, and the run that trained it.

`merged_tensors` gives the weights of both as one model, a tensor at a time. Left out: merging into
a base that is stored quantised, which would round its weights a second time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from offapi import adapter as adapters
from offapi.chat.chat import Chat
from offapi.episodes import Floats
from offapi.errors import ModelError
from offapi.export.safetensors_file import NAMES, read_layout, read_tensor
from offapi.model_spec import Limits, ModelSpec
from offapi.optimizer import Arrays
from offapi.predict.answering_model import AnsweringModel
from offapi.task import Task, load_task
from offapi.training.base_bits import TrainedBits
from offapi.training.run import Run

ROWS = 8  # answers decoded side by side, whose keys and values take memory
COARSEST = ("bfloat16", "float16", "float32")


@dataclass(frozen=True)
class ExportSource:
    """A model that answers, and what of it an export needs."""

    answering: AnsweringModel

    @classmethod
    def of(cls, name: str | Path, *, as_trained: bool = False) -> ExportSource:
        """Return what `name` means: a run's folder, an adapter in it, or a model.

        The base is in the bits of the training with `as_trained`, and else as it is stored.
        Raise RunError, ModelError or ConfigError for what cannot be used.
        """
        return cls(AnsweringModel.of(name, bits="trained" if as_trained else None))

    @property
    def name(self) -> str:
        """The run's name, or the model's."""
        run = self.run
        return run.path.name if run else self.answering.model.name

    @property
    def base(self) -> Path:
        """The folder of the base model."""
        return self.answering.model.path

    @property
    def adapter(self) -> Path | None:
        """The folder of the adapter; None for a model alone."""
        return self.answering.adapter

    @property
    def run(self) -> Run | None:
        """The run that trained the adapter."""
        return self.answering.run

    @property
    def spec(self) -> ModelSpec:
        """What a backend loads to compute with it, in float32."""
        limits, bits = Limits(rollout_rows=ROWS), self.answering.quantize
        return ModelSpec(path=self.base, adapter=self.adapter, quantize=bits, limits=limits)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The base model's config.json."""
        config: dict[str, Any] = orjson.loads((self.base / "config.json").read_bytes())
        return config

    @cached_property
    def task(self) -> Task | None:
        """The run's task; None where there is none. Raise what loading it raises."""
        file = self.answering.task_file
        return load_task(file) if file is not None else None

    @cached_property
    def chat(self) -> Chat:
        """The base model's tokenizer, template and end-of-turn ids."""
        return Chat.load(self.base)

    @cached_property
    def run_chat(self) -> Chat:
        """The same, with what the run gave the template."""
        return Chat.load(self.base, recorded=self.answering.options)

    @property
    def trained(self) -> TrainedBits:
        """The bits of the base in the training, which no stored file shows."""
        return self.answering.trained_bits

    @property
    def trained_dtype(self) -> str:
        """The dtype that the run computed in; the base's own where no run says."""
        config = self.run.manifest.get("config", {}) if self.run else {}
        dtype = config.get("dtype")
        return dtype if dtype in COARSEST else self.dtype

    @property
    def quantised(self) -> bool:
        """Whether the base is stored quantised, by MLX or bitsandbytes."""
        return bool(self.config.get("quantization") or self.config.get("quantization_config"))

    @property
    def only_backend(self) -> str | None:
        """The backend that opens a base which is stored quantised; None: any."""
        if not self.quantised:
            return None
        return "mlx" if self.config.get("quantization") else "torch"

    def require_opener(self, backend: str, form: str) -> None:
        """Raise ModelError where the base is stored in bits that the form's tool cannot open."""
        if self.only_backend not in (None, backend):
            raise ModelError(
                f"the base model is stored quantised for {self.only_backend}, which no tool for"
                f" --to {form} opens.",
                where=str(self.base),
                next_step=f"Export --to {'mlx' if self.only_backend == 'mlx' else 'adapter'}.",
            )

    @cached_property
    def dtype(self) -> str:
        """The coarsest dtype among the base's weights: float32, float16 or bfloat16."""
        layouts = [read_layout(path) for path in weight_files(self.base)]
        found = {NAMES[tensor.dtype] for layout in layouts for tensor in layout}
        return next(name for name in COARSEST if name in found)

    @cached_property
    def parameters(self) -> int:
        """The number of weights of the base, as they lie in memory when it is loaded."""
        layouts = [read_layout(path) for path in weight_files(self.base)]
        return sum(prod(tensor.shape) for layout in layouts for tensor in layout)

    def require_plain(self) -> None:
        """Raise ModelError where the base is stored quantised."""
        if self.quantised:
            raise ModelError(
                "an adapter cannot be merged into a base model that is stored quantised.",
                where=str(self.base),
                next_step="Export the adapter alone, or train on the base in full precision.",
            )


def weight_files(base: Path) -> list[Path]:
    """Return the files of a model folder that hold its weights, in the order of their names."""
    return sorted(base.glob("model*.safetensors"))


def merged_tensors(base: Path, adapter: Path | None) -> Iterator[tuple[str, Floats]]:
    """Yield each tensor of the model by name, in float32: W, or W + scale * B @ A.

    They come file by file (`weight_files`), in the order of their bytes. Cast to the base's dtype
    only what is written, since rounding comes last. Raise ModelError for an adapter that does not
    fit.
    """
    deltas = Deltas.of(adapter) if adapter is not None else None
    used: set[str] = set()
    for path in weight_files(base):
        for tensor in read_layout(path):
            numbers = read_tensor(path, tensor)
            layer = tensor.name.removesuffix(".weight")
            if deltas is not None and layer in deltas.layers:
                numbers = deltas.merged(layer, numbers, base)
                used.add(layer)
            yield tensor.name, numbers
    if deltas is not None and (unused := sorted(deltas.layers - used)):
        what = f"the adapter does not fit the model, which has no layer {unused[0]!r}."
        raise ModelError(what, where=str(adapter), next_step=FIT)


FIT = "Load the adapter on the base model that it was trained on."


@dataclass(frozen=True)
class Deltas:
    """What an adapter adds to each layer's weight."""

    modules: Mapping[str, adapters.ModuleLora]
    arrays: Arrays

    @classmethod
    def of(cls, adapter: Path) -> Deltas:
        """Read an adapter. Raise ModelError where it is missing, damaged or refused."""
        shape, arrays = adapters.read(adapter)
        return cls(adapters.resolve_arrays(shape, arrays, adapter), arrays)

    @cached_property
    def layers(self) -> set[str]:
        """The dotted paths of the adapted layers."""
        return set(self.modules)

    def merged(self, layer: str, weight: Floats, base: Path) -> Floats:
        """Return W + scale * B @ A, with DoRA at its rows' trained lengths.

        Raise ModelError where the adapter's shape is not the weight's.
        """
        a, b = (self.arrays[adapters.parameter(layer, matrix)] for matrix in "AB")
        delta: Floats = (b @ a) * np.float32(self.modules[layer].scale)
        if delta.shape != weight.shape:
            what = f"the adapter has shape {delta.shape} for {layer!r}, the model {weight.shape}."
            raise ModelError(what, where=str(base), next_step=FIT)
        merged: Floats = weight + delta
        wanted = self.arrays.get(adapters.magnitude(layer))
        if wanted is not None:
            lengths = np.linalg.norm(merged, axis=1)
            merged *= (wanted / lengths)[:, None]
        return merged
