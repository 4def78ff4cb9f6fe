"""GGUF files give the model and the tokens that transformers reads; damage is an error."""

from __future__ import annotations

import random
import resource
from pathlib import Path
from typing import Any

import model_files
import numpy as np
import orjson
import pytest
import tiny_llama
from safetensors.numpy import load_file

from offapi.errors import ModelError
from offapi.files.hashing import sha256_file
from offapi.models import gguf_weights, store
from offapi.models import source as model_source
from offapi.models.gguf_weights import WEIGHTS

# Hash of the demo model's converted weights, from which offapi/demo/parity.json was recorded.
DEMO_WEIGHTS = "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd"
TEXTS = (
    "Hello world",
    "The invoice total is 1,234.50 EUR (incl. 19% VAT).",
    "1234567890 12 3",
    "line one\nline two\n\n\n  indented\ttabbed",
    "naïve café Straße Øresund",
    "日本語のレシート 二〇二六年",
    "🙂👩‍👩‍👧 emoji",
    "don't you'll I'VE we're",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
    "broken <|im_end <|endoftext|>end",
    '{"vendor": "ACME", "date": "2026-11-02", "total": 12.5}',
    "trailing spaces   ",
    "\u0663\u0664 ½ Ⅷ",
    "",
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo_home: None) -> None:
    """Give each test its own store."""
    monkeypatch.setenv("OFFAPI_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def demo_home(offapi_home: Path) -> None:
    """Return a store made before any test changes OFFAPI_HOME."""


def logits(folder: Path, tokens: list[int], file: str | None = None) -> np.ndarray[Any, Any]:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file, dtype=torch.float32
    )
    with torch.inference_mode():
        values: np.ndarray[Any, Any] = model(torch.tensor([tokens])).logits[0].numpy()
    return values


def tokenizer(folder: Path, file: str | None = None) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(folder, gguf_file=file)


def demo_file() -> Path:
    return model_source.find_source("demo").path


def test_demo_weights_are_those_that_transformers_was_compared_on(demo_model: store.Model) -> None:
    """`offapi/demo/parity.json` was recorded by transformers from weights of this hash."""
    assert sha256_file(demo_model.path / "model.safetensors") == DEMO_WEIGHTS


def test_demo_tokens_are_what_transformers_reads(demo_model: store.Model) -> None:
    pytest.importorskip("torch")  # transformers reads GGUF with torch alone
    source = demo_file()
    ours, theirs = tokenizer(demo_model.path), tokenizer(source.parent, source.name)
    alike = [text for text in TEXTS if "½" not in text]
    assert len(alike) > len(TEXTS) / 2
    for text in TEXTS:
        if text in alike:  # theirs does not split digits, see below
            assert ours(text)["input_ids"] == theirs(text)["input_ids"], text
        assert ours.decode(ours(text)["input_ids"]) == text
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    for prompt in (False, True):
        shown = [
            t.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
            for t in (ours, theirs)
        ]
        assert shown[0] == shown[1]
    assert (ours.eos_token_id, ours.bos_token_id) == (theirs.eos_token_id, theirs.bos_token_id)


def test_demo_digits_are_split_off_before_spaces_are_joined(demo_model: store.Model) -> None:
    """As in SmolLM2's own tokenizer and llama.cpp's `smollm`.

    transformers' GGUF reader omits that step.
    """
    ours = tokenizer(demo_model.path)
    assert ours.tokenize("a  12") == ["a", "ĠĠ", "1", "2"]
    assert ours.tokenize("x 1") == ["x", "Ġ", "1"]
    assert ours.tokenize("½x") == ["Â½", "x"]


def test_demo_settings(demo_model: store.Model) -> None:
    generation = orjson.loads((demo_model.path / "generation_config.json").read_bytes())
    assert generation == {"eos_token_id": [2], "bos_token_id": 1, "pad_token_id": 2}
    config = orjson.loads((demo_model.path / "config.json").read_bytes())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 100000.0
    assert (config["rms_norm_eps"], config["tie_word_embeddings"], demo_model.license) == (
        1e-5,
        True,
        "apache-2.0",
    )


@pytest.mark.parametrize("q8", [False, True], ids=["fp32", "q8_0"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_each_architecture_is_converted_back(tmp_path: Path, architecture: str, q8: bool) -> None:
    pre = "smollm" if architecture == "llama" else "qwen2"
    path = model_files.write_gguf(tmp_path / "small.gguf", architecture, {"pre": pre}, q8)
    model = store.add(path)
    before, after = (
        load_file(tmp_path / "small-weights" / "model.safetensors"),
        load_file(model.path / WEIGHTS),
    )
    for name, weight in before.items():
        assert np.allclose(after[name], weight, atol=0.03 if q8 else 0.0), name
    assert len(after) - len(before) == {"llama": 0, "qwen2": 6, "qwen3": 4}[architecture]
    tokens = [int(n) for n in np.random.default_rng(0).integers(0, tiny_llama.VOCAB, 40)]
    ours = logits(model.path, tokens)
    assert ours.std() > 0.1
    if (
        architecture != "qwen3"
    ):  # whose head width transformers' GGUF reader does not take from the file
        assert np.abs(ours - logits(tmp_path, tokens, path.name)).max() < 1e-4


def test_splitting_and_bos_follow_the_file(tmp_path: Path) -> None:
    def tokens(pre: str, text: str, **fields: Any) -> list[str]:
        path = model_files.write_gguf(
            tmp_path / f"{pre}-{len(fields)}.gguf", "llama", {"pre": pre} | fields
        )
        made = tokenizer(store.add(path).path)
        words: list[str] = made.convert_ids_to_tokens(made(text)["input_ids"])
        return words

    assert tokens("smollm", "he 12<think>") == ["he", "Ġ", "1", "2", "<think>"]
    assert tokens("llama-bpe", "he 12<|end|>") == ["he", "Ġ", "12", "<|end|>"]
    assert tokens("gpt-2", "12") == ["12"]
    assert tokens("qwen2", "12") == ["1", "2"]
    assert tokens("qwen2", "e\u0301", add_bos=True) == [
        "<|turn|>",
        "Ã",
        "©",
    ]  # NFC, as Qwen's own tokenizer


def test_every_token_that_ends_a_turn_is_named(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"
    for name, text, words in (
        ("a", tiny_llama.TEMPLATE, ["<|end|>"]),
        ("b", template, ["<|end|>", "<|im_end|>"]),
    ):
        model = store.add(
            model_files.write_gguf(tmp_path / f"{name}.gguf", "llama", {"template": text})
        )
        ids = orjson.loads((model.path / "generation_config.json").read_bytes())["eos_token_id"]
        assert tokenizer(model.path).convert_ids_to_tokens(ids) == words


def swap(content: bytes, old: bytes, new: bytes) -> bytes:
    assert len(old) == len(new)
    assert old in content
    return content.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            b"\x05\0\0\0\0\0\0\0llama",
            b"\x05\0\0\0\0\0\0\0gemma",
            "architecture 'gemma' cannot be converted",
        ),
        (b"smollm", b"xmollm", "splitting 'xmollm' is not supported"),
        (b"blk.1.ffn_up", b"blk.1.ffn_ux", "does not belong to a plain llama model"),
        (b"blk.1.ffn_up", b"blk.0.ffn_up", "two tensors|small.gguf"),
        (b"blk.1.ffn_up", b"blk.7.ffn_up", "does not belong to a plain llama model"),
        (b"llama.rope.freq_base", b"llama.rope.freq_bass", "no such error"),
    ],
)
def test_what_is_not_supported_is_refused(
    tmp_path: Path, old: bytes, new: bytes, words: str
) -> None:
    path = model_files.write_gguf(tmp_path / "small.gguf", "llama")
    path.write_bytes(swap(path.read_bytes(), old, new))
    if words == "no such error":  # rope's default is 10000, as in llama.cpp
        assert (
            orjson.loads((store.add(path).path / "config.json").read_bytes())["rope_theta"]
            == 10000.0
        )
        return
    with pytest.raises(ModelError, match=words) as caught:
        store.add(path)
    assert str(path) in caught.value.where
    assert store.listing() == []


def test_a_huge_claim_takes_no_memory(tmp_path: Path) -> None:
    """An array of 2**40 items in a file of 100 bytes is refused.

    The `gguf` package's reader would fill the memory.
    """
    head = (
        b"GGUF" + (3).to_bytes(4, "little") + (0).to_bytes(8, "little") + (1).to_bytes(8, "little")
    )
    field = (1).to_bytes(8, "little") + b"a" + (9).to_bytes(4, "little")
    for inner in (0, 8, 9):
        path = tmp_path / "bomb.gguf"
        path.write_bytes(
            head + field + inner.to_bytes(4, "little") + (1 << 40).to_bytes(8, "little") + bytes(64)
        )
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(ModelError, match="not a readable GGUF file"):
            gguf_weights.open_gguf(path)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_damage_anywhere_is_a_model_error(tmp_path: Path) -> None:
    path = model_files.write_gguf(tmp_path / "small.gguf", "llama")
    sound, draw = path.read_bytes(), random.Random(0)
    header = sound.index(b"blk.1.ffn_down.weight") + 60
    next_steps = []
    for trial in range(300):
        damaged = bytearray(sound)
        if trial % 3 == 0:
            del damaged[draw.randrange(len(sound)) :]
        else:
            damaged[draw.randrange(header)] = draw.choice((0, 1, 9, 127, 255))
        path.write_bytes(damaged)
        folder = tmp_path / f"out{trial}"
        folder.mkdir()
        try:
            gguf_weights.convert_gguf(gguf_weights.open_gguf(path), folder)
        except ModelError as error:
            next_steps.append(error.next_step)
    assert 100 < len(next_steps) < 300
    assert all(next_steps)
