"""Every weight trained: the gradient is torch's own autograd's on both backends, the head's too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import families
import numpy as np
import pytest
from safetensors.numpy import load_file

from offapi.backend import Backend
from offapi.episodes import Episode, Segment
from offapi.errors import BackendError
from offapi.model_spec import Limits, LoraSpec
from offapi.optimizer import AdamW, TrainState
from offapi.policy_loss import Experience, PolicyLoss

Load = Callable[..., Backend]
ROW = tuple(33 + (i * 37) % 87 for i in range(40))
BATCH = [
    Episode("row", (Segment(ROW[:20], False), Segment(ROW[20:], True))),
    Episode("other", (Segment(ROW[:20], False), Segment(ROW[5:14], True))),
]
STEP = AdamW(max_grad_norm=1.0, weight_decay=0.1)


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "own head"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("full")
    return families.write("qwen2.5", path / "base", tie_word_embeddings=request.param)


def test_a_step_of_every_weight_is_torchs_own(load: Load, folder: Path) -> None:
    backend = load(path=folder, full=True, limits=Limits(train_tokens=64, logit_rows=7))
    loss, gradients, updated = _torch_step(folder)
    metrics = backend.forward_backward(BATCH)
    assert abs(metrics["loss"] - loss) < 1e-5
    before = backend.score(BATCH)
    taken = backend.optim_step(0.01, STEP)
    squares = {name: float(np.square(g).sum()) for name, g in gradients.items()}
    assert abs(taken["grad_norm"] / sum(squares.values()) ** 0.5 - 1) < 1e-4
    assert taken["unreached"] == 0
    state = backend.state()
    assert (
        state.adapter.keys() == gradients.keys() == load_file(folder / "model.safetensors").keys()
    )
    factor = min(1.0, 1 / taken["grad_norm"])
    for name, gradient in gradients.items():
        np.testing.assert_allclose(
            state.exp_avg[name], 0.1 * factor * gradient, atol=2e-6, rtol=2e-3
        )
        clear = np.abs(gradient) > 1e-4  # AdamW's first step follows the sign of any other
        np.testing.assert_allclose(state.adapter[name][clear], updated[name][clear], atol=1e-4)
    after = backend.score(BATCH)
    assert np.abs(after[0] - before[0]).max() > 0.01
    for now, then in zip(backend.score(BATCH, by="reference"), before, strict=True):
        np.testing.assert_array_equal(now, then)
    for now, then in zip(backend.score(BATCH), after, strict=True):
        np.testing.assert_array_equal(now, then)


def _torch_step(folder: Path) -> tuple[float, dict[str, Any], dict[str, Any]]:
    """Return loss, gradients and weights after one step, by plain autograd and AdamW."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    loss, tokens = torch.zeros(()), 0
    for episode in BATCH:
        ids = torch.tensor([episode.tokens])
        logprobs_LV = torch.log_softmax(model(ids).logits[0, :-1], -1)
        mask = torch.tensor(episode.mask[1:])
        loss = loss - logprobs_LV.gather(1, ids[0, 1:, None])[:, 0][mask].sum()
        tokens += int(mask.sum())
    (loss / tokens).backward()
    named = dict(model.named_parameters())
    gradients = {name: p.grad.numpy().copy() for name, p in named.items() if p.grad is not None}
    torch.nn.utils.clip_grad_norm_(list(named.values()), 1.0)
    torch.optim.AdamW(list(named.values()), lr=0.01, weight_decay=0.1).step()
    updated = {name: weight.detach().numpy() for name, weight in named.items()}
    return float(loss.detach() / tokens), gradients, updated


def test_a_policys_step_resumes_to_the_same_bytes(load: Load, folder: Path) -> None:
    """GRPO's gradient trains every weight too, and the state is all that a resume needs."""
    experiences = [
        Experience(episode=episode, advantage=advantage, reference=scores)
        for episode, advantage, scores in zip(
            BATCH, (1.0, -1.0), load(path=folder).score(BATCH, by="reference"), strict=True
        )
    ]

    def step(backend: Backend) -> TrainState:
        backend.policy_gradient(experiences, PolicyLoss(beta=0.1))
        backend.optim_step(0.01, STEP)
        return backend.state()

    first = load(path=folder, full=True)
    step(first)
    middle = first.state()
    whole = step(first)
    second = load(path=folder, full=True)
    second.restore(middle)
    resumed = step(second)
    for kind in ("adapter", "exp_avg", "exp_avg_sq"):
        for name, array in getattr(whole, kind).items():
            assert getattr(resumed, kind)[name].tobytes() == array.tobytes(), (kind, name)
    np.testing.assert_array_equal(
        first.score(BATCH, by="reference")[0], second.score(BATCH, by="reference")[0]
    )


def test_in_bfloat16_small_steps_are_kept_in_float32(load: Load, folder: Path) -> None:
    """Steps too small for bfloat16 add up, and the state resumes to the same bytes."""
    made = {"path": folder, "full": True, "dtype": "bfloat16"}
    first, exact = load(**made), load(path=folder, full=True)
    stored = load_file(folder / "model.safetensors")
    for name, array in first.state().adapter.items():
        np.testing.assert_array_equal(array, stored[name])
    before = first.score(BATCH)
    middle = first.state()
    gradients = []
    for backend in (first, exact):
        backend.forward_backward(BATCH)
        gradients.append(backend.optim_step(1e-5, STEP)["grad_norm"])
    assert gradients[0] == pytest.approx(gradients[1], rel=0.05)
    moved = first.state().adapter
    assert all(0 < np.abs(moved[name] - stored[name]).max() < 2e-5 for name in stored)
    for _ in range(2):
        middle = first.state()
        first.forward_backward(BATCH)
        first.optim_step(1e-3, STEP)
    again = load(**made)
    again.restore(middle)
    np.testing.assert_array_equal(
        again.state().adapter["model.norm.weight"], middle.adapter["model.norm.weight"]
    )
    again.forward_backward(BATCH)
    again.optim_step(1e-3, STEP)
    for kind in ("adapter", "exp_avg", "exp_avg_sq"):
        for name, array in getattr(first.state(), kind).items():
            assert getattr(again.state(), kind)[name].tobytes() == array.tobytes(), (kind, name)
    after = first.score(BATCH)
    assert np.abs(after[0] - before[0]).max() > 0.01
    np.testing.assert_array_equal(again.score(BATCH)[0], after[0])
    np.testing.assert_array_equal(first.score(BATCH, by="reference")[0], before[0])
    np.testing.assert_array_equal(first.score(BATCH)[0], after[0])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"lora": LoraSpec()}, "in full or with an adapter"),
        ({"quantize": 4}, "cannot be trained themselves"),
    ],
)
def test_what_does_not_go_with_every_weight_is_refused(
    load: Load, folder: Path, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(BackendError, match=words):
        load(path=folder, full=True, **more)
