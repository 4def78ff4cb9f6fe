"""Which layers a shape means, with which rank and scale: PEFT's own functions are the oracle."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key

from offapi.adapter import ModuleLora, resolve
from offapi.adapter.peft_config import config_of, spec_of
from offapi.errors import ModelError
from offapi.model_spec import LINEARS, LoraSpec

WHERE = Path("model")
ATTENTION = [f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj")]
MLP = [f"mlp.{name}" for name in ("gate_proj", "up_proj", "down_proj")]
LLAMA = {f"model.layers.{i}.{name}": (8, 8) for i in range(12) for name in (*ATTENTION, *MLP)}
PHI = {
    f"model.layers.{i}.{name}": (8, 8)
    for i in range(2)
    for name in ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
}
EXPERTS = {
    f"model.layers.0.{name}": (8, 8)
    for name in (*ATTENTION, "mlp.gate", "mlp.router.layer", "mlp.shared_expert.up_proj")
}


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["q_proj", "v_proj"]},
        {"target_modules": ["self_attn.q_proj", "2.mlp.up_proj"]},
        {"target_modules": ["model.layers.1.mlp.up_proj", "layers.1.self_attn.q_proj"]},
        {"target_modules": r".*\.layers\.1\d?\..*(q|v)_proj"},
        {"target_modules": r"model\.layers\.0\.mlp\.(?:up|down)_proj"},
        {"target_modules": ["q_proj"], "layers_to_transform": [1, 11]},
        {"target_modules": ["q_proj"], "layers_to_transform": 1},
        {"target_modules": ["q_proj"], "layers_to_transform": []},
        {
            "target_modules": ["model.layers.3.mlp.up_proj", "q_proj"],
            "layers_to_transform": [1],
        },
        {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
        {
            "target_modules": ["model.layers.3.mlp.up_proj", "up_proj"],
            "layers_to_transform": [1, 2],
            "layers_pattern": ["h", "layers"],
        },
        {"target_modules": ["q_proj", "up_proj"], "exclude_modules": ["1.self_attn.q_proj"]},
        {"target_modules": ["q_proj", "up_proj"], "exclude_modules": r".*\.1\d\..*"},
        {"target_modules": ["q_proj", "up_proj"], "exclude_modules": ["up_proj"]},
    ],
)
def test_the_layers_are_those_that_peft_adapts(config: dict[str, object]) -> None:
    oracle = LoraConfig(r=4, **config)  # type: ignore[arg-type]
    wanted = [path for path in LLAMA if check_target_module_exists(oracle, path)]
    given = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, **config}
    spec = spec_of(given, WHERE)
    assert list(resolve(spec, LLAMA, WHERE)) == wanted != []


def test_ranks_and_alphas_are_those_that_peft_looks_up() -> None:
    ranks = {r"layers\.1\.mlp\..*": 3, "q_proj": 6, r"layers.1.self_attn.q_proj": 9}
    alphas = {r".*\.0\.mlp\.up_proj": 5.0, "proj": 7.0, "up_proj": 1.0}
    alphas_of_proj = {key: value for key, value in alphas.items() if key != "proj"}
    for rslora in (False, True):
        spec = LoraSpec(4, 8.0, rslora=rslora, ranks=ranks, alphas=alphas_of_proj)
        for path, lora in resolve(spec, LLAMA, WHERE).items():
            rank = ranks.get(get_pattern_key(list(ranks), path), 4)
            alpha = alphas_of_proj.get(get_pattern_key(list(alphas_of_proj), path), 8.0)
            assert lora == ModuleLora(rank, alpha / (math.sqrt(rank) if rslora else rank))
    with pytest.raises(ModelError, match="'proj'"):
        resolve(LoraSpec(alphas=alphas), LLAMA, WHERE)


def test_the_default_suits_the_model() -> None:
    assert list(resolve(LoraSpec(), LLAMA, WHERE)) == list(LLAMA)
    assert list(resolve(LoraSpec(), PHI, WHERE)) == list(PHI)
    assert list(resolve(LoraSpec(targets="all-linear"), PHI, WHERE)) == list(PHI)
    routers = {"model.layers.0.mlp.gate", "model.layers.0.mlp.router.layer"}
    assert resolve(LoraSpec(), EXPERTS, WHERE).keys() == EXPERTS.keys() - routers
    only = resolve(LoraSpec(targets=("all-linear",), layers=(1,), exclude=("o_proj",)), PHI, WHERE)
    assert list(only) == [path for path in PHI if ".1." in path and "o_proj" not in path]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (LoraSpec(targets=("q_porj",)), "no linear layer 'q_porj'"),
        (LoraSpec(targets=("q_proj", "lm_head")), "'lm_head' cannot have an adapter here"),
        (LoraSpec(targets=(*LINEARS, "embed_tokens")), "'embed_tokens' cannot have an adapter"),
        (LoraSpec(layers=(1, 12)), "no layer 12"),
        (LoraSpec(targets=r".*\.router"), r"is meant by \.\*"),
        (LoraSpec(ranks={"qkv_proj": 2}), "meant by 'qkv_proj'"),
    ],
)
def test_what_is_nowhere_in_the_model_is_refused(spec: LoraSpec, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        resolve(spec, LLAMA, WHERE)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"ranks": {"q_proj": 0}}, "ranks must be 1 or more"),
        ({"alphas": {"q_proj": 0.0}}, "alphas must be above 0"),
        ({"ranks": {"(": 1}}, "regular expression"),
        ({"targets": "("}, "regular expression"),
        ({"exclude": "["}, "regular expression"),
        ({"layers": (-1,)}, "layers must be 0 or more"),
        ({"layers": (1,), "targets": ".*"}, "expression in targets"),
    ],
)
def test_a_shape_that_means_nothing_is_refused(keys: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LoraSpec(**keys)  # type: ignore[arg-type]


def test_the_config_written_means_the_same_to_peft() -> None:
    """All-linear is written as whole paths, so that no other layer of that name is meant."""
    for spec, linears in (
        (LoraSpec(), PHI),
        (LoraSpec(), LLAMA),
        (LoraSpec(targets=("q_proj",), layers=(2,), ranks={"q_proj": 2}, rslora=True), LLAMA),
        (LoraSpec(targets="all-linear", layers=(1,), exclude=("up_proj",), dora=True), LLAMA),
        (LoraSpec(targets=r".*\.1\d\.self_attn\..*", alphas={"q_proj": 2.0}), LLAMA),
    ):
        modules = resolve(spec, linears, WHERE)
        names = [f"base_model.model.{path}.lora_A.weight" for path in modules]
        config = config_of(spec, names, "base")
        oracle = LoraConfig(**{k: v for k, v in config.items() if k != "peft_type"})
        assert [path for path in linears if check_target_module_exists(oracle, path)] == list(
            modules
        )
        assert resolve(spec_of(config, WHERE), linears, WHERE) == modules
