"""How the torch backend chooses between packed rows and the library's forward, and their heads."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import write

from offapi.backend import Backend, Sampling, load
from offapi.engine import RowRequest
from offapi.episodes import Episode, Segment
from offapi.errors import ModelError
from offapi.model_spec import Limits, LoraSpec, ModelSpec

torch = pytest.importorskip("torch")
attention = pytest.importorskip("offapi.backends.torch_backend.attention")
losses = pytest.importorskip("offapi.backends.torch_backend.losses")

ROWS = [tuple(range(3, 40)), tuple(range(90, 60, -1)), tuple(range(200, 230))]
EPISODES = [Episode("", (Segment(row[:4], False), Segment(row[4:], True))) for row in ROWS]
LORA = LoraSpec(rank=2, targets=("q_proj", "v_proj"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A capped head and windows; a scaled head; convolutions between the attention layers."""
    names = ("gemma2", "granite3", "lfm2")
    return {name: write(name, tmp_path_factory.mktemp(name)) for name in names}


def start(folder: Path, **fields: Any) -> Backend:
    return load("torch", ModelSpec(folder, device="cpu", **fields))


def policy_of(backend: Backend) -> Any:
    return getattr(backend, "policy")  # noqa: B009


@pytest.mark.parametrize("name", ["gemma2", "granite3"])
def test_a_head_that_is_more_than_a_matrix_is_the_models_own(
    folders: dict[str, Path], name: str
) -> None:
    backend = start(folders[name], lora=LORA, limits=Limits(logit_rows=7))
    policy = policy_of(backend)
    assert backend.implementation == "packed"
    assert policy.head is None
    (pack,) = losses.micro_batches(policy, EPISODES)
    hidden_TD = losses.hidden_of_pack(policy, pack).detach()
    with torch.no_grad():
        policy.model.config._attn_implementation = "eager"
        whole = [policy.model(input_ids=torch.tensor([row])).logits[0, 3:-1] for row in ROWS]
        policy.model.config._attn_implementation = "offapi"
    torch.testing.assert_close(policy.logits(hidden_TD), torch.cat(whole), atol=2e-5, rtol=1e-4)
    slopes = []
    for part in (losses.recomputed_logprobs, plain_logprobs):
        states = hidden_TD.clone().requires_grad_()
        targets_T = torch.tensor(pack.targets)
        (part(policy, states, targets_T, 1.3, None) ** 2).sum().backward()
        slopes.append(states.grad)
    torch.testing.assert_close(slopes[0], slopes[1])


def plain_logprobs(policy: Any, states: Any, targets_T: Any, temperature: float, _: None) -> Any:
    logprobs_TV = (policy.logits(states).float() / temperature).log_softmax(-1)
    return logprobs_TV.gather(1, targets_T[:, None])[:, 0]


def test_layers_that_carry_a_state_are_the_librarys(folders: dict[str, Path]) -> None:
    backend = start(folders["lfm2"])
    assert backend.implementation == "library"
    assert policy_of(backend).cached
    with pytest.raises(ModelError, match=r"cannot be computed in packed rows: .*type conv"):
        start(folders["lfm2"], implementation="packed")


def test_packed_rows_that_differ_are_not_taken(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for an architecture whose attention is not what its arguments say."""
    right = start(folders["granite3"])
    true = attention.Packed.attend

    def scaled(self: Any, layer: int, q: Any, *rest: Any) -> Any:
        return true(self, layer, q * 1.5, *rest)

    monkeypatch.setattr(attention.Packed, "attend", scaled)
    with pytest.raises(ModelError, match=r"differ from its plain forward by [0-9.]+ nats"):
        start(folders["granite3"], implementation="packed")
    other = start(folders["granite3"])
    assert (right.implementation, other.implementation) == ("packed", "library")
    monkeypatch.undo()
    for one, two in zip(right.score(EPISODES), other.score(EPISODES), strict=True):
        np.testing.assert_allclose(one, two, atol=2e-5)


def test_steps_without_a_cache_draw_the_same(folders: dict[str, Path]) -> None:
    """Where a cache does not give what the forward gives, everything is computed again."""
    backend = start(folders["lfm2"])
    stops = tuple(range(0, 320, 6))  # rows of one prompt end apart
    sampling = Sampling(max_tokens=6, stop_ids=stops, temperature=3.0, seed=3)
    requests = [
        RowRequest(row[:cut], sampling, key, sample, keep=True)
        for key, (row, cut) in enumerate(zip(ROWS, (5, 30, 5), strict=True))
        for sample in range(4)
    ]
    answers: list[list[Any]] = []
    for cached in (True, False):
        policy_of(backend).cached = cached
        engine = backend.engine()
        numbers, drawn = engine.insert(requests), []
        for given in ((), (7, 8, 9)):
            for number in numbers if given else ():
                engine.extend(number, given, replace(sampling, max_tokens=3))
            while not engine.idle:
                drawn += engine.step()
        answers.append(sorted(drawn, key=lambda token: token.row))
    assert [t[:2] for t in answers[0]] == [t[:2] for t in answers[1]]
    assert {token.finish for token in answers[0]} == {None, "stop", "length"}
    ends = [[token.logprob for token in each] for each in answers]
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-4)


def test_a_rotary_embedding_that_grows_is_each_rows_own(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """Beyond 20 tokens the embedding changes at every position: of no neighbour, and with no cache."""
    folder = tmp_path / "grows"
    shutil.copytree(folders["granite3"], folder)
    config = json.loads((folder / "config.json").read_text())
    factors = {"short_factor": [1.0] * 8, "long_factor": [1.0 + 0.5 * i for i in range(8)]}
    rope = {"rope_type": "longrope", "original_max_position_embeddings": 20, **factors}
    config["rope_scaling"] = rope
    (folder / "config.json").write_text(json.dumps(config))
    backend = start(folder)
    assert backend.implementation == "library"
    for episode, alone in zip(EPISODES, backend.score(EPISODES), strict=True):
        np.testing.assert_allclose(backend.score([episode])[0], alone, atol=2e-5)
    prompts = [row[:17] for row in ROWS]
    sampling = Sampling(max_tokens=9, stop_ids=(), temperature=2.0)
    for group in backend.rollout(prompts, 2, sampling):
        for completion in group.completions:
            own = Segment(completion.tokens[5:], True)
            given = Segment((*prompts[group.prompt], *completion.tokens[:5]), False)
            (scored,) = backend.score([Episode("", (given, own))], temperature=2.0)
            np.testing.assert_allclose(completion.logprobs[-1], scored[-1], atol=2e-5)
