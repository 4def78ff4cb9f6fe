"""config.json in the one form that every loader reads alike.

transformers 5 writes `rope_parameters`, by kind of layer where they differ, and `layer_types`;
mlx-lm's models read `rope_theta`, `rope_scaling`, `rope_local_base_freq` and
`sliding_window_pattern`, and silently fall back to their own defaults. Both forms are written here,
and so is what a config leaves to transformers' defaults. Left out: whether the libraries then agree
(`parity`).
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

from offapi.errors import ModelError
from offapi.models.library_check import quiet_transformers, unbuilt

LARGEST = 3e38
FULL, SLIDING = "full_attention", "sliding_attention"
MAMBA = {"linear_attention": "mamba", FULL: "attention"}  # granitemoehybrid's own words


def normalise_config(
    config: Mapping[str, Any], tensors: Collection[str], where: str
) -> dict[str, Any]:
    """Return `config` in both forms, with explicit rope, windows and tying.

    Raise ModelError when it contradicts itself, or has values that its model type cannot have.
    """
    rope = _rope(config, where)
    library = _library_config(config, where)
    filled = {key: value for key, value in library.items() if key not in config}
    both = filled | dict(config)
    both |= _rope_forms(rope or library.get("rope_parameters"), library)
    if "rope_scaling" not in config and _changes_rope(both, library):
        del both["rope_scaling"]
    tied = config.get("tie_word_embeddings")
    both["tie_word_embeddings"] = "lm_head.weight" not in tensors if tied is None else bool(tied)
    return both | _layer_forms(both)


def _library_config(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the keys of transformers' own config of that type; {} for a type it does not know."""
    from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

    if config.get("model_type") not in CONFIG_MAPPING:
        return {}
    try:
        with quiet_transformers():
            made = AutoConfig.for_model(**copy.deepcopy(dict(config)))
            values = made.to_dict()
    except Exception as error:  # whatever values of a wrong type make transformers raise
        raise unbuilt("transformers", error, where) from error
    kinds = [kind for kind in type(made).__mro__ if issubclass(kind, PreTrainedConfig)]
    kinds.remove(PreTrainedConfig)
    own = {name for kind in kinds for name in vars(kind).get("__annotations__", ())}
    own = {name for name in own if not name.endswith(("_token_id", "_token_index"))}
    found = {name: _finite(values[name]) for name in sorted(own) if name in values}
    heads = found.get("num_attention_heads")
    if found.get("head_dim") is None and isinstance(heads, int) and heads > 0:
        found["head_dim"] = getattr(made, "head_dim", None) or found["hidden_size"] // heads
    return found


def _finite(value: Any) -> Any:
    """Return `value` as JSON can hold it: infinity as a number at float32's end."""
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _finite(each) for key, each in value.items()}
    return LARGEST if value == float("inf") else value


def _changes_rope(config: Mapping[str, Any], library: Mapping[str, Any]) -> bool:
    """Return whether transformers reads another rope with the older keys too."""
    try:
        return _library_config(config, "").get("rope_parameters") != library.get("rope_parameters")
    except ModelError:
        return True


def _rope_forms(rope: Any, library: Mapping[str, Any]) -> dict[str, Any]:
    """Return both forms of the rope settings `rope`, which may differ by kind of layer."""
    if not isinstance(rope, dict):
        return {}
    read = library.get("rope_parameters")
    if isinstance(read, dict) and _by_layer(read):
        rope = read  # transformers turns the older keys into one group of settings for each kind
    elif isinstance(read, dict):
        rope = {key: value for key, value in (read | rope).items() if key != "type"}
    whole = (rope.get(FULL) or next(iter(rope.values()))) if _by_layer(rope) else rope
    local = rope.get(SLIDING) if _by_layer(rope) else None
    scaling = {key: value for key, value in whole.items() if key != "rope_theta"}
    plain = whole.get("rope_type", "default") == "default"
    forms = {"rope_parameters": rope, "rope_scaling": None if plain else scaling}
    if "rope_theta" in whole:
        forms["rope_theta"] = whole["rope_theta"]
    if isinstance(local, dict) and "rope_theta" in local:
        forms["rope_local_base_freq"] = local["rope_theta"]
    if "partial_rotary_factor" in whole and local is None:
        forms["partial_rotary_factor"] = whole["partial_rotary_factor"]
    return forms


def _layer_forms(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return mlx-lm's keys for the kinds of layers that `layer_types` lists."""
    kinds = config.get("layer_types")
    if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
        return {}
    if config["model_type"] == "granitemoehybrid":
        return {"layer_types": [MAMBA.get(kind, kind) for kind in kinds]}
    period = kinds.index(FULL) + 1 if FULL in kinds else len(kinds)
    if SLIDING in kinds and config.get("sliding_window_pattern") is None:
        return {"sliding_window_pattern": period}
    if "linear_attention" in kinds and config.get("full_attention_interval") is None:
        return {"full_attention_interval": period}
    return {}


def is_normal(config: Mapping[str, Any], normal: Mapping[str, Any]) -> bool:
    """Return whether a loader that knows only the older keys reads `config` correctly.

    `normal` is its normal form.
    """
    return all(
        config.get(key) == normal[key]
        for key in ("rope_theta", "rope_scaling", "tie_word_embeddings")
    )


def _rope(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the rope settings in transformers 5's form, {} where config.json names none."""
    new, old = config.get("rope_parameters") or {}, config.get("rope_scaling") or {}
    if not isinstance(new, dict) or not isinstance(old, dict):
        raise ModelError(
            f"the rope settings must be objects, got {new!r} and {old!r}.",
            where=f"{where}, field 'rope_parameters'",
            next_step="Copy config.json again.",
        )
    if _by_layer(new):
        return {kind: _checked(settings, where) for kind, settings in new.items()}
    named = [_theta(each, where) for each in (new, old, config)]
    thetas = {theta for theta in named if theta is not None}
    kinds = {_kind(each, where) for each in (new, old) if each}
    if len(thetas) > 1 or len(kinds) > 1:
        raise ModelError(
            f"rope_parameters and the older keys disagree ({sorted(thetas)}, {sorted(kinds)}).",
            where=f"{where}, field 'rope_theta'",
            next_step="Keep the pair that the model was trained with.",
        )
    rest = {key: value for key, value in (old | new).items() if key != "type"}
    theta = {"rope_theta": thetas.pop()} if thetas else {}
    return rest | {"rope_type": kinds.pop() if kinds else "default"} | theta


def _by_layer(rope: Mapping[str, Any]) -> bool:
    """Return whether the settings differ by kind of layer."""
    return any(isinstance(value, dict) for value in rope.values())


def _checked(settings: Any, where: str) -> Any:
    """Return one kind's settings, which may be null for layers without rotation."""
    if isinstance(settings, dict):
        _theta(settings, where)
        _kind(settings, where)
    return settings


def _theta(settings: Mapping[str, Any], where: str) -> float | None:
    """Return `rope_theta` of one group of settings, None where it names none."""
    value = settings.get("rope_theta")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ModelError(
            f"rope_theta must be a number above 0, got {value!r}.",
            where=f"{where}, field 'rope_theta'",
            next_step="Copy config.json again.",
        )
    return float(value)


def _kind(settings: Mapping[str, Any], where: str) -> str:
    """Return the kind of rope that one group of settings names."""
    kind = settings.get("rope_type", settings.get("type", "default"))
    if not isinstance(kind, str):
        raise ModelError(
            f"rope_type must be a name, got {kind!r}.",
            where=f"{where}, field 'rope_type'",
            next_step="Copy config.json again.",
        )
    return kind
