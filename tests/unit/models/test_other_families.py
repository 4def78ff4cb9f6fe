"""What is said of families: unknown types, both forms of keys, text parts, recorded implementations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import families
import model_files
import numpy as np
import orjson
import pytest
from safetensors.numpy import load_file, save_file

from offapi.errors import ModelError
from offapi.implementations import (
    FILE,
    MeasuredBackend,
    choose_implementation,
    encode_measured,
    implementations_sentence,
    read_measured,
)
from offapi.models import store
from offapi.models.normal_config import normalise_config
from offapi.models.reference import SHORT, shortened
from offapi.models.text_part import TextPart, text_name


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store of its own."""
    monkeypatch.setenv("OFFAPI_HOME", str(tmp_path / "home"))


def normal(family: str) -> dict[str, Any]:
    return normalise_config(families.config_of(family), [], family)


def test_older_keys_become_newer_ones_and_newer_ones_older() -> None:
    gemma = normal("gemma3")
    assert gemma["layer_types"] == ["sliding_attention"] * 5 + ["full_attention"]
    assert gemma["rope_parameters"]["sliding_attention"]["rope_theta"] == 10000.0
    assert (gemma["rope_theta"], gemma["rope_local_base_freq"]) == (1e6, 10000.0)
    older = ("sliding_window_pattern", "rope_theta", "rope_local_base_freq")
    new = {key: value for key, value in gemma.items() if key not in older}
    again = normalise_config(new, [], "again")
    assert [again[key] for key in older] == [6, 1e6, 10000.0]


def test_what_the_libraries_default_differently_is_written() -> None:
    assert normal("cohere2")["layer_types"][-1] == "full_attention"
    assert normal("lfm2.5")["rope_theta"] == 1e6
    assert normal("glm4")["partial_rotary_factor"] == 0.5
    assert normal("granite4")["layer_types"][:3] == ["mamba", "mamba", "attention"]
    assert np.isfinite(normal("granite4")["time_step_limit"]).all()
    assert normal("exaone4")["rope_scaling"]["factor"] == 16.0
    assert normal("gemma4")["global_head_dim"] == 32
    assert normal("qwen3.5")["full_attention_interval"] == 4
    assert "eos_token_id" not in normal("qwen2.5")  # a default of transformers' own


def test_windows_that_rows_do_not_reach_are_shortened() -> None:
    assert shortened(normal("qwen3")) is None
    assert shortened(normal("gemma3-cut")) is None
    long = shortened(normal("gemma3"))
    assert long is not None
    assert long["sliding_window"] == SHORT
    grows = {"rope_type": "dynamic", "factor": 2.0}
    dynamic = shortened(normal("llama3.2") | {"rope_parameters": grows})
    assert dynamic is not None
    assert dynamic["max_position_embeddings"] == SHORT


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("language_model.model.norm.weight", "model.norm.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("model.language_model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("lm_head.weight", "lm_head.weight"),
        ("vision_tower.encoder.language_model.x", None),
        ("model.visual.patch_embed.weight", None),
    ],
)
def test_a_tensor_is_the_text_models_or_not(name: str, text: str | None) -> None:
    assert text_name(name) == text


def wrapped(folder: Path, shards: int = 1) -> Path:
    """Write a multimodal folder whose text model is the tiny Llama."""
    source = model_files.folder(folder)
    config = orjson.loads((source / "config.json").read_bytes())
    whole = {"model_type": "llava", "text_config": config, "tie_word_embeddings": True}
    (source / "config.json").write_bytes(orjson.dumps(whole))
    tensors = {
        f"language_model.{name}": value
        for name, value in load_file(source / "model.safetensors").items()
    }
    tensors["vision_tower.weight"] = np.ones((3, 5), np.float32)
    (source / "model.safetensors").unlink()
    names = sorted(tensors)
    holds: dict[str, str] = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        save_file({name: tensors[name] for name in names[shard::shards]}, source / file)
        holds |= dict.fromkeys(names[shard::shards], file)
    (source / "model.safetensors.index.json").write_bytes(orjson.dumps({"weight_map": holds}))
    return source


@pytest.mark.parametrize("shards", [1, 2])
def test_the_text_part_of_a_multimodal_folder_is_stored(tmp_path: Path, shards: int) -> None:
    plain = store.add(model_files.folder(tmp_path / "plain"))
    model = store.add(wrapped(tmp_path / "whole", shards))
    part = TextPart("llava", 1, 60)
    assert model.text_part == str(part)
    assert "without 1 tensor (0.0 MB)" in model.text_part
    assert plain.text_part == ""
    found: dict[str, Any] = {}
    for path in model.path.glob("*.safetensors"):
        found |= load_file(path)
    wanted = load_file(plain.path / "model.safetensors")
    assert found.keys() == wanted.keys()
    assert all((found[name] == wanted[name]).all() for name in wanted)
    assert store.verify("whole")


def test_a_folder_without_a_text_model_is_refused(tmp_path: Path) -> None:
    source = wrapped(tmp_path / "whole")
    path = next(source.glob("*.safetensors"))
    save_file({"vision_tower.weight": np.ones(3, np.float32)}, path)
    index = {"weight_map": {"vision_tower.weight": path.name}}
    (source / "model.safetensors.index.json").write_bytes(orjson.dumps(index))
    with pytest.raises(ModelError, match="none of the folder's tensors"):
        store.add(source)


def test_recorded_implementations_are_read_back(tmp_path: Path) -> None:
    assert choose_implementation(tmp_path, "torch") == "auto"
    measured = {
        "torch": MeasuredBackend("packed", 2e-6),
        "mlx": MeasuredBackend("", None, "packed: 3 nats from the reference"),
        "other": MeasuredBackend("library", 1e-6, "packed: no"),
    }
    (tmp_path / FILE).write_bytes(encode_measured("transformers", measured))
    assert read_measured(tmp_path) == measured
    assert choose_implementation(tmp_path, "torch") == "packed"
    assert choose_implementation(tmp_path, "other") == "library"
    assert implementations_sentence(tmp_path) == "torch packed, mlx not, other library"
    with pytest.raises(ModelError, match="mlx does not compute this model: packed: 3 nats"):
        choose_implementation(tmp_path, "mlx")


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"backends": {"mlx": {"wrong": 1}}}'])
def test_a_damaged_record_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ModelError, match="not a record of implementations"):
        choose_implementation(tmp_path, "torch")


def test_a_tokenizer_beyond_an_embedding_of_another_name_is_refused(tmp_path: Path) -> None:
    source = wrapped(tmp_path / "whole")
    config = orjson.loads((source / "config.json").read_bytes())
    config["text_config"]["vocab_size"] = 257
    (source / "config.json").write_bytes(orjson.dumps(config))
    path = next(source.glob("*.safetensors"))
    tensors = load_file(path)
    name = "language_model.model.embed_tokens.weight"
    save_file(tensors | {name: np.ascontiguousarray(tensors[name][:257])}, path)
    with pytest.raises(ModelError, match="has the id 257, but the model's embedding has 257 rows"):
        store.add(source)
