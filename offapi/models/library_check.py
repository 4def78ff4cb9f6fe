"""Whether the libraries know a model's type, and its tensors are those of their own model of it.

The library builds its model from config.json without memory (transformers on the meta device,
mlx-lm lazily) and compares the folder's headers with it: transformers alone would fill a missing
tensor with random numbers and warn. Left out: weights quantised for MLX, which mlx-lm checks when
it loads them; the arrays inside packed ones, which torch checks then; and machines without either
library, which cannot use the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

from offapi import backend as backends
from offapi.errors import ModelError
from offapi.models.weight_files import check_weights

MOST, MOST_LAYERS = 10_000_000, 1000  # of one size in config.json, and of layers or experts
NF4_STATE = ".quant_state.bitsandbytes__nf4"  # of a weight, beside it
_NEXT = "Check that weights and config.json belong together, or copy them again."


def known_types() -> frozenset[str]:
    """Return the model types that transformers, or mlx-lm where it is installed, knows."""
    from transformers import CONFIG_MAPPING

    found = find_spec("mlx_lm")
    places = (found.submodule_search_locations if found else None) or ()
    files = (path for place in places for path in (Path(place) / "models").glob("*.py"))
    return frozenset(CONFIG_MAPPING.keys()) | {path.stem for path in files}


def check_type(config: Mapping[str, Any], where: str) -> None:
    """Raise ModelError for a model type that no library knows, or sizes that would not end."""
    if config.get("model_type") not in known_types():
        raise ModelError(
            "the model type must be one that transformers or mlx-lm knows, got"
            f" {config.get('model_type')!r}.",
            where=f"{where}, field 'model_type'",
            next_step="A newer transformers or mlx-lm may know it: update them, and add it again.",
        )
    check_sizes(config, where)


def check_tensors(folder: Path, config: Mapping[str, Any], where: str) -> None:
    """Raise ModelError unless a library here builds a model of just the tensors in `folder`."""
    if config.get("quantization"):
        return
    if find_spec("torch") is not None:
        _check_with_transformers(folder, where)
    elif find_spec("mlx_lm") is not None:
        _check_with_mlx(folder, where)


def check_sizes(config: Mapping[str, Any], where: str) -> None:
    """Raise ModelError for a size so large that building the model would not end."""
    for key, value in config.items():
        most = MOST_LAYERS if key.endswith(("_layers", "_experts")) else MOST
        if isinstance(value, Mapping):
            check_sizes(value, where)
        elif type(value) is int and not -1 <= value <= most and not key.endswith("_id"):
            raise ModelError(
                f"{key} must be at most {most}, got {value!r}.",
                where=f"{where}, field {key!r}",
                next_step=_NEXT,
            )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' warnings and progress bars off stderr: what matters is raised."""
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _check_with_transformers(folder: Path, where: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    packed = packed_weights(folder)
    try:
        with quiet_transformers():
            config: Any = AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            if packed:
                del config.quantization_config  # its library takes no tensors without memory
            _, found = auto.from_pretrained(
                folder,
                config=config,
                device_map="meta",
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
            )
    except Exception as error:  # whatever a config of wrong types makes transformers raise
        raise unbuilt("transformers", error, where) from error
    for name, has, wanted in sorted(found["mismatched_keys"]):
        if name in packed and 2 * prod(has) == prod(wanted):
            continue
        raise _misfit(f"has shape {tuple(has)}; config.json requires {tuple(wanted)}", name, where)
    for name in sorted(found["missing_keys"]):
        raise _misfit("is missing; config.json requires it", name, where)
    for name in sorted(found["unexpected_keys"]):
        if name.partition(".weight.")[0] + ".weight" in packed:
            continue
        raise _misfit("does not belong to this model", name, where)


def packed_weights(folder: Path) -> set[str]:
    """Return the names of the weights that bitsandbytes has packed, two in a byte."""
    return {
        name.removesuffix(NF4_STATE) for name in check_weights(folder) if name.endswith(NF4_STATE)
    }


def _check_with_mlx(folder: Path, where: str) -> None:
    home = backends.find("mlx").__module__.rpartition(".")[0]
    try:
        import_module(f"{home}.reference").check_tensors(folder)
    except Exception as error:  # whatever a config of wrong types makes mlx-lm raise
        raise unbuilt("mlx-lm", error, where) from error


def _misfit(what: str, tensor: str, where: str) -> ModelError:
    return ModelError(f"tensor {tensor!r} {what}.", where=where, next_step=_NEXT)


def unbuilt(library: str, error: Exception, where: str) -> ModelError:
    """Return the error for a config that `library` cannot make a model of."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = " ".join(lines[:2]) or type(error).__name__
    return ModelError(
        f"{library} cannot build the model that config.json describes: {reason[:400]}",
        where=where,
        next_step=_NEXT,
    )
