"""What a model folder must be before any loader sees it: plain tensors, plain settings, no code.

Loaders have trusted offsets, `auto_map`, `model_file` and pickles from model folders, so the header
and the settings are checked here first. Left out: the chat template's behaviour. Its size is
limited; transformers renders it in jinja2's ImmutableSandboxedEnvironment, which stops code but not
a slow loop, so `template_probe` checks that.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offapi.errors import ModelError
from offapi.models.settings_files import (
    MAX_TEMPLATE,
    SOURCE,
    check_settings,
    read_json,
    read_object,
)
from offapi.models.token_ids import EMBEDDING, check_token_ids
from offapi.models.tokenizer_growth import check_growth
from offapi.models.weight_files import check_weights

MODEL_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
CODE_FILES = (".py", ".pyc", ".so", ".dylib", ".dll")
# Each loader would read these in its own way, or not at all.
ELSEWHERE = {
    "adapter_config.json": "torch would apply that adapter, MLX would not.",
    "adapter_model.safetensors": "it is an adapter, not a part of the model.",
    "hf_quant_config.json": "MLX would take the weights as quantised, torch would not.",
}
# What `quantization_config` says of weights that torch can train on.
NF4 = {
    "quant_method": "bitsandbytes",
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_quant_storage": "uint8",
}
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz")


def pickles_beside(folder: Path) -> tuple[str, ...]:
    """Return the pickles of a folder that has its weights as safetensors; () where it has not.

    Trainers and makers leave them (`training_args.bin`, `original/*.pth`); no loader needs them.
    """
    if not any(folder.glob("model*.safetensors")):
        return ()
    files = (path for path in folder.rglob("*") if path.suffix.lower() in PICKLES)
    return tuple(sorted(str(path.relative_to(folder)) for path in files if path.is_file()))


def check_folder(folder: Path, left_out: tuple[str, ...] = ()) -> None:
    """Raise ModelError unless the model in `folder` can be loaded without trusting it.

    The files that are `left_out` are not looked at.
    """
    apart = {folder / name for name in left_out}
    for path in sorted(folder.rglob("*")):
        check_inside(path, folder)
        if not path.is_dir() and path not in apart:
            _check_file(path)
    for name, why in ELSEWHERE.items():
        if (folder / name).is_file():
            raise ModelError(
                f"the folder has {name} with the model; {why}",
                where=str(folder / name),
                next_step="Move it to a folder of its own, then use this one.",
            )
    config = check_config(folder)
    _, shape = check_weights(folder).get(EMBEDDING, ("", ()))
    rows = shape[0] if len(shape) == 2 else config.get("vocab_size")
    if type(rows) is int:  # any other is refused where tensors are compared with config.json
        check_token_ids(folder, rows)
    check_growth(folder)


def _check_file(path: Path) -> None:
    """Raise ModelError for anything but a plain file of a kind that a model consists of."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ModelError(
            "a model folder must have plain files only; this is a pipe, a socket or a device.",
            where=str(path),
            next_step="Delete it, or copy the model's files to a new folder.",
        )
    if path.suffix.lower() in PICKLES:
        raise ModelError(
            "a pickle can run code when it is loaded.",
            where=str(path),
            next_step=(
                "Delete it if the folder also has the weights as safetensors, then add the"
                f" folder again. {SOURCE}"
            ),
        )
    if path.suffix.lower() in CODE_FILES:
        raise ModelError("a model folder must not contain code.", where=str(path), next_step=SOURCE)
    if path.suffix == ".jinja" and path.stat().st_size > MAX_TEMPLATE:
        raise ModelError(
            f"the chat template exceeds {MAX_TEMPLATE} bytes.", where=str(path), next_step=SOURCE
        )
    if path.suffix == ".json":
        check_settings(read_json(path), path)


def check_inside(path: Path, folder: Path) -> None:
    """Raise ModelError when `path` leads out of `folder`, or nowhere.

    A hub cache's snapshot may lead to its own blobs.
    """
    root = folder.resolve()
    if root.parent.name == "snapshots" and root.parent.parent.name.startswith("models--"):
        root = root.parent.parent
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: a link to itself, before Python 3.13
        raise ModelError(
            "the link leads nowhere.", where=str(path), next_step="Copy the file again."
        ) from None
    if not real.is_relative_to(root):
        raise ModelError(
            "the link leads out of the model folder.",
            where=str(path),
            next_step="Replace it with the file itself.",
        )


def check_config(folder: Path) -> dict[str, Any]:
    """Return config.json as a dict.

    Raise ModelError unless the model type is a name, and for an unsupported quantisation.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(
            "the folder has no config.json.",
            where=str(folder),
            next_step="Name a model folder, which has one.",
        )
    config = read_object(path)
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not MODEL_TYPE.fullmatch(model_type):
        raise ModelError(
            f"the model type must be a name, got {model_type!r}.",
            where=f"{path}, field 'model_type'",
            next_step="Copy config.json again.",
        )
    _check_quantisation(config, path)
    return config


def _check_quantisation(config: Mapping[str, Any], path: Path) -> None:
    """Raise ModelError for weights in few bits that no backend can train on."""
    stored = config.get("quantization_config")
    if stored is None or stored == config.get("quantization"):
        return
    found = stored if isinstance(stored, Mapping) else {}
    if all(found.get(key) == value for key, value in NF4.items()):
        return
    method = found.get("quant_method", "an unknown method")
    raise ModelError(
        "only weights quantised for MLX, or to NF4 by bitsandbytes, can be trained on, not these"
        f" ({method}).",
        where=f"{path}, field 'quantization_config'",
        next_step="Add the unquantised model, and train it with `quantize`.",
    )
