"""Adapters as PEFT, Unsloth and mlx-lm write them: exact on both backends, or refused in words.

The oracles are PEFT's own model and mlx-lm's own layers on the same base, a small Qwen 2.5 with
biases.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import families
import numpy as np
import orjson
import pytest
from test_bound_rollout import GREEDY
from test_engine import answer_all

from offapi.adapter import CONFIG, WEIGHTS, read
from offapi.backend import Backend
from offapi.engine import RowRequest
from offapi.episodes import Episode, Segment
from offapi.errors import ModelError
from offapi.export.mlx_form import write_adapter
from offapi.export.source import merged_tensors
from offapi.model_spec import LoraSpec
from offapi.optimizer import AdamW, Arrays, TrainState

Load = Callable[..., Backend]
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CLOSE = 1e-5  # nats
ROW = tuple(33 + (i * 37) % 87 for i in range(40))
EPISODE = Episode("row", (Segment(ROW[:1], False), Segment(ROW[1:], True)))
UNSLOTH = (
    r"(?:.*?(?:vision|image|visual).*?(?:self_attn|attention|attn|mlp).*?(?:q_proj|up_proj).*?)|"
    r"(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn|mlp)\.(?:(?:q_proj|up_proj)))"
)
READ: dict[str, dict[str, Any]] = {
    "plain": {"target_modules": LINEARS, "lora_dropout": 0.3},
    "all": {"target_modules": "all-linear"},
    "rslora": {"target_modules": LINEARS, "use_rslora": True},
    "dora": {"target_modules": LINEARS, "use_dora": True},
    "one layer": {"target_modules": ["q_proj", "up_proj"], "layers_to_transform": [1]},
    "named list": {
        "target_modules": ["up_proj"],
        "layers_to_transform": [0],
        "layers_pattern": ["h", "layers"],
    },
    "numbered": {"target_modules": ["layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"]},
    "regex": {"target_modules": UNSLOTH},
    "excluded": {"target_modules": ["q_proj", "v_proj"], "exclude_modules": r".*\.0\..*v_proj"},
    "patterns": {
        "target_modules": LINEARS,
        "rank_pattern": {r"layers\.1\.mlp\..*": 2, "q_proj": 5},
        "alpha_pattern": {"q_proj": 3, r"model\.layers\.0\.self_attn\.k_proj": 20},
        "use_rslora": True,
        "use_dora": True,
    },
    "gaussian": {"target_modules": ["q_proj"], "init_lora_weights": "gaussian"},
    "orthogonal": {"target_modules": ["q_proj"], "init_lora_weights": "orthogonal"},
    "float16": {"target_modules": LINEARS},
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "pissa": ({"target_modules": ["q_proj"], "init_lora_weights": "pissa"}, "changes the base"),
    "olora": ({"target_modules": ["q_proj"], "init_lora_weights": "olora"}, "changes the base"),
    "bias": ({"target_modules": ["q_proj"], "bias": "lora_only"}, "biases of the base"),
    "lora_bias": ({"target_modules": ["q_proj"], "lora_bias": True}, "biases in its matrices"),
    "head": ({"target_modules": ["q_proj", "lm_head"]}, "on the head or the embedding too"),
    "embedding": ({"target_modules": ["embed_tokens"]}, "on the head or the embedding too"),
    "saved": ({"target_modules": ["q_proj"], "modules_to_save": ["norm"]}, "whole modules"),
    "tokens": ({"target_modules": ["q_proj"], "trainable_token_indices": [3]}, "rows of the embed"),
    "parameters": (
        {"target_modules": [], "target_parameters": ["q_proj.weight"]},
        "parameters other than linear layers",
    ),
}


@dataclass(frozen=True)
class Folders:
    """The base, and adapters by name with the logprobs of PEFT's own model where it is read."""

    base: Path
    adapters: Mapping[str, Path]
    wanted: Mapping[str, np.ndarray]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    path = tmp_path_factory.mktemp("peft")
    base = families.write("qwen2.5", path / "base")
    ways = READ | {name: way for name, (way, _) in REFUSED.items()}
    wanted = {name: _write(base, path / name, way) for name, way in ways.items()}
    return Folders(base, {name: path / name for name in ways}, wanted)


def _write(base: Path, folder: Path, way: dict[str, Any]) -> np.ndarray:
    """Write an adapter as if it had been trained; return the logprobs of PEFT's model with it."""
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    def fresh() -> Any:
        return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)

    torch.manual_seed(0)
    model = get_peft_model(fresh(), LoraConfig(r=4, lora_alpha=6, task_type="CAUSAL_LM", **way))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn_like(weight))
    if folder.name == "float16":
        model = model.half()
    model.save_pretrained(folder)
    again = PeftModel.from_pretrained(fresh(), folder).float().eval()
    with torch.no_grad():
        logprobs_LV = torch.log_softmax(again(torch.tensor([ROW])).logits[0], -1)
    wanted: np.ndarray = logprobs_LV[:-1].gather(1, torch.tensor(ROW[1:])[:, None])[:, 0].numpy()
    return wanted


def test_every_adapter_computes_what_it_does_in_peft(load: Load, folders: Folders) -> None:
    plain = load(path=folders.base).score([EPISODE])[0]
    for name in READ:
        got = load(path=folders.base, adapter=folders.adapters[name]).score([EPISODE])[0]
        assert np.abs(got - folders.wanted[name]).max() < CLOSE, name
        assert np.abs(got - plain).max() > 0.05, f"{name} changes too little to be seen"


def test_rows_of_every_adapter_share_a_batch(load: Load, folders: Folders) -> None:
    """An engine's own adapter is DoRA with patterns, and the rows have all the others."""
    named = {name: folders.adapters[name] for name in READ}
    engine = load(path=folders.base, adapter=folders.adapters["patterns"]).engine(named)
    asked = [RowRequest(ROW[:9], GREEDY, 3, adapter=name) for name in (None, *named)]
    for request, answer in zip(asked, answer_all(engine, asked), strict=True):
        alone = load(path=folders.base, adapter=named[request.adapter or "patterns"])
        said = Episode("said", (Segment(ROW[:9], False), Segment(tuple(answer.tokens), True)))
        np.testing.assert_allclose(answer.logprobs, alone.score([said])[0], atol=2 * CLOSE)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_more_than_low_rank_is_refused_in_words(
    load: Load, folders: Folders, name: str
) -> None:
    with pytest.raises(ModelError, match=REFUSED[name][1]) as caught:
        load(path=folders.base, adapter=folders.adapters[name])
    assert caught.value.where.startswith(str(folders.adapters[name]))
    assert caught.value.next_step


def test_an_adapter_on_the_head_is_refused_however_it_is_saved(
    load: Load, folders: Folders, tmp_path: Path
) -> None:
    """PEFT can leave the base's own matrix out; what is left looks like any other pair."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folders.adapters["head"] / WEIGHTS)
    kept = {name: array for name, array in tensors.items() if ".lora_" in name}
    save_file(kept, tmp_path / WEIGHTS)
    (tmp_path / CONFIG).write_bytes((folders.adapters["head"] / CONFIG).read_bytes())
    with pytest.raises(ModelError, match="on the head or the embedding too"):
        load(path=folders.base, adapter=tmp_path)


def test_an_adapter_of_a_multimodal_model_fits_its_text_model(
    load: Load, folders: Folders, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    plain = folders.adapters["plain"]
    tensors = load_file(plain / WEIGHTS)
    wrapped = {
        name.replace("model.layers", "model.language_model.layers"): tensors[name]
        for name in tensors
    }
    assert wrapped.keys() != tensors.keys()
    save_file(wrapped, tmp_path / WEIGHTS)
    (tmp_path / CONFIG).write_bytes((plain / CONFIG).read_bytes())
    got = load(path=folders.base, adapter=tmp_path).score([EPISODE])[0]
    assert np.abs(got - folders.wanted["plain"]).max() < CLOSE


@pytest.mark.parametrize("name", ["patterns", "excluded"])
def test_an_exported_adapter_computes_what_it_did(
    load: Load, folders: Folders, name: str, tmp_path: Path
) -> None:
    """Merged into its base, and in mlx-lm's layout, which has one rank and one scale."""
    from safetensors.numpy import save_file

    merged, mlx = tmp_path / "merged", tmp_path / "mlx"
    shutil.copytree(folders.base, merged)
    tensors = dict(merged_tensors(folders.base, folders.adapters[name]))
    save_file(tensors, merged / "model.safetensors", metadata={"format": "pt"})
    got = load(path=merged).score([EPISODE])[0]
    assert np.abs(got - folders.wanted[name]).max() < 2 * CLOSE
    write_adapter(*read(folders.adapters[name]), mlx, 2)
    got = load(path=folders.base, adapter=mlx).score([EPISODE])[0]
    assert np.abs(got - folders.wanted[name]).max() < 2 * CLOSE


# mlx-lm's own


@pytest.fixture(scope="module", params=["lora", "dora"])
def of_mlx_lm(
    request: pytest.FixtureRequest, folders: Folders, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, np.ndarray]:
    """What `mlx_lm.lora` writes for the last of two layers, and the logprobs of mlx-lm with it."""
    pytest.importorskip("mlx_lm")
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import load_model

    folder = tmp_path_factory.mktemp(str(request.param))
    model, _ = load_model(folders.base)
    keys = ["self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"]
    parameters = {"rank": 8, "scale": 3.0, "dropout": 0.1, "keys": keys}
    model.freeze()
    linear_to_lora_layers(model, 1, parameters, use_dora=request.param == "dora")
    mx.random.seed(3)
    moved = {
        name: array + 0.1 * mx.random.normal(array.shape)
        for name, array in tree_flatten(model.trainable_parameters())
    }
    model.load_weights(list(moved.items()), strict=False)
    model.eval()
    mx.save_safetensors(str(folder / "adapters.safetensors"), moved)
    options = {"fine_tune_type": request.param, "num_layers": 1, "lora_parameters": parameters}
    (folder / CONFIG).write_bytes(orjson.dumps({"model": "some/base", "iters": 100, **options}))
    logits_LV = model(mx.array([ROW]))[0].astype(mx.float32)
    logprobs_LV = np.array(logits_LV - mx.logsumexp(logits_LV, axis=-1, keepdims=True))
    return folder, logprobs_LV[np.arange(len(ROW) - 1), list(ROW[1:])]


def test_an_adapter_of_mlx_lm_computes_what_it_does_there(
    load: Load, folders: Folders, of_mlx_lm: tuple[Path, np.ndarray]
) -> None:
    folder, wanted = of_mlx_lm
    got = load(path=folders.base, adapter=folder).score([EPISODE])[0]
    assert np.abs(got - wanted).max() < CLOSE
    assert np.abs(got - load(path=folders.base).score([EPISODE])[0]).max() > 0.05
    spec, arrays = read(folder)
    assert (spec.rank, spec.scale, spec.dora) == (8, 3.0, len(arrays) == 9)


# training


TRAINED = {
    "rslora": LoraSpec(4, 6.0, rslora=True),
    "dora": LoraSpec(4, 6.0, dora=True),
    "layers": LoraSpec(4, 6.0, targets="all-linear", layers=(1,), exclude=("o_proj",)),
    "patterns": LoraSpec(
        4, 6.0, dora=True, ranks={r"mlp\..*": 2}, alphas={"q_proj": 3.0, r"layers\.1\..*": 9.0}
    ),
}
BATCH = [EPISODE, Episode("other", (Segment(ROW[5:9], False), Segment(ROW[20:31], True)))]


@pytest.mark.parametrize("name", TRAINED)
def test_a_step_of_every_shape_is_pefts(
    load: Load, folders: Folders, name: str, tmp_path: Path
) -> None:
    """Loss, gradient and update from the same numbers, by autograd through PEFT's own layers."""
    from offapi.adapter import encode

    shape = TRAINED[name]
    backend = load(path=folders.base, lora=shape)
    first = backend.state().adapter
    draw = np.random.default_rng(2)
    moved = {key: a + 0.1 * draw.standard_normal(a.shape).astype("f") for key, a in first.items()}
    np.testing.assert_array_equal(
        load(path=folders.base, lora=shape).score([EPISODE])[0], backend.score([EPISODE])[0]
    )
    plain = load(path=folders.base).score([EPISODE])[0]
    assert np.abs(backend.score([EPISODE])[0] - plain).max() < CLOSE  # B is 0
    backend.restore(TrainState(moved))
    assert np.abs(backend.score([EPISODE])[0] - plain).max() > 0.05
    assert np.abs(backend.score([EPISODE], by="reference")[0] - plain).max() < CLOSE
    for file, content in encode(moved, shape).items():
        (tmp_path / file).write_bytes(content)
    loss, gradients, updated = _peft_step(folders.base, tmp_path)
    metrics = backend.forward_backward(BATCH)
    assert abs(metrics["loss"] - loss) < CLOSE
    taken = backend.optim_step(0.01, AdamW(max_grad_norm=0.0))
    norm = float(np.sqrt(sum(np.square(g).sum() for g in gradients.values())))
    assert abs(taken["grad_norm"] / norm - 1) < 1e-4
    state = backend.state()
    assert state.adapter.keys() == gradients.keys()
    for key, gradient in gradients.items():
        np.testing.assert_allclose(state.exp_avg[key], 0.1 * gradient, atol=1e-6, rtol=1e-3)
        np.testing.assert_allclose(state.adapter[key], updated[key], atol=3e-4)


def _peft_step(base: Path, folder: Path) -> tuple[float, Arrays, Arrays]:
    """Return loss, gradients and parameters after one step of AdamW, by PEFT's saved names."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    fresh = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(fresh, folder, is_trainable=True).eval()
    trained = {
        name.replace(".default", "").replace("_vector.weight", "_vector"): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    loss, tokens = torch.zeros(()), 0
    for episode in BATCH:
        ids = torch.tensor([episode.tokens])
        logprobs_LV = torch.log_softmax(model(ids).logits[0, :-1], -1)
        mask = torch.tensor(episode.mask[1:])
        loss = loss - logprobs_LV.gather(1, ids[0, 1:, None])[:, 0][mask].sum()
        tokens += int(mask.sum())
    loss = loss / tokens
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = {name: p.grad.numpy().copy() for name, p in trained.items() if p.grad is not None}
    torch.optim.AdamW(list(trained.values()), lr=0.01, weight_decay=0.0).step()
    return float(loss), gradients, {n: p.detach().numpy() for n, p in trained.items()}
