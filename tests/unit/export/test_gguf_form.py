"""A GGUF file computes in llama.cpp what its source computes, and a wrong one is noticed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import families
import gguf_files
import numpy as np
import orjson
import pytest
import tiny_gguf
from safetensors.numpy import load_file

from offapi import adapter as adapters
from offapi.export.check import FormCheck, SourceAnswers, ask_source, load_source
from offapi.export.reopen import FormQuestions
from offapi.export.source import ExportSource
from offapi.model_spec import LoraSpec
from offapi.models.normal_config import normalise_config
from offapi.predict.answering_model import AnsweringModel

BACKEND = "torch" if find_spec("torch") else "mlx"
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
BIASES = {"tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"kind": "mistral", "split": "gpt-2"},
    "qwen2": {"kind": "qwen2", "split": "qwen2"},
    "qwen3": {"kind": "qwen3", "split": "qwen2", "head_dim": 32},
    "smollm3": {"kind": "smollm3", "num_hidden_layers": 4, "pad_token_id": 0},
    "llama 3": {"split": "llama-bpe", "rope_scaling": LLAMA3},
    "biases": BIASES | {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    "adapter": {},
    "pieces": {"kind": "mistral", "split": "sentencepiece"},
    "pieces of a start": {"kind": "mistral", "split": "sentencepiece-first"},
    "no system role": {"chat_template": tiny_gguf.NO_SYSTEM},
    "yarn": {"kind": "qwen2", "split": "qwen2", "rope_scaling": YARN},
}
# family, split; llama.cpp looks the GELU of a Gemma up in a table of 16 bits
FAMILIES = {
    "gemma 3": ("gemma3-cut", "sentencepiece-never", 2e-3),
    "granite": ("granite3", "refact", 2e-4),
    "phi 4": ("phi4", "gpt-4o", 2e-4),
}
KINDS = ("f16", "bf16", "q8_0", "q5_1", "q4_0")
STRIPS = "strips after turns"
BUGS = ("rows", "base", "factors", "split", "end", "template")

# Not imported here: native code that may not share a process with other such libraries.
pytestmark = pytest.mark.skipif(find_spec("xllamacpp") is None, reason="xllamacpp is not installed")


@dataclass(frozen=True)
class Opened:
    """A written file, and llama.cpp's answers or its error."""

    file: gguf_files.WrittenGguf
    told: Any


@pytest.fixture(scope="session")  # tests of one backend come first, across modules
def opened(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Opened]:
    """Write every file, and open all of them in one process."""
    root = tmp_path_factory.mktemp("gguf")
    sources = {name: make_source(root, name) for name in (*MODELS, *FAMILIES, STRIPS)}
    strip_after_turns(sources[STRIPS].base)
    written = {name: gguf_files.write(root / f"{name}.out", each) for name, each in sources.items()}
    for kind in KINDS:
        written[kind] = gguf_files.write(root / f"{kind}.out", sources["llama"], kind)
    for bug in BUGS:
        written[bug] = gguf_files.write(root / f"{bug}.out", sources["llama 3"], bug=bug)
    asked = {
        name: FormQuestions.of(answers(BACKEND, file.source.base, file.source.adapter))
        for name, file in written.items()
    }
    told = gguf_files.open_all(written, asked)
    return {name: Opened(file, told[name]) for name, file in written.items()}


def make_source(root: Path, name: str) -> ExportSource:
    if name in FAMILIES:
        return make_family(root / name, *FAMILIES[name][:2])
    base = tiny_gguf.write(root / name, **MODELS.get(name, {}))
    adapter = draw_adapter(root / "lora") if name == "adapter" else None
    return ExportSource(AnsweringModel.of(base, adapter))


def make_family(folder: Path, family: str, split: str) -> ExportSource:
    more = {"partial_rotary_factor": 1.0} if family == "phi4" else {}
    families.write(family, folder, vocab_size=416, **more)
    tiny_gguf.write_tokenizer(folder, split)
    config = orjson.loads((folder / "config.json").read_bytes())
    tensors = load_file(folder / "model.safetensors")
    normal = normalise_config(config, tensors, str(folder))
    (folder / "config.json").write_bytes(orjson.dumps(normal))
    return ExportSource(AnsweringModel.of(folder, None))


def strip_after_turns(folder: Path) -> None:
    """Make the token that ends a turn swallow the spaces after it, which llama.cpp does not."""
    path = folder / "tokenizer.json"
    content = orjson.loads(path.read_bytes())
    for token in content["added_tokens"]:
        token["rstrip"] = token["content"] == tiny_gguf.END
    path.write_bytes(orjson.dumps(content))


def draw_adapter(folder: Path) -> Path:
    folder.mkdir()
    draw = np.random.default_rng(3)
    shapes = {"self_attn.q_proj": (64, 64), "self_attn.v_proj": (32, 64), "mlp.up_proj": (96, 64)}
    arrays = {}
    for layer in range(2):
        for target, (rows, columns) in shapes.items():
            path = f"model.layers.{layer}.{target}"
            for matrix, shape in (("A", (4, columns)), ("B", (rows, 4))):
                values = draw.standard_normal(shape) / 4
                arrays[adapters.parameter(path, matrix)] = values.astype(np.float32)
    spec = LoraSpec(4, 8.0, targets=tuple(target.split(".")[-1] for target in shapes))
    for name, content in adapters.encode(arrays, spec).items():
        (folder / name).write_bytes(content)
    return folder


@cache
def answers(backend_name: str, base: Path, adapter: Path | None) -> SourceAnswers:
    source = ExportSource(AnsweringModel.of(base, adapter))
    backend = load_source(source, backend_name)
    try:
        return ask_source(backend, source)
    finally:
        backend.close()


def check(each: Opened, backend_name: str) -> FormCheck:
    source = each.file.source
    return gguf_files.compared(
        each.file, answers(backend_name, source.base, source.adapter), each.told
    )


@pytest.mark.parametrize("name", [*MODELS, *FAMILIES])
def test_each_architecture_computes_what_was_trained(
    opened: dict[str, Opened], name: str, backend_name: str
) -> None:
    if (name, backend_name) == ("yarn", "mlx"):
        pytest.skip("MLX refuses the rope of so narrow a head")
    found = check(opened[name], backend_name)
    assert found.passed, found.sentence()
    assert found.greedy_equal == found.prompts
    assert found.largest_difference_nats < FAMILIES.get(name, ("", "", 2e-4))[2]
    assert found.template_equal


@pytest.mark.parametrize("kind", KINDS)
def test_each_type_is_near_its_source(opened: dict[str, Opened], kind: str) -> None:
    found = check(opened[kind], BACKEND)
    assert found.template_equal
    assert found.mean_difference_nats > 1e-5  # it was rounded
    if kind in ("f16", "q8_0"):
        assert found.passed, found.sentence()


@pytest.mark.parametrize("bug", ["rows", "base", "factors", "template"])
def test_a_wrong_file_does_not_pass(opened: dict[str, Opened], bug: str) -> None:
    each = opened[bug]
    if bug == "template":
        assert "reads a chat as other tokens" in each.told
        return
    found = check(each, BACKEND)
    assert not found.passed
    assert found.largest_difference_nats > 0.1


@pytest.mark.parametrize("name", ["split", STRIPS])
def test_text_that_becomes_other_tokens_does_not_pass(opened: dict[str, Opened], name: str) -> None:
    assert "reads a chat as other tokens" in opened[name].told


def test_an_end_of_turn_that_goes_unnoticed_does_not_pass(opened: dict[str, Opened]) -> None:
    assert opened["end"].told.startswith(
        "llama.cpp does not end an answer at token 2 ('<|turn_end|>')"
    )
