"""The adapter on disk: PEFT's layout, written and
read without PEFT, so that it moves between backends.

`adapter_config.json` + `adapter_model.safetensors`, keys
`base_model.model.<module>.lora_{A,B}.weight`. Left out: every PEFT type but LoRA on linears.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from safetensors.numpy import load, save

from offapi.backend import Arrays, LoraSpec
from offapi.errors import ModelError

PREFIX = "base_model.model."
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
NOT_PLAIN = ("use_dora", "use_rslora", "modules_to_save", "rank_pattern", "alpha_pattern")
AGAIN = "Export the adapter again."


def parameter(module: str, matrix: str) -> str:
    """PEFT's name of matrix "A" or "B" of `module`, a
    dotted path such as `model.layers.0.mlp.up_proj`.
    """
    return f"{PREFIX}{module}.lora_{matrix}.weight"


def module(name: str) -> str:
    """The dotted module path inside a PEFT parameter name."""
    return name.removeprefix(PREFIX).rsplit(".lora_", 1)[0]


def encode(adapter: Arrays, spec: LoraSpec, base: str = "") -> Mapping[str, bytes]:
    """File name -> content of an adapter folder. `base` is the locked base model's name."""
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": spec.rank,
        "lora_alpha": spec.alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted(spec.targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "inference_mode": True,
    }
    tensors = {
        name: np.ascontiguousarray(adapter[name], dtype=np.float32) for name in sorted(adapter)
    }
    weights: bytes = save(tensors, metadata={"format": "pt"})
    return {CONFIG: orjson.dumps(config, option=orjson.OPT_INDENT_2), WEIGHTS: weights}


def read_spec(folder: Path) -> LoraSpec:
    """The LoRA shape in `folder`.

    Raises ModelError for what this backend-neutral reader cannot honour.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ModelError(
            "no adapter here.", where=str(folder), next_step=f"An adapter folder holds {CONFIG}."
        )
    try:
        config: dict[str, Any] = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ModelError(f"not valid JSON ({error}).", where=str(path), next_step=AGAIN) from None
    refused = [key for key in NOT_PLAIN if config.get(key)]
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none" or refused:
        raise ModelError(
            "only plain LoRA adapters are supported; this one has"
            f" {', '.join(refused) or config.get('peft_type')}.",
            where=str(path),
            next_step="Export it as plain LoRA (no DoRA, rsLoRA, biases or patterns).",
        )
    targets = config.get("target_modules")
    if not isinstance(targets, list) or not isinstance(config.get("r"), int):
        raise ModelError(
            "`r` and a list of `target_modules` are needed.", where=str(path), next_step=AGAIN
        )
    try:
        return LoraSpec(
            rank=config["r"], alpha=float(config["lora_alpha"]), targets=tuple(sorted(targets))
        )
    except ValueError as error:
        raise ModelError(f"{error}.", where=str(path), next_step=AGAIN) from None


def read(folder: Path) -> tuple[LoraSpec, Arrays]:
    """Shape and fp32 arrays of the adapter in `folder`.

    Raises ModelError when it is missing or damaged.
    """
    spec = read_spec(folder)
    path = folder / WEIGHTS
    try:
        tensors = load(path.read_bytes())
    except FileNotFoundError:
        raise ModelError(f"{WEIGHTS} is missing.", where=str(folder), next_step=AGAIN) from None
    except Exception as error:
        raise ModelError(
            f"damaged safetensors ({error}).", where=str(path), next_step=AGAIN
        ) from error
    bad = [
        name for name in tensors if ".lora_A.weight" not in name and ".lora_B.weight" not in name
    ]
    if bad or not tensors:
        raise ModelError(
            f"not a LoRA adapter: {bad[:3] or 'no tensors'}.", where=str(path), next_step=AGAIN
        )
    return spec, {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
