"""One result for any number of ranks: shares on their own, and a backend over three ranks.

The ranks are threads of this process; real ones are in `tests/e2e/test_ranks.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Lock

import bound_answers
import memory_link
import numpy as np
import pytest

from offapi import backend as seam
from offapi.backend import Backend, Sampling
from offapi.constrain import Constraints
from offapi.episodes import Episode, Segment, Totals
from offapi.errors import BackendError
from offapi.model_spec import LoraSpec, ModelSpec
from offapi.optimizer import AdamW, Arrays, TrainState
from offapi.policy_loss import Experience, PolicyLoss
from offapi.ranks import sharding

Load = Callable[..., Backend]
SHAPE = LoraSpec(rank=4, alpha=6.0)
PLAIN = AdamW(max_grad_norm=0.0)
PROMPTS = ((*range(40, 60), 1, 2), (*range(40, 60), 9), (70, 71, 72), (5,))
SAMPLING = Sampling(8, (257,), temperature=1.0, top_k=40, seed=3)
LOSS = PolicyLoss("grpo", beta=0.1, max_tokens=8)


def episodes(backend: Backend) -> list[Episode]:
    found = {}
    for group in backend.rollout(PROMPTS, 3, SAMPLING):
        prompt = Segment(PROMPTS[group.prompt], False)
        for i, one in enumerate(group.completions):
            sampled = Segment(one.tokens, True, one.logprobs, one.sampling_mask)
            found[group.prompt, i] = Episode(f"{group.prompt}#{i}", (prompt, sampled))
    return [found[key] for key in sorted(found)]


def moment(backend: Backend) -> Arrays:
    """Return what has been accumulated, as the first moment of one step without clipping."""
    backend.optim_step(0.0, PLAIN)
    return backend.state().exp_avg


def test_shares_with_the_whole_batchs_totals_add_up_to_its_gradient(adapted: Load) -> None:
    whole, shared = adapted(), adapted()
    batch = episodes(whole)
    shares = sharding.split_episodes(batch, 3)
    all_at_once = whole.forward_backward(batch)
    totals = Totals.of(batch)
    parts = [shared.forward_backward([batch[i] for i in share], totals) for share in shares]
    assert sharding.join_metrics(parts) == pytest.approx(all_at_once, rel=1e-5)
    expected = moment(whole)
    for name, array in moment(shared).items():
        np.testing.assert_allclose(array, expected[name], atol=1e-6)


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load for one rank at a time: transformers' loading is for one thread."""
    load, turn = seam.load, Lock()

    def load_in_turn(name: str, spec: ModelSpec) -> Backend:
        with turn:
            return load(name, spec)

    monkeypatch.setattr(seam, "load", load_in_turn)


@pytest.mark.usefixtures("one_at_a_time")
def test_ranks_draw_and_compute_what_one_process_does(
    adapted: Load, adapter: Arrays, backend_name: str, model_folder: Path
) -> None:
    one = adapted()
    with memory_link.crew_of(3) as crew:
        ranked = crew.load(backend_name, ModelSpec(model_folder, lora=SHAPE, device="cpu"))
        ranked.restore(TrainState(adapter=adapter))
        batch = episodes(one)
        assert ranked.ranks == 3
        shared = episodes(ranked)
        assert [each.tokens for each in shared] == [each.tokens for each in batch]
        assert ranked.prefilled_tokens >= sum(map(len, PROMPTS[::3]))
        references = one.score(batch, "reference")
        for own, given in zip(references, ranked.score(batch, "reference"), strict=True):
            np.testing.assert_allclose(given, own, atol=1e-4)
        assert ranked.forward_backward(batch) == pytest.approx(
            one.forward_backward(batch), rel=1e-4
        )
        pairs = zip(batch, references, strict=True)
        experiences = [
            Experience(each, float(i % 3 - 1), reference=reference_T)
            for i, (each, reference_T) in enumerate(pairs)
        ]
        expected, got = (each.policy_gradient(experiences, LOSS) for each in (one, ranked))
        assert got.metrics == pytest.approx(expected.metrics, rel=1e-3, abs=1e-5)
        for own_T, given_T in zip(expected.logprobs, got.logprobs, strict=True):
            assert own_T is not None
            assert given_T is not None
            np.testing.assert_allclose(given_T, own_T, atol=1e-4)
        wrong = Episode("no", (Segment((1,), False), Segment((10**6,), True)))
        with pytest.raises((BackendError, ValueError, RuntimeError), match="1000000"):
            ranked.forward_backward([*batch, wrong])
        assert [each.tokens for each in episodes(ranked)] == [each.tokens for each in batch]
        ranked.close()


def test_one_process_has_nothing_to_split_a_base_over(load: Load, backend_name: str) -> None:
    said = {"torch": "this is one process", "mlx": "MLX has nothing that splits a base"}
    with pytest.raises(BackendError, match=said[backend_name]) as error:
        load(lora=SHAPE, shard=True)
    assert "`shard`" in error.value.next_step
    if backend_name == "torch":
        for key, value in (("quantize", 4), ("full", True)):
            with pytest.raises(BackendError, match=f"shard cannot go with {key}"):
                load(shard=True, **{key: value})


@pytest.mark.usefixtures("one_at_a_time")
def test_bound_completions_are_drawn_on_other_ranks_too(
    load: Load, backend_name: str, tmp_path: Path
) -> None:
    chat = bound_answers.byte_chat(tmp_path / "model")
    bound = Constraints.of(bound_answers.task_of(), chat, "schema")
    made: list[Constraints] = []

    def bounds() -> Constraints:  # on the other rank
        made.append(Constraints.of(bound_answers.task_of(), chat, "schema"))
        return made[-1]

    prompts = [chat.prompt([{"role": "user", "content": text}]) for text in ("one", "another")]
    sampling = Sampling(6, chat.stop_ids, temperature=1.0, seed=1)
    starts = [bound.start("one"), bound.start("another")]
    spec = ModelSpec(tmp_path / "model", device="cpu")
    alone = load(path=spec.path).rollout(prompts, 2, sampling, starts=starts)
    with memory_link.crew_of(2, bounds) as crew:
        shared = crew.load(backend_name, spec).rollout(prompts, 2, sampling, starts=starts)
        drawn, expected = (
            {each.prompt: [one.tokens for one in each.completions] for each in groups}
            for groups in (shared, alone)
        )
    assert drawn == expected
    assert len(made) == 1
