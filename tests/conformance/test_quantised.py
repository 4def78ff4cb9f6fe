"""A base in few bits is a float base of other weights: the same numbers as on those, and adapters that stay.

`floats` reads the weights that a loaded base computes with, so each test compares with the backend's
own float base of them. Left out: how much a quantisation costs, which is the model's affair.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import orjson
import pytest
import tiny_llama
from safetensors.numpy import load_file, save_file

from offapi import adapter as adapters
from offapi.backend import Backend, Sampling
from offapi.engine import RowRequest
from offapi.episodes import Episode, Segment
from offapi.errors import ModelError, OffapiError
from offapi.models import store
from offapi.models.agreement import establish_parity
from offapi.optimizer import AdamW, Arrays, TrainState

needs_bitsandbytes = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)
Load = Callable[..., Backend]
SHAPE = oracle.SHAPE
PROMPTS = [(9, 8, 7, *range(20, 20 + i)) for i in range(1, 6)]
EPISODES = [
    Episode("e", (Segment((1, 2, 3), False), Segment((4, 5, 6, 7), True))),
    Episode("f", (Segment((*range(60, 80), 7), False), Segment(tuple(range(8, 30)), True))),
]
# backend, bits, and how far (relative) a weight may be from the float one; a float weight is 0 off
BASES = [("torch", 4, 0.1), ("torch", 8, 0.01)]
BASES += [("mlx", bits, 1.5 / (2**bits - 1)) for bits in (2, 3, 4, 5, 6, 8)]


@pytest.fixture(params=BASES, ids=[f"{name}-{bits}" for name, bits, _ in BASES])
def base(request: pytest.FixtureRequest, backend_name: str) -> tuple[str, int, float]:
    """A backend and the bits of its base."""
    name, bits, error = request.param
    if name != backend_name:
        pytest.skip("another backend")
    if name == "torch" and bits == 4 and find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed")
    return name, bits, error


def floats(backend: Any, source: Path, target: Path) -> Path:
    """Write the model in `source` with the weights that `backend` computes with."""
    target.mkdir()
    weights = load_file(source / "model.safetensors")
    if backend.name == "torch":
        from offapi.backends.torch_backend.quantised import float_weight, is_packed

        model = backend.policy.model
        found = {
            path: float_weight(layer).cpu().numpy()
            for path, layer in model.named_modules()
            if is_packed(layer)
        }
        weights |= {
            name: parameter.detach().cpu().numpy()
            for name, parameter in model.named_parameters()
            if parameter.is_floating_point()
        }
    else:
        import mlx.core as mx

        found = {
            path: np.array(
                mx.dequantize(
                    layer.weight, layer.scales, layer.biases, layer.group_size, layer.bits
                )
            )
            for path, layer in backend._policy.model.named_modules()
            if hasattr(layer, "bits")
        }
    assert len(found) >= 6 * tiny_llama.LAYERS
    save_file(
        weights | {f"{path}.weight": array for path, array in found.items()},
        target / "model.safetensors",
        metadata={"format": "pt"},
    )
    (target / "config.json").write_bytes((source / "config.json").read_bytes())
    return target


def gradient(backend: Backend) -> np.ndarray:
    backend.forward_backward(EPISODES)
    backend.optim_step(0.0, AdamW(max_grad_norm=0.0))
    moments = backend.state().exp_avg
    return np.concatenate([moments[name].ravel() for name in sorted(moments)])


def test_a_quantised_base_is_a_float_base_of_other_weights(
    base: tuple[str, int, float], load: Load, model_folder: Path, adapter: Arrays, tmp_path: Path
) -> None:
    name, bits, error = base
    quantised = load(name=name, quantize=bits, lora=SHAPE)
    quantised.restore(TrainState(adapter=adapter))
    folder = floats(load(name=name, quantize=bits), model_folder, tmp_path / "floats")
    same = load(name=name, path=folder, lora=SHAPE)
    same.restore(TrainState(adapter=adapter))

    before = load_file(model_folder / "model.safetensors")
    after = load_file(folder / "model.safetensors")
    apart = {n: np.linalg.norm(after[n] - before[n]) / np.linalg.norm(before[n]) for n in before}
    assert 0 < max(apart.values()) < error
    for one, other in zip(quantised.score(EPISODES), same.score(EPISODES), strict=True):
        np.testing.assert_allclose(one, other, atol=oracle.CLOSE)
    one, other = gradient(quantised), gradient(same)
    assert np.linalg.norm(one - other) / np.linalg.norm(other) < oracle.CLOSE

    sampling = Sampling(max_tokens=8, stop_ids=(), temperature=3.0)
    for group in quantised.rollout(PROMPTS, 2, sampling):
        prompt = Segment(PROMPTS[group.prompt], False)
        rows = [Episode("r", (prompt, Segment(row.tokens, True))) for row in group.completions]
        for row, scored in zip(
            group.completions, quantised.score(rows, temperature=3.0), strict=True
        ):
            np.testing.assert_allclose(row.logprobs, scored, atol=oracle.CLOSE)
    greedy = Sampling(max_tokens=8, stop_ids=(), temperature=0.0)
    tokens = [
        {group.prompt: group.completions[0].tokens for group in each.rollout(PROMPTS, 1, greedy)}
        for each in (quantised, same)
    ]
    assert tokens[0] == tokens[1]


def test_an_adapter_of_a_quantised_base_comes_back_as_it_was(
    base: tuple[str, int, float], load: Load, model_folder: Path, tmp_path: Path
) -> None:
    name, bits, _ = base
    backend = load(name=name, quantize=bits, lora=SHAPE)
    losses = []
    for _step in range(4):
        losses.append(backend.forward_backward(EPISODES)["loss"])
        backend.optim_step(2e-2, AdamW())
    assert losses[-1] < losses[0]
    belongs = adapters.Base.of("tiny", model_folder)
    (tmp_path / "a").mkdir()
    for file, content in adapters.encode(backend.state().adapter, SHAPE, belongs).items():
        (tmp_path / "a" / file).write_bytes(content)
    trained = backend.score(EPISODES)
    again = load(name=name, quantize=bits, adapter=tmp_path / "a")
    for one, other in zip(trained, again.score(EPISODES), strict=True):
        np.testing.assert_array_equal(one, other)

    # By row beside the base alone, from an engine of the plain base.
    sampling = Sampling(max_tokens=4, stop_ids=(), temperature=0.0)
    engine = load(name=name, quantize=bits).engine({"a": tmp_path / "a"})
    rows = engine.insert([RowRequest(PROMPTS[0], sampling, adapter=a) for a in ("a", None)])
    drawn: dict[int, list[int]] = {row: [] for row in rows}
    while not engine.idle:
        for token in engine.step():
            drawn[token.row].append(token.token)
    for row, other in zip(rows, (again, load(name=name, quantize=bits)), strict=True):
        (group,) = other.rollout(PROMPTS[:1], 1, sampling)
        assert tuple(drawn[row]) == group.completions[0].tokens


def test_bits_that_a_backend_lacks_are_refused(load: Load, backend_name: str) -> None:
    with pytest.raises(OffapiError, match="got 7 bits") as refused:
        load(quantize=7)
    has = {"torch": "4 .NF4. or 8", "mlx": "2, 3, 4, 5, 6 or 8"}[backend_name]
    assert refused.match(has)


def test_weights_that_are_not_finite_are_refused_before_they_are_packed(
    load: Load, backend_name: str, model_folder: Path, tmp_path: Path
) -> None:
    weights = load_file(model_folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    weights[name] = weights[name].copy()
    weights[name][3, 5] = np.nan
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes((model_folder / "config.json").read_bytes())
    bits = 8 if backend_name == "torch" and find_spec("bitsandbytes") is None else 4
    with pytest.raises(ModelError, match=f"weight '{name}' has numbers that are not finite"):
        load(path=tmp_path, quantize=bits)


def write_nf4(source: Path, target: Path) -> Path:
    """Store the model in NF4 as transformers does, one layer of each block left as it is."""
    from importlib import import_module

    import_module("offapi.backends.torch_backend.quiet_imports").import_bitsandbytes()
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    skip = ["lm_head", *(f"model.layers.{i}.mlp.down_proj" for i in range(tiny_llama.LAYERS))]
    config: Any = BitsAndBytesConfig
    nf4 = config(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=skip,
    )
    auto: Any = AutoModelForCausalLM
    options = {"dtype": torch.bfloat16, "device_map": {"": "cpu"}, "quantization_config": nf4}
    auto.from_pretrained(source, **options).save_pretrained(target)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (target / name).write_bytes((source / name).read_bytes())
    return target


@needs_bitsandbytes
def test_a_folder_stored_in_nf4_is_added_and_trained_on(
    load: Load, backend_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec("torch") is None:
        pytest.skip("torch is not installed")
    monkeypatch.setenv("OFFAPI_HOME", str(tmp_path / "home"))
    source = write_nf4(tiny_llama.write_chat(tmp_path / "chat"), tmp_path / "nf4")
    stored = store.add(source).path
    if backend_name == "mlx":
        with pytest.raises(ModelError, match="stored quantised by 'bitsandbytes'"):
            load(path=stored)
        return
    assert establish_parity(store.get("nf4")).measured["torch"].implementation == "packed"
    with pytest.raises(ModelError, match="already"):
        load(path=stored, quantize=4)
    quantised = load(path=stored, lora=SHAPE)
    folder = floats(load(path=stored), tmp_path / "chat", tmp_path / "floats")
    one, other = (gradient(each) for each in (quantised, load(path=folder, lora=SHAPE)))
    assert np.linalg.norm(one - other) / np.linalg.norm(other) < oracle.CLOSE


@needs_bitsandbytes
def test_packed_weights_of_other_sizes_are_refused(
    load: Load, backend_name: str, tmp_path: Path
) -> None:
    """bitsandbytes would read beyond their end."""
    if backend_name == "mlx":
        pytest.skip("MLX refuses all of them")
    from safetensors import torch as files

    source = write_nf4(tiny_llama.write_chat(tmp_path / "chat"), tmp_path / "nf4")
    weights = files.load_file(source / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight.absmax"
    weights[name] = weights[name][:-1].clone()
    files.save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="do not have the sizes of the layer"):
        load(path=source)


def test_weights_of_another_library_are_refused_in_words(
    load: Load, backend_name: str, model_folder: Path, tmp_path: Path
) -> None:
    config = orjson.loads((model_folder / "config.json").read_bytes())
    stored = {
        "torch": {"quantization": {"group_size": 64, "bits": 4}},
        "mlx": {"quantization_config": {"quant_method": "gptq", "bits": 4}},
    }[backend_name]
    (tmp_path / "config.json").write_bytes(orjson.dumps(config | stored))
    with pytest.raises(ModelError, match="cannot train on weights that are stored quantised by"):
        load(path=tmp_path)


@needs_bitsandbytes
def test_bitsandbytes_comes_when_asked_for_and_asks_no_hub(tmp_path: Path) -> None:
    """Its look for a kernel ends before the package that would fetch one is imported."""
    (tmp_path / "kernels.py").write_text("def get_kernel(*_, **__):\n    print('asked')\n")
    script = (
        "import sys\nimport offapi.backends.torch_backend as torch_backend\n"
        "assert 'bitsandbytes' not in sys.modules\n"
        "from offapi.backends.torch_backend.quiet_imports import import_bitsandbytes\n"
        "import_bitsandbytes().nn.Linear4bit\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_merged_copy_of_a_quantised_base_computes_what_its_layers_do(
    base: tuple[str, int, float], load: Load, adapter: Arrays
) -> None:
    """The copy that rollouts on CUDA have, on the CPU."""
    name, bits, _ = base
    if name == "mlx":
        pytest.skip("MLX has no copy")
    from offapi.backends.torch_backend.merged_weights import Merged

    backend: Any = load(quantize=bits, lora=SHAPE)
    backend.restore(TrainState(adapter=adapter))
    plain = backend.score(EPISODES)
    merged = Merged(backend.policy.model)
    merged.refresh()
    with merged.applied():
        copied = backend.score(EPISODES)
    for one, other in zip(plain, copied, strict=True):
        np.testing.assert_allclose(one, other, atol=oracle.CLOSE)
