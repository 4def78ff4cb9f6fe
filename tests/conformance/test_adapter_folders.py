"""Adapters and weights as somebody brings them: another base's, not numbers, or not an adapter.

Both backends refuse alike, and say what is wrong.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import tiny_llama
from safetensors.numpy import load_file, save_file

from offapi.adapter import CONFIG, WEIGHTS, Base, doubt_base, encode, parameter, read_base
from offapi.backend import Backend
from offapi.episodes import Episode, Segment
from offapi.errors import ModelError
from offapi.model_spec import LoraSpec
from offapi.optimizer import Arrays

Load = Callable[..., Backend]
UNKNOWN = Base()
SHAPE = LoraSpec(rank=4, alpha=6.0)
FIRST = parameter("model.layers.0.mlp.up_proj", "A")
EPISODE = Episode("e", (Segment((1, 2), False), Segment((3, 4, 5), True)))


def write(folder: Path, adapter: Arrays, base: Base = UNKNOWN) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in encode(adapter, SHAPE, base).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def folder(tmp_path: Path, adapter: Arrays) -> Path:
    """An adapter that says nothing of its base."""
    return write(tmp_path / "adapter", adapter)


# the base


def test_an_adapter_loads_on_its_own_base_alone(
    load: Load, tmp_path: Path, adapter: Arrays, model_folder: Path
) -> None:
    other = tiny_llama.write(tmp_path / "other", seed=1)
    own = write(tmp_path / "own", adapter, Base.of("tiny", model_folder))
    foreign = write(tmp_path / "foreign", adapter, Base.of("another", other))
    assert np.isfinite(load(adapter=own).score([EPISODE])[0]).all()
    with pytest.raises(ModelError, match=r"trained on another base model \(another\)") as caught:
        load(adapter=foreign)
    assert caught.value.where == str(foreign)
    with pytest.raises(ModelError, match=r"another base model \(tiny\) than other"):
        load(path=other, adapter=own)
    with pytest.raises(ModelError, match="another base model"):
        load(adapter=foreign, lora=SHAPE)
    assert np.isfinite(load(path=other, adapter=foreign).score([EPISODE])[0]).all()


def test_a_base_may_be_renamed_and_have_another_tokenizer(
    load: Load, tmp_path: Path, adapter: Arrays, model_folder: Path
) -> None:
    own = write(tmp_path / "own", adapter, Base.of("tiny", model_folder))
    renamed = tiny_llama.write_chat(tmp_path / "renamed")
    assert np.isfinite(load(path=renamed, adapter=own).score([EPISODE])[0]).all()


def test_files_with_a_base_are_the_same_bytes_each_time(
    tmp_path: Path, adapter: Arrays, model_folder: Path
) -> None:
    base = Base.of("tiny", model_folder)
    first, second = (
        encode(adapter, SHAPE, base),
        encode(dict(reversed(adapter.items())), SHAPE, base),
    )
    assert first == second
    assert read_base(write(tmp_path / "a", adapter, base)) == base
    kept = load_file(tmp_path / "a" / WEIGHTS)
    assert kept.keys() == adapter.keys()
    for name, array in adapter.items():
        np.testing.assert_array_equal(kept[name], array)


@pytest.mark.parametrize(
    ("named", "model", "words"),
    [
        ("meta/other-7B", "tiny", "names another base model ('meta/other-7B', not 'tiny')"),
        ("/home/me/Tiny/", "tiny", "which weights it was trained on. On"),
        ("", "tiny", "which weights it was trained on. On"),
        (None, "tiny", "which weights it was trained on. On"),
    ],
)
def test_a_base_without_a_hash_is_doubted(
    folder: Path, named: str | None, model: str, words: str
) -> None:
    config = orjson.loads((folder / CONFIG).read_bytes()) | {"base_model_name_or_path": named}
    (folder / CONFIG).write_bytes(orjson.dumps(config))
    assert words in doubt_base(folder, model)


def test_a_base_with_a_hash_is_not_doubted(
    tmp_path: Path, adapter: Arrays, model_folder: Path
) -> None:
    assert doubt_base(write(tmp_path / "a", adapter, Base.of("x", model_folder)), "y") == ""


def test_other_bits_of_the_base_are_said(
    tmp_path: Path, adapter: Arrays, model_folder: Path
) -> None:
    base = Base.of("x", model_folder, 4)
    folder = write(tmp_path / "a", adapter, base)
    assert read_base(folder) == base
    assert doubt_base(folder, "x", 4) == ""
    assert "on the base in 4 bits, and is used on it as it is stored" in doubt_base(folder, "x")
    assert "and is used on it in 8 bits" in doubt_base(folder, "x", 8)


# numbers


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_an_adapter_that_is_not_numbers_is_refused_by_name(
    load: Load, tmp_path: Path, adapter: Arrays, wrong: float
) -> None:
    broken = adapter[FIRST].copy()
    broken[1, 2] = wrong
    with pytest.raises(ModelError, match="not finite") as caught:
        load(adapter=write(tmp_path / "a", {**adapter, FIRST: broken}))
    assert repr(FIRST) in caught.value.what
    assert caught.value.where.endswith(WEIGHTS)


def test_an_adapter_beyond_float32_is_refused(load: Load, folder: Path) -> None:
    tensors: dict[str, Any] = load_file(folder / WEIGHTS)
    save_file(tensors | {FIRST: tensors[FIRST].astype(np.float64) * 1e300}, folder / WEIGHTS)
    with pytest.raises(ModelError, match="infinite in float32"):
        load(adapter=folder)


def test_an_adapter_that_overflows_is_refused(load: Load, tmp_path: Path, adapter: Arrays) -> None:
    huge = {name: array * np.float32(1e30) for name, array in adapter.items()}
    with pytest.raises(ModelError, match="with this adapter, the model's logits are not finite"):
        load(adapter=write(tmp_path / "a", huge))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "name", ["model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight"]
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_weight_that_is_not_a_number_is_refused_by_name(
    load: Load, tmp_path: Path, name: str, wrong: float, dtype: str
) -> None:
    path = tiny_llama.write(tmp_path / "model")
    tensors = load_file(path / "model.safetensors")
    tensors[name][7, 3] = wrong
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="not finite") as caught:
        load(path=path, dtype=dtype)
    assert name in caught.value.what
    assert caught.value.where == str(path)


def test_weights_that_overflow_are_refused(load: Load, tmp_path: Path) -> None:
    path = tiny_llama.write(tmp_path / "model")
    tensors = load_file(path / "model.safetensors")
    tensors["model.norm.weight"] *= np.float32(3e38)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"the model's logits are not finite") as caught:
        load(path=path)
    assert "adapter" not in caught.value.what


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F64"])
def test_an_adapter_in_another_precision_is_read(
    load: Load, folder: Path, adapter: Arrays, dtype: str
) -> None:
    """PEFT writes the precision that it trained in."""
    import torch
    from safetensors.torch import save_file as save_torch

    kind = {"BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}[dtype]
    rounded = {name: torch.from_numpy(array).to(kind) for name, array in adapter.items()}
    save_torch(rounded, folder / WEIGHTS)
    state = load(adapter=folder).state()
    for name, array in state.adapter.items():
        np.testing.assert_array_equal(array, rounded[name].float().numpy())


# files


@pytest.mark.parametrize(
    "config",
    [
        [],
        "text",
        7,
        {"lora_alpha": None},
        {"lora_alpha": "32"},
        {"lora_alpha": True},
        {"r": True},
        {"r": 4.0},
        {"r": 0},
        {"r": None},
        {"target_modules": [1, 2]},
        {"target_modules": []},
        {"target_modules": None},
        {"target_modules": [None]},
        {"peft_type": ["LORA"]},
        {"bias": {"a": 1}},
    ],
)
def test_a_config_of_another_kind_is_refused_in_words(
    load: Load, folder: Path, config: Any
) -> None:
    before = orjson.loads((folder / CONFIG).read_bytes())
    content = before | config if isinstance(config, dict) else config
    (folder / CONFIG).write_bytes(orjson.dumps(content))
    with pytest.raises(ModelError) as caught:
        load(adapter=folder)
    assert caught.value.where == str(folder / CONFIG)
    assert caught.value.next_step


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(load: Load, folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(ModelError, match=r"no adapter here|is missing"):
        load(adapter=folder)


@pytest.mark.parametrize("content", [b"", b"\x02\0\0\0\0\0\0\0[]", b"\xff" * 20, b"{}"])
def test_weights_that_are_no_safetensors_are_refused(
    load: Load, folder: Path, content: bytes
) -> None:
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(ModelError, match="damaged safetensors"):
        load(adapter=folder)
    assert "does not say by a hash" in doubt_base(folder, "tiny")


def test_whole_numbers_are_no_adapter(load: Load, folder: Path) -> None:
    tensors: dict[str, Any] = load_file(folder / WEIGHTS)
    save_file(tensors | {FIRST: tensors[FIRST].astype(np.int32)}, folder / WEIGHTS)
    with pytest.raises(ModelError, match="must be of floating point numbers, got I32"):
        load(adapter=folder)
