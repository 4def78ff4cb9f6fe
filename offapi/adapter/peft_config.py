"""PEFT's adapter_config.json: the LoRA shape that it means, and why others are refused.

What changes the base or computes anything but a low-rank term on linear layers is refused in words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from offapi.adapter.names import EXPORT_AGAIN, modules
from offapi.adapter.targets import ends
from offapi.errors import ModelError
from offapi.model_spec import LoraSpec

ON_THE_BASE = (
    "Export it with PEFT's `path_initial_model_for_weight_conversion`, which makes it plain LoRA."
)
TRAIN_WHOLE = "Merge it into its base with PEFT (`merge_and_unload`) and add the merged model."
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # `init_lora_weights` begins so
REFUSED = {
    "modules_to_save": "whole modules trained together with LoRA",
    "trainable_token_indices": "rows of the embedding trained together with LoRA",
    "target_parameters": "LoRA on parameters other than linear layers, such as experts",
    "lora_bias": "biases in its matrices",
    "layer_replication": "layers of the base repeated",
    "alora_invocation_tokens": "LoRA that only begins at certain tokens (aLoRA)",
    "use_bdlora": "block-diagonal LoRA",
    "arrow_config": "several adapters with a router (Arrow)",
    "kasa_config": "KaSA, which changes the base",
    "monteclora_config": "MonteCLoRA, which samples its matrices",
    "fan_in_fan_out": "weights stored transposed, as in GPT-2",
}


def spec_of(config: Mapping[str, Any], path: Path) -> LoraSpec:
    """Return what `config`, read from `path`, means. Raise ModelError where it is refused."""
    _refuse_others(config, path)
    targets, rank, alpha = (config.get(key) for key in ("target_modules", "r", "lora_alpha"))
    number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
    if not _are_names(targets) or not targets or type(rank) is not int or not number:
        raise ModelError(
            "`target_modules` must be a list of names or an expression, `r` a whole number and"
            f" `lora_alpha` a number, got {targets!r}, {rank!r} and {alpha!r}.",
            where=str(path),
            next_step=EXPORT_AGAIN,
        )
    layers = _layers(config, path)
    given: Any = targets if isinstance(targets, str) else tuple(sorted(targets))
    if layers and config.get("layers_pattern") and not isinstance(given, str):
        given, layers = _in_layers_named(given, layers, config["layers_pattern"]), ()
    try:
        return LoraSpec(
            rank=rank,
            alpha=float(alpha or 0),
            targets=given,
            rslora=bool(config.get("use_rslora")),
            dora=bool(config.get("use_dora")),
            layers=layers,
            exclude=_names(config, "exclude_modules", path),
            ranks=_numbers(config, "rank_pattern", path),
            alphas=_numbers(config, "alpha_pattern", path),
        )
    except ValueError as error:
        raise ModelError(f"{error}.", where=str(path), next_step=EXPORT_AGAIN) from None


def config_of(spec: LoraSpec, parameters: Iterable[str], base: str) -> dict[str, Any]:
    """Return the config of an adapter with these parameters on the model named `base`.

    Targets are written as `spec` has them if they name exactly these modules, else as whole paths.
    """
    paths = modules(parameters)
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": spec.rank,
        "lora_alpha": spec.alpha,
        "lora_dropout": 0.0,
        "target_modules": _as_given(spec, paths),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "use_rslora": spec.rslora,
        "use_dora": spec.dora,
        "modules_to_save": None,
        "inference_mode": True,
    }
    more = {
        "layers_to_transform": list(spec.layers),
        "exclude_modules": spec.exclude if isinstance(spec.exclude, str) else list(spec.exclude),
        "rank_pattern": dict(spec.ranks),
        "alpha_pattern": dict(spec.alphas),
    }
    if config["target_modules"] == paths:  # the whole paths say which layers
        del more["layers_to_transform"]
    return config | {key: value for key, value in more.items() if value}


def read_config(path: Path) -> dict[str, Any]:
    """Return the config in `path`. Raise ModelError where it is not a JSON object."""
    try:
        config = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ModelError(
            f"not valid JSON ({error}).", where=str(path), next_step=EXPORT_AGAIN
        ) from None
    if not isinstance(config, dict):
        raise ModelError(
            f"the file must be a JSON object, got {type(config).__name__}.",
            where=str(path),
            next_step=EXPORT_AGAIN,
        )
    return config


def _as_given(spec: LoraSpec, paths: list[str]) -> list[str] | str:
    if isinstance(spec.targets, str):
        return spec.targets
    named = {target for path in paths for target in ends(path) if target in spec.targets}
    fits = named == set(spec.targets) and all(set(ends(path)) & named for path in paths)
    return sorted(spec.targets) if fits or not paths else paths


def _refuse_others(config: Mapping[str, Any], path: Path) -> None:
    if config.get("peft_type") != "LORA":
        raise ModelError(
            f"only LoRA adapters are read, got `peft_type` {config.get('peft_type')!r}.",
            where=str(path),
            next_step=TRAIN_WHOLE,
        )
    bias, init = config.get("bias") or "none", config.get("init_lora_weights")
    if bias != "none":
        what = f"the adapter has biases of the base trained together with LoRA (`bias` {bias!r})."
        raise ModelError(what, where=str(path), next_step=TRAIN_WHOLE)
    if isinstance(init, str) and init.lower().startswith(CHANGES_BASE):
        raise ModelError(
            f"the adapter was begun by {init!r}, which changes the base's own weights: on the"
            " weights as they are it computes something else.",
            where=str(path),
            next_step=ON_THE_BASE,
        )
    for key, what in REFUSED.items():
        if config.get(key):
            raise ModelError(
                f"the adapter has {what} (`{key}`): only low-rank matrices on linear layers are"
                " read.",
                where=str(path),
                next_step=TRAIN_WHOLE,
            )


def _are_names(value: Any) -> bool:
    if isinstance(value, str):
        return True
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _names(config: Mapping[str, Any], key: str, path: Path) -> tuple[str, ...] | str:
    value = config.get(key) or []
    if not _are_names(value):
        raise _wrong(key, "a list of names or an expression", value, path)
    return value if isinstance(value, str) else tuple(value)


def _layers(config: Mapping[str, Any], path: Path) -> tuple[int, ...]:
    value = config.get("layers_to_transform")
    layers = [] if value is None else [value] if type(value) is int else value
    if not isinstance(layers, list) or any(type(layer) is not int for layer in layers):
        raise _wrong("layers_to_transform", "a list of whole numbers", value, path)
    return tuple(sorted(set(layers)))


def _numbers(config: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = config.get(key) or {}
    kind = int if key == "rank_pattern" else int | float
    if not isinstance(value, dict) or not all(
        isinstance(number, kind) and not isinstance(number, bool) for number in value.values()
    ):
        raise _wrong(key, "a table of numbers", value, path)
    return value


def _wrong(key: str, must: str, value: Any, path: Path) -> ModelError:
    what = f"`{key}` must be {must}, got {value!r}."
    return ModelError(what, where=str(path), next_step=EXPORT_AGAIN)


def _in_layers_named(targets: tuple[str, ...], layers: tuple[int, ...], named: Any) -> str:
    """Return an expression for PEFT's `layers_pattern`, which names the list that layers are in."""
    lists = [named] if isinstance(named, str) else list(named)
    numbers = "|".join(map(str, layers))
    names = "|".join(re.escape(target) for target in targets)
    inside = rf"(?:.*?\.)?(?:{'|'.join(lists)})\.(?:{numbers})\.(?:.*\.)?(?:{names})"
    return rf"{inside}|{names}"
