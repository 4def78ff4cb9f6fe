"""config.json in the one form that every loader reads alike.

transformers 5 writes `rope_parameters`; mlx-lm's llama reads only `rope_theta` and `rope_scaling`,
and silently falls back to 10000. Both are written here. So is `tie_word_embeddings`, whose default
differs too. Left out: rope settings that differ by layer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from offapi.errors import ModelError
from offapi.text.display import plural

DEFAULT_THETA = {"smollm3": 2_000_000.0}  # transformers' default where a config names none
THETA = 10_000.0


def normalise_config(
    config: Mapping[str, Any], tensors: Collection[str], where: str
) -> dict[str, Any]:
    """Return `config` with explicit rope and tying; ModelError when it contradicts itself."""
    _check_attention(config, where)
    rope = _rope(config, where)
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    tied = config.get("tie_word_embeddings")
    return dict(config) | {
        "rope_theta": rope["rope_theta"],
        "rope_scaling": None if rope["rope_type"] == "default" else scaling,
        "rope_parameters": rope,
        "tie_word_embeddings": "lm_head.weight" not in tensors if tied is None else bool(tied),
    }


def is_normal(config: Mapping[str, Any], normal: Mapping[str, Any]) -> bool:
    """Return whether a loader that knows only the older keys reads `config` correctly.

    `normal` is its normal form.
    """
    return all(
        config.get(key) == normal[key]
        for key in ("rope_theta", "rope_scaling", "tie_word_embeddings")
    )


def _check_attention(config: Mapping[str, Any], where: str) -> None:
    """Raise ModelError for attention that sees only a part of the context."""
    window = config.get("sliding_window") if config.get("model_type") == "mistral" else None
    if (
        window
        or config.get("use_sliding_window")
        or "sliding_attention" in str(config.get("layer_types"))
    ):
        size = window or config.get("sliding_window")
        tokens = f" ({plural(size, 'token')})" if isinstance(size, int) else ""
        raise ModelError(
            f"sliding windows{tokens} are not supported.",
            where=f"{where}, field 'sliding_window'",
            next_step=(
                "If every text is shorter than the window, set it to null (use_sliding_window to"
                " false)."
            ),
        )


def _rope(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the rope settings in transformers 5's form."""
    new, old = config.get("rope_parameters") or {}, config.get("rope_scaling") or {}
    if (
        not isinstance(new, dict)
        or not isinstance(old, dict)
        or any(isinstance(v, dict) for v in new.values())
    ):
        raise ModelError(
            "only one rope for all layers is supported.",
            where=f"{where}, field 'rope_parameters'",
            next_step="Use another model.",
        )
    named = [_theta(each, where) for each in (new, old, config)]
    thetas = {theta for theta in named if theta is not None}
    kinds = {_kind(each, where) for each in (new, old) if each}
    if len(thetas) > 1 or len(kinds) > 1:
        raise ModelError(
            f"rope_parameters and the older keys disagree ({sorted(thetas)}, {sorted(kinds)}).",
            where=f"{where}, field 'rope_theta'",
            next_step="Keep the pair that the model was trained with.",
        )
    theta = thetas.pop() if thetas else DEFAULT_THETA.get(str(config.get("model_type")), THETA)
    rest = {key: value for key, value in (old | new).items() if key != "type"}
    return rest | {"rope_type": kinds.pop() if kinds else "default", "rope_theta": theta}


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
