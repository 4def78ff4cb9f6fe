"""Logprobs of given tokens, by the policy and by the base alone, and adapters from a folder."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import oracle
import orjson
import pytest
import tiny_llama
from implementations import EVERY

from offapi.adapter import Base, encode, parameter
from offapi.backend import Backend
from offapi.episodes import Episode, Segment
from offapi.errors import BackendError, ModelError
from offapi.model_spec import Limits, LoraSpec
from offapi.optimizer import Arrays

Load = Callable[..., Backend]
SHAPE = LoraSpec(rank=4, alpha=6.0)


def episode(*parts: tuple[bool, range | tuple[int, ...]], name: str = "e") -> Episode:
    return Episode(name, tuple(Segment(tuple(tokens), learned) for learned, tokens in parts))


PREFIX = tuple(range(60, 85))
EPISODES = [
    episode((False, (*PREFIX, 1, 2)), (True, (3, 4, 5))),
    episode((False, (*PREFIX, 7)), (True, range(8, 30))),
    # A tool answers between two completions.
    episode((False, PREFIX), (True, (9, 10)), (False, (11, 12, 13)), (True, (14, 257))),
    episode((False, (*PREFIX, 1, 2)), (True, (3, 4, 6, 7))),
    episode((False, (5,)), (True, (6,))),
]


# Logprobs of -37 nats at temperature 0.6 are off by 1.5e-5, half a step of float32 there.
CLOSE = min(3 * oracle.CLOSE, 1e-4)  # a GPU is allowed what it was


def close(computed: list[np.ndarray], expected: list[np.ndarray], atol: float = CLOSE) -> None:
    assert [one.shape for one in computed] == [one.shape for one in expected]
    for one, other in zip(computed, expected, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, atol=atol)


@pytest.fixture
def folder(tmp_path: Path, adapter: Arrays) -> Path:
    """The adapter as PEFT lays it out."""
    for name, content in encode(adapter, SHAPE, Base("tiny")).items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


@EVERY
@pytest.mark.parametrize("temperature", [1.0, 0.6, 3.0])
def test_policy_and_reference_against_numpy(
    adapted: Load, truth: oracle.Llama, adapter: Arrays, temperature: float
) -> None:
    backend = adapted()
    policy = [
        oracle.masked(truth.logits(e.tokens, adapter, SHAPE.scale), e, temperature)
        for e in EPISODES
    ]
    base = [oracle.masked(truth.logits(e.tokens), e, temperature) for e in EPISODES]
    close(backend.score(EPISODES, temperature=temperature), policy)
    close(backend.score(EPISODES, by="reference", temperature=temperature), base)
    close(backend.score(EPISODES, temperature=temperature), policy)  # the adapter is on again
    assert max(np.abs(a - b).max() for a, b in zip(policy, base, strict=True)) > 0.1


@pytest.mark.parametrize(
    "limits", [Limits(train_tokens=1), Limits(train_tokens=70), Limits(logit_rows=1)]
)
def test_limits_change_nothing(adapted: Load, limits: Limits) -> None:
    close(adapted(limits=limits).score(EPISODES), adapted().score(EPISODES), atol=2e-5)


def test_twins_and_masks_inside_what_is_shared(
    adapted: Load, truth: oracle.Llama, adapter: Arrays
) -> None:
    shared = episode(
        (False, PREFIX[:5]), (True, PREFIX[5:15]), (False, PREFIX[15:]), (True, (1, 2))
    )
    # The longest, so that what it masks late meets an early mask.
    late = episode((False, PREFIX), (True, (1, 2, 3, 4)))
    twins = [shared, episode((False, PREFIX), (True, (1, 2))), shared, late]
    expected = [oracle.masked(truth.logits(e.tokens, adapter, SHAPE.scale), e) for e in twins]
    close(adapted().score(twins), expected)


def test_without_an_adapter(load: Load, truth: oracle.Llama) -> None:
    backend = load()
    close(backend.score(EPISODES), [oracle.masked(truth.logits(e.tokens), e) for e in EPISODES])
    assert backend.score([]) == []


def test_a_fresh_adapter_changes_nothing(load: Load) -> None:
    close(load(lora=SHAPE).score(EPISODES), load().score(EPISODES), atol=1e-6)


@EVERY
def test_the_first_token_may_not_be_masked(load: Load) -> None:
    with pytest.raises(ValueError, match="row-7"):
        load().score([episode((True, (3, 4)), name="row-7")])


def test_bfloat16_is_near(load: Load) -> None:
    close(load(dtype="bfloat16").score(EPISODES), load().score(EPISODES), atol=0.3)


def test_an_adapter_from_a_folder(load: Load, adapted: Load, folder: Path) -> None:
    close(load(adapter=folder).score(EPISODES), adapted().score(EPISODES), atol=1e-6)
    close(load(adapter=folder, lora=SHAPE).score(EPISODES), adapted().score(EPISODES), atol=1e-6)


def test_an_adapter_loads_the_same_in_peft(load: Load, folder: Path, model_folder: Path) -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    import torch

    base = transformers.AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(base, folder)
    with torch.no_grad():
        logits = [model(torch.tensor([e.tokens])).logits[0].double().numpy() for e in EPISODES]
    expected = [oracle.masked(one, e) for one, e in zip(logits, EPISODES, strict=True)]
    close(load(adapter=folder).score(EPISODES), expected)


def test_an_adapter_trained_on_one_backend_runs_on_the_other(
    load: Load, backend_name: str, tmp_path: Path
) -> None:
    from offapi.optimizer import AdamW

    other = {"torch": "mlx", "mlx": "torch"}[backend_name]
    if find_spec(other) is None:
        pytest.skip(f"{other} is not installed")
    here = load(lora=SHAPE)
    for _ in range(3):
        here.forward_backward(EPISODES)
        here.optim_step(1e-2, AdamW())
    for name, content in encode(here.state().adapter, SHAPE, Base("tiny")).items():
        (tmp_path / name).write_bytes(content)
    expected = here.score(EPISODES)
    close(load(name=other, adapter=tmp_path).score(EPISODES), expected)
    assert np.abs(expected[1] - load().score(EPISODES)[1]).max() > 0.01


def refuse(load: Load, folder: Path, adapter: Arrays, shape: LoraSpec = SHAPE) -> None:
    for name, content in encode(adapter, shape, Base("tiny")).items():
        (folder / name).write_bytes(content)
    with pytest.raises(ModelError):
        load(adapter=folder)


def test_adapters_that_do_not_fit_are_refused(load: Load, folder: Path, adapter: Arrays) -> None:
    a, b = (parameter("model.layers.0.mlp.up_proj", matrix) for matrix in "AB")
    refuse(load, folder, {name: array for name, array in adapter.items() if name not in (a, b)})
    refuse(load, folder, adapter | {parameter("model.layers.7.mlp.up_proj", "A"): adapter[a]})
    refuse(load, folder, adapter | {a: adapter[a][:, :10]})
    refuse(load, folder, adapter, LoraSpec(rank=2, alpha=6.0))
    refuse(load, folder, {name.replace("mlp", "ffn"): array for name, array in adapter.items()})
    for name, content in encode(adapter, SHAPE, Base("tiny")).items():
        (folder / name).write_bytes(content.replace(b'"v_proj"', b'"q_proj"'))
    with pytest.raises(ModelError, match="does not fit"):
        load(adapter=folder)


def test_an_adapter_of_another_shape_than_asked_for_is_refused(load: Load, folder: Path) -> None:
    with pytest.raises((ModelError, BackendError)):
        load(adapter=folder, lora=LoraSpec(rank=4, alpha=12.0))


def test_a_target_without_a_layer_is_refused(load: Load) -> None:
    with pytest.raises((ModelError, BackendError), match="up_porj"):
        load(lora=LoraSpec(rank=2, targets=("q_proj", "up_porj")))


def changed(tmp_path: Path, **config: object) -> Path:
    path = tiny_llama.write(tmp_path / "changed")
    settings = {
        key: value for key, value in (tiny_llama.CONFIG | config).items() if value is not None
    }
    (path / "config.json").write_bytes(orjson.dumps(settings))
    return path


def test_an_overlooked_rotation_base_is_refused_or_right(
    load: Load, tmp_path: Path, truth: oracle.Llama
) -> None:
    """transformers 5 writes `rope_parameters`; a reader of `rope_theta` alone silently uses 10000."""
    path = changed(
        tmp_path, rope_theta=None, rope_parameters={"rope_theta": 100000.0, "rope_type": "default"}
    )
    refused, scores = "", []
    try:
        scores = load(path=path).score(EPISODES)
    except ModelError as error:
        refused = str(error)
    if refused:
        assert "rope_theta" in refused
    else:
        close(scores, [oracle.masked(truth.logits(e.tokens), e) for e in EPISODES])


def test_code_in_a_model_folder_is_never_run(load: Load, tmp_path: Path) -> None:
    path = changed(
        tmp_path,
        model_file="evil.py",
        auto_map={"AutoModelForCausalLM": "evil.Evil"},
        model_type="evil",
    )
    (path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ModelError):
        load(path=path)
    assert not (tmp_path / "ran").exists()


def test_a_folder_without_a_model_is_refused(load: Load, tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        load(path=tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_temperature_divides_logits_in_float32(load: Load, dtype: str) -> None:
    """Also where the model computes in bfloat16, whose steps are 1/128 of a logit."""
    backend, prompt = load(dtype=dtype), (False, (*PREFIX, 1, 2))
    episodes = [episode(prompt, (True, (token,))) for token in range(tiny_llama.VOCAB)]
    plain = np.concatenate(backend.score(episodes)).astype(np.float64)
    for temperature in (0.7, 3.0):
        tempered = np.concatenate(backend.score(episodes, temperature=temperature))
        expected = oracle.log_softmax(plain / temperature)
        np.testing.assert_allclose(tempered, expected, atol=2e-5)


def test_auto_is_the_precision_that_suits_the_device(
    load: Load, backend_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = import_module(f"offapi.backends.{backend_name}_backend.backend")
    for there, dtype in ((False, "float32"), (True, "bfloat16")):
        monkeypatch.setattr(module, "prefers_bfloat16", lambda device, there=there: there)
        for one, other in zip(
            load(dtype="auto").score(EPISODES), load(dtype=dtype).score(EPISODES), strict=True
        ):
            np.testing.assert_array_equal(one, other)
