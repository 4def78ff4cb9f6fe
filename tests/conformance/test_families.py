"""Every family people use, on every backend: measured, trained, and its adapter in plain PEFT.

The models are tiny, with the traits of the real configs. `LIBRARY` names those that a backend
computes by its library's own forward, `NOT` those that it does not compute, with the reason.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import families
import numpy as np
import orjson
import pytest
from families import FAMILIES

from offapi import backend as backends
from offapi.adapter import encode, read
from offapi.backend import Backend, Sampling
from offapi.episodes import Episode, Floats, Segment
from offapi.errors import ModelError
from offapi.export.mlx_form import write_adapter as write_mlx_lm_adapter
from offapi.implementations import choose_implementation
from offapi.model_spec import LoraSpec, ModelSpec
from offapi.models import agreement, parity, store
from offapi.models.agreement import ParityOutcome
from offapi.models.reference import open_reference
from offapi.optimizer import AdamW
from offapi.policy_loss import Experience, PolicyLoss

pytest.importorskip("torch", reason="families are written by transformers, with torch")

RECURRENT = ("qwen3.5", "qwen3.5-vision", "granite4", "lfm2", "lfm2.5")
LIBRARY: dict[str, tuple[str, ...]] = {"torch": RECURRENT, "mlx": RECURRENT}
NOT: dict[tuple[str, str], str] = {}
# whose adapter mlx-lm does not open, and whose base it computes otherwise itself
NOT_IN_MLX_LM = ("gemma3n", "gemma4", "qwen3.5", "qwen3.5-vision", "granite4", "gpt-oss")
OTHER_IN_MLX_LM = ("gemma2", "gemma3-odd", "mistral-v0.1", "phi3")
REAL_WINDOW = 512  # of Gemma 3
CLOSE = 2e-5  # nats
SHAPE = LoraSpec(rank=4, alpha=8.0, targets=("all-linear",))
PROMPTS = ((5, 9, 33, 70), (5, 9, 33, 71, 12))
LONG = tuple(int(token) for token in np.random.default_rng(3).integers(3, 250, 24))
ROWS = [
    Episode("one", (Segment(LONG[:4], False), Segment(LONG[4:], True))),
    Episode("two", (Segment(LONG[:4], False), Segment((40, 41, 42, 43), True))),
]

Added = Callable[[str], tuple[store.Model, ParityOutcome]]


@pytest.fixture(scope="session")
def added(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Added]:
    """`added(family)` is the stored model and what was measured of it, once a session."""
    folder = tmp_path_factory.mktemp("families")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OFFAPI_HOME", str(folder / "home"))

        @cache
        def add(family: str) -> tuple[store.Model, ParityOutcome]:
            model = store.add(families.write(family, folder / family))
            return model, agreement.establish_parity(model)

        yield add


@pytest.mark.parametrize("family", FAMILIES)
def test_family(added: Added, tmp_path: Path, backend_name: str, family: str) -> None:
    model, outcome = added(family)
    measured = outcome.measured[backend_name]
    if (family, backend_name) in NOT:
        assert NOT[family, backend_name] in measured.why
        with pytest.raises(ModelError, match="does not compute this model"):
            choose_implementation(model.path, backend_name)
        return
    expected = "library" if family in LIBRARY[backend_name] else "packed"
    assert (measured.implementation, measured.why if expected == "packed" else "") == (expected, "")
    assert measured.difference is not None
    assert measured.difference < parity.TOLERANCE
    shape = SHAPE
    backend = backends.load(backend_name, ModelSpec(model.path, lora=shape, device="cpu"))
    try:
        assert backend.implementation == expected
        learn(backend)
        reinforce(backend)
        scores = backend.score(ROWS)
        adapter = write_adapter(tmp_path / "adapter", backend, shape)
    finally:
        backend.close()
    for ours, theirs in zip(scores, peft_scores(model.path, adapter), strict=True):
        assert np.abs(ours - theirs).max() < parity.TOLERANCE
    if backend_name == "mlx":  # the files are the same, whichever backend trained them
        _compare_with_mlx_lm(family, model.path, adapter, scores)


def _compare_with_mlx_lm(family: str, model: Path, adapter: Path, scores: list[Floats]) -> None:
    if family in NOT_IN_MLX_LM:
        with pytest.raises((ModelError, ValueError)):
            mlx_lm_scores(model, adapter)
        return
    pairs = zip(scores, mlx_lm_scores(model, adapter), strict=True)
    apart = max(float(np.abs(ours - theirs).max()) for ours, theirs in pairs)
    assert (apart < parity.TOLERANCE) == (family not in OTHER_IN_MLX_LM), apart


def test_a_window_cuts_where_its_config_says(added: Added, backend_name: str) -> None:
    """`add` measures a copy whose windows are short: here rows pass the real one, of 512 tokens."""
    model, _ = added("gemma3")
    config = orjson.loads((model.path / "config.json").read_bytes())
    rows = parity.parity_sequences(config["vocab_size"], (REAL_WINDOW + 3, REAL_WINDOW + 60))
    plain = open_reference(model.path, config)
    said = [parity.GreedyRow(row, *map(tuple, plain.greedy(row, 3))) for row in rows]
    known = parity.ParityRecord(
        plain.by, rows, tuple(tuple(plain.logprobs(row).tolist()) for row in rows), tuple(said)
    )
    assert config["sliding_window"] == REAL_WINDOW
    backend = backends.load(backend_name, ModelSpec(model.path, device="cpu"))
    try:
        assert backend.implementation == "packed"
        assert parity.largest_difference(backend, known) < CLOSE
        assert parity.other_greedy_tokens(backend, known) == ""
    finally:
        backend.close()


def learn(backend: Backend) -> None:
    """Three steps on the same rows must lower their loss."""
    losses = []
    for _ in range(3):
        losses.append(backend.forward_backward(ROWS)["loss"])
        backend.optim_step(2e-3, AdamW())
    assert losses[2] < losses[1] < losses[0]


def reinforce(backend: Backend) -> None:
    """Three steps on the backend's own completions; its first ratios must be 1."""
    loss = PolicyLoss(max_tokens=6)
    for step in range(3):
        sampling = Sampling(max_tokens=6, stop_ids=(), temperature=1.0, seed=1, step=step)
        batch = []
        for group in backend.rollout(PROMPTS, 3, sampling):
            prompt = Segment(PROMPTS[group.prompt], False)
            for number, said in enumerate(group.completions):
                answer = Segment(said.tokens, True, logprobs=said.logprobs)
                batch.append(Experience(Episode("e", (prompt, answer)), number - 1.0))
        update = backend.policy_gradient(batch, loss)
        for experience, logprobs in zip(batch, update.logprobs, strict=True):
            if logprobs is not None:
                behaviour = np.asarray(experience.episode.segments[1].logprobs)
                assert np.abs(behaviour - logprobs).max() < parity.TOLERANCE
        assert np.isfinite(backend.optim_step(1e-3, AdamW())["grad_norm"])


def write_adapter(folder: Path, backend: Backend, shape: LoraSpec) -> Path:
    folder.mkdir()
    for name, content in encode(backend.state().adapter, shape).items():
        (folder / name).write_bytes(content)
    return folder


def peft_scores(model: Path, adapter: Path) -> list[np.ndarray[Any, Any]]:
    """Return what transformers and PEFT compute for the masked tokens of ROWS."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    base = auto.from_pretrained(model, dtype=torch.float32, attn_implementation="eager")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # PEFT warns of matrices that it misses
        warnings.filterwarnings("ignore", message=".*(tie_word|tied).*")
        whole: Any = peft.PeftModel.from_pretrained(base, adapter).eval()
    found = []
    for row in ROWS:
        tokens = torch.tensor(row.tokens)
        with torch.no_grad():
            logits_TV = whole(input_ids=tokens[None]).logits[0, :-1]
        picked = logits_TV.log_softmax(-1).gather(-1, tokens[1:, None])[:, 0]
        found.append(picked[[place - 1 for place, on in enumerate(row.mask) if on]].numpy())
    return found


def mlx_lm_scores(model: Path, adapter: Path) -> list[Floats]:
    """Return what mlx-lm computes for the masked tokens of ROWS, with the adapter in its own files.

    Raise ModelError for an adapter on layers that mlx-lm cannot name.
    """
    from offapi.backends.mlx_backend.exported import open_adapter

    layers = orjson.loads((model / "config.json").read_bytes())["num_hidden_layers"]
    folder = adapter.with_name(f"{adapter.name}-mlx-lm")
    write_mlx_lm_adapter(*read(adapter), folder, layers)
    form = open_adapter(folder, model)
    found = []
    for row in ROWS:
        logprobs = form.logprobs(row.tokens)
        found.append(logprobs[[place - 1 for place, on in enumerate(row.mask) if on]])
    return found


def test_what_agrees_nowhere_is_refused(
    added: Added, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OFFAPI_HOME", str(tmp_path / "home"))
    model = store.add(families.write("llama3.2", tmp_path / "model"))
    weights = model.path / "config.json"  # the record says what this model does not compute
    known = agreement.record_reference(model.path, orjson.loads(weights.read_bytes()))
    wrong = parity.ParityRecord("another model", known.sequences[::-1], known.logprobs[::-1])
    shifted = tuple(tuple(one + 0.5 for one in row) for row in wrong.logprobs)
    record = parity.ParityRecord("another model", wrong.sequences, shifted)
    (model.path / "parity.json").write_bytes(parity.encode_record(record))
    with pytest.raises(ModelError, match=r"another model compute .*packed: 0\.5 nats"):
        agreement.establish_parity(model)
