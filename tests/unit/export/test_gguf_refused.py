"""What llama.cpp would compute differently is refused, with the reason, before a file is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import tiny_gguf
import tiny_llama
from safetensors.numpy import load_file, save_file

from offapi.chat.chat import Chat
from offapi.errors import BackendError, ConfigError, ModelError
from offapi.export import gguf_fields, gguf_form, gguf_tensors, gguf_vocabulary, llama_cpp
from offapi.export.source import ExportSource
from offapi.models.gguf_reader import Gguf
from offapi.models.normal_config import normalise_config

BASE: dict[str, Any] = tiny_gguf.BASE | {"model_type": "llama", "vocab_size": 300}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "gemma"}, "model type 'gemma'"),
        ({"model_type": "qwen2", "mlp_bias": True}, "mlp_bias in a qwen2 model"),
        ({"model_type": "qwen3", "attention_bias": True}, "attention_bias in a qwen3 model"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"partial_rotary_factor": 0.5}, "a part of each head"),
        ({"model_type": "smollm3", "no_rope_layers": [1, 0]}, "layers without rope"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope scaling 'dynamic'"),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "beta_fast": 16.0}},
            "rope scaling 'yarn' with beta_fast",
        ),
    ],
)
def test_a_network_that_llama_cpp_does_not_have(config: dict[str, Any], says: str) -> None:
    whole = normalise_config(BASE | config, [], "model")
    with pytest.raises(ModelError, match=says):
        understand(whole)


def understand(config: dict[str, Any]) -> None:
    gguf_fields.find_architecture(config, "model")
    gguf_fields.network_fields(config, "model")


def test_a_type_that_cannot_be_written() -> None:
    with pytest.raises(ConfigError, match=r"'q4_k_m' cannot be written.*llama-quantize"):
        gguf_tensors.check_kind("q4_k_m")
    with pytest.raises(ConfigError, match="Did you mean 'q8_0'"):
        gguf_tensors.check_kind("8_0")


def test_a_tokenizer_that_splits_otherwise(tmp_path: Path) -> None:
    chat = Chat.load(tiny_llama.write_chat(tmp_path))
    with pytest.raises(ModelError, match="splits text otherwise than gpt-2, smollm"):
        gguf_vocabulary.vocabulary_fields(chat, tiny_llama.VOCAB, "model")


def test_more_ends_of_a_turn_than_a_file_names(tmp_path: Path) -> None:
    folder = tiny_gguf.write(tmp_path)
    (folder / "generation_config.json").write_bytes(orjson.dumps({"eos_token_id": [0, 1, 2, 5]}))
    with pytest.raises(ModelError, match="4 ids that end a turn"):
        gguf_vocabulary.end_ids(Chat.load(folder), "model")


def test_numbers_too_large_for_f16() -> None:
    plan = gguf_tensors.TensorPlan("blk.0.ffn_up.weight", (1, 32), "f16")
    tensor = np.full((1, 32), 70_000.0, np.float32)
    with pytest.raises(ModelError, match=r"too large for f16.*bf16"):
        gguf_tensors.encode_tensor(tensor, plan, "model")


def test_without_xllamacpp_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_cpp, "PACKAGE", "not_installed_here")
    source = ExportSource.of(tiny_gguf.write(tmp_path))
    with pytest.raises(BackendError, match=r"pip install 'offapi-kit\[gguf\]'"):
        gguf_form.bytes_on_disk(source, None)


def test_rows_that_are_no_whole_blocks_stay_in_f16_and_a_copied_head_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_gguf.write(tmp_path / "model", intermediate_size=100)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    out = tmp_path / "out"
    out.mkdir()
    before, part = gguf_form.write_form(ExportSource.of(folder), out, "Q4_0")
    kinds = {tensor.name: tensor.kind for tensor in Gguf(out / "model.gguf").tensors}
    assert (before.bits, before.dtype, before.temporary) == (None, "float32", True)
    assert (part.bits, part.temporary) == (4, False)
    assert kinds["blk.0.ffn_down.weight"] == 1  # ggml's f16
    assert kinds["blk.0.ffn_up.weight"] == 2  # q4_0
    assert kinds["blk.0.attn_norm.weight"] == 0  # f32
    assert kinds["token_embd.weight"] == 8  # q8_0
    assert "output.weight" not in kinds
