"""GGUF files of more families: written as llama.cpp holds them, and converted back to what they were.

That llama.cpp computes from such files what transformers does, `unit/export/test_gguf_form` shows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import families
import numpy as np
import pytest
import tiny_gguf
from safetensors.numpy import load_file

from offapi.chat.chat import Chat
from offapi.errors import ModelError
from offapi.export.gguf_file import write_gguf
from offapi.export.gguf_vocabulary import PROBE
from offapi.models import gguf_config, gguf_weights

transformers = pytest.importorskip("transformers")
pytest.importorskip("torch")

ROWS = 416  # of the embedding: more than any of the tokenizers has tokens
# family, split, keys that differ
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gemma 3": ("gemma3-cut", "sentencepiece-never", {}),
    "gemma 2": ("gemma2", "sentencepiece-never", {"num_hidden_layers": 4}),
    "phi 3": ("phi3", "sentencepiece", {"sliding_window": 4096}),
    "phi 4": ("phi4", "gpt-4o", {"partial_rotary_factor": 1.0}),
    "granite": ("granite3", "refact", {}),
    "olmo 2": ("olmo2", "dbrx", {}),
    "nemo": ("mistral-nemo", "tekken", {}),
    "llama 3.2": ("llama3.2", "llama-bpe", {}),
    "smollm 3": ("smollm3", "smaug-bpe", {}),
}
TEXTS = (PROBE, tiny_gguf.WORDS[:90], "nof anot aseas ceas", " a b  c", "<s>[INST] hi [/INST]")


def written(folder: Path, name: str) -> tuple[Path, Path]:
    """Write the family's folder and a GGUF file of it."""
    family, split, more = CASES[name]
    source = families.write(family, folder / "source", vocab_size=ROWS, **more)
    assert tiny_gguf.write_tokenizer(source, split) <= ROWS
    config = transformers.AutoConfig.from_pretrained(source).to_dict()
    weights = load_file(source / "model.safetensors")
    shapes = {key: value.shape for key, value in weights.items()}
    chat, file = Chat.load(source), folder / "tiny.gguf"
    write_gguf(file, config, chat, shapes, iter(weights.items()), "f32", "tiny")
    return source, file


def logits(folder: Path) -> np.ndarray[Any, Any]:
    import torch

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        values: np.ndarray[Any, Any] = model(torch.arange(40)[None]).logits[0].numpy()
    return values


@pytest.mark.parametrize("name", CASES)
def test_a_family_is_converted_back(tmp_path: Path, name: str) -> None:
    source, file = written(tmp_path, name)
    folder = tmp_path / "converted"
    folder.mkdir()
    gguf_weights.convert_gguf(gguf_weights.open_gguf(file), folder)
    before = load_file(source / "model.safetensors")
    after = load_file(folder / "model.safetensors")
    assert after.keys() == before.keys()
    for key, weight in before.items():  # 1 added to a norm and taken away again rounds it
        assert np.abs(after[key] - weight).max() < 1e-6, key
    assert np.abs(logits(folder) - logits(source)).max() < 1e-4
    theirs, ours = (transformers.AutoTokenizer.from_pretrained(each) for each in (source, folder))
    for text in TEXTS:
        assert ours(text)["input_ids"] == theirs(text)["input_ids"], text


def test_factors_that_are_not_llamas_are_refused() -> None:
    scaling = gguf_config.LLAMA3 | {"factor": 32.0, "original_max_position_embeddings": 8192}
    factors = gguf_config.llama3_factors(scaling, 500000.0, 64)
    assert gguf_config.find_llama3(factors, 500000.0, 64) == {"rope_type": "llama3"} | scaling
    assert gguf_config.find_llama3(np.ones(32, np.float32), 500000.0, 64) == {}
    with pytest.raises(ValueError, match="not those of Llama 3's scaling"):
        gguf_config.find_llama3(factors * np.linspace(1, 1.1, 32), 500000.0, 64)


def test_experts_are_refused(tmp_path: Path) -> None:
    _, file = written(tmp_path, "llama 3.2")
    content = file.read_bytes().replace(b"blk.1.ffn_gate.weight", b"blk.1.ffn_gatx.weight")
    file.write_bytes(content)
    with pytest.raises(ModelError, match="does not belong to a plain llama model"):
        gguf_weights.convert_gguf(gguf_weights.open_gguf(file), tmp_path)
