"""Policy gradients against finite differences of the NumPy model; sampling masks and references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import policy_oracle
import pytest
import tiny_llama
from implementations import EVERY
from policy_oracle import Array, Sample

from offapi.adapter import Base, encode, module, parameter
from offapi.backend import Backend, Completion, Sampling
from offapi.episodes import Episode, Metrics, SamplingMask, Segment
from offapi.errors import BackendError
from offapi.model_spec import Limits, LoraSpec
from offapi.optimizer import AdamW, Arrays, TrainState
from offapi.policy_loss import Experience, PolicyLoss, Update

Load = Callable[..., Backend]
SHAPE = LoraSpec(rank=4, alpha=6.0)
PLAIN = AdamW(max_grad_norm=0.0)
TEMPERATURE = 1.7
SHARED = tuple(range(40, 60))
PROMPTS = ((*SHARED, 1, 2, 3), (*SHARED, 9), (70, 71, 72, 73))
# Prompt, completion, advantage; a list is what a tool answers between two completions.
ROWS: tuple[tuple[int, tuple[tuple[int, ...] | list[int], ...], float], ...] = (
    (0, ((3, 4, 5, 6, 257),), 1.2),
    (1, ((11, 12), [13, 14, 15], (16, 257)), 0.7),
    (0, ((8,),), -0.4),
    (2, (tuple(range(100, 109)),), -0.9),
    (0, ((3, 4, 9, 10, 11, 12, 13, 14),), -0.8),
    (1, (tuple(range(20, 32)),), -0.7),
    (2, ((100, 5, 6),), 0.9),
)
MASKED = (2, 4)  # the rows that were sampled with truncation


def episode(
    prompt: tuple[int, ...], *parts: tuple[int, ...] | list[int], name: str = "e"
) -> Episode:
    segments = (Segment(tuple(part), isinstance(part, tuple)) for part in parts)
    return Episode(name, (Segment(prompt, False), *segments))


def with_sampling_mask(given: Episode) -> Episode:
    """Give each token of the one sampled segment a set of itself and five others."""
    prompt, sampled = given.segments
    rng = np.random.default_rng(len(sampled.tokens))
    sets = [
        np.union1d(rng.choice(tiny_llama.VOCAB, 5, replace=False), [token])
        for token in sampled.tokens
    ]
    mask = SamplingMask(
        np.concatenate(sets).astype(np.int32), np.array(list(map(len, sets)), np.int32)
    )
    return replace(given, segments=(prompt, replace(sampled, sampling_mask=mask)))


def logprobs(
    truth: oracle.Llama, adapter: Any, one: Episode, temperature: float = TEMPERATURE
) -> Array:
    """Return NumPy's logprobs of the masked tokens, over the sampling mask if there is one."""
    logits = truth.logits(one.tokens, adapter, SHAPE.scale if adapter else 0.0) / temperature
    places = [t for t, on in enumerate(one.mask) if on]
    rows = logits[[t - 1 for t in places]]
    if one.sampling_mask is not None:
        hidden = np.full_like(rows, -np.inf)
        for row, ids in enumerate(
            np.split(one.sampling_mask.ids, one.sampling_mask.counts.cumsum()[:-1])
        ):
            hidden[row, ids] = 0
        rows = rows + hidden
    chosen = [one.tokens[t] for t in places]
    return np.asarray(oracle.log_softmax(rows)[np.arange(len(places)), chosen])


def near(values: Array, seed: int, scale: float) -> np.ndarray:
    noise = scale * np.random.default_rng(seed).standard_normal(len(values))
    return np.asarray(values + noise, np.float32)


def with_behaviour(one: Episode, values: np.ndarray) -> Episode:
    segments, start = [], 0
    for segment in one.segments:
        stop = start + len(segment.tokens) * segment.sampled
        segments.append(
            replace(
                segment, logprobs=tuple(values[start:stop].tolist()) if segment.sampled else None
            )
        )
        start = stop
    return replace(one, segments=tuple(segments))


@pytest.fixture(scope="session")
def batch(truth: oracle.Llama, adapter: Arrays) -> list[Experience]:
    """Mixed groups of three prompts, with old, behaviour and reference logprobs off the policy's."""
    made = []
    for i, (prompt, parts, advantage) in enumerate(ROWS):
        one = episode(PROMPTS[prompt], *parts, name=f"row-{i}")
        one = with_sampling_mask(one) if i in MASKED else one
        own = logprobs(truth, adapter, one)
        one = with_behaviour(one, near(own, i, 0.5))
        made.append(Experience(one, advantage, near(own, 50 + i, 0.2), near(own, 90 + i, 0.6)))
    return made


def samples(
    truth: oracle.Llama, adapter: Any, batch: Sequence[Experience], temperature: float
) -> list[Sample]:
    """Return the same batch for the oracle of losses, with NumPy's own logprobs."""

    def wide(values: np.ndarray | None) -> Array | None:
        return None if values is None else values.astype(np.float64)

    return [
        Sample(
            logprobs(truth, adapter, x.episode, temperature),
            x.advantage if x.by_token is None else x.by_token.astype(np.float64),
            *map(wide, (x.old, x.episode.behaviour, x.reference)),
        )
        for x in batch
    ]


def taken(backend: Backend) -> Arrays:
    """Return the gradient, read off the first moment of one step without clipping."""
    backend.optim_step(0.0, PLAIN)
    return {
        name: moment / np.float32(1 - PLAIN.beta1)
        for name, moment in backend.state().exp_avg.items()
    }


def gradient(
    backend: Backend, batch: Sequence[Experience], loss: PolicyLoss
) -> tuple[Update, Arrays]:
    return backend.policy_gradient(batch, loss), taken(backend)


def flat(arrays: Arrays) -> Array:
    return np.concatenate([arrays[name].astype(np.float64).ravel() for name in sorted(arrays)])


def apart(one: Arrays, other: Arrays, scale: float = 1.0) -> float:
    """Return the relative difference of `one` and `scale` times `other`, each as one vector."""
    assert one.keys() == other.keys()
    return float(
        np.linalg.norm(flat(one) - scale * flat(other)) / np.linalg.norm(scale * flat(other))
    )


def same_logprobs(
    update: Update, expected: Sequence[Array | None], atol: float = oracle.CLOSE
) -> None:
    assert len(update.logprobs) == len(expected)
    for one, other in zip(update.logprobs, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert one.dtype == np.float32
            np.testing.assert_allclose(one, other, atol=atol)


def expected_metrics(given: Sequence[Sample], loss: PolicyLoss, knobs: dict[str, Any]) -> Metrics:
    ratios, largest, low, high, units = policy_oracle.statistics(
        given, loss.rule, loss.low, loss.high
    )
    return {
        "loss": float(policy_oracle.loss(given, **knobs)),
        "tokens": float(sum(len(sample.logprobs) for sample in given)),
        "ratio/mean": ratios / units,
        "ratio/max": largest,
        "clip_ratio/low_mean": low / units,
        "clip_ratio/high_mean": high / units,
    }


# The gradient

CASES: dict[str, dict[str, Any]] = {
    "dr_grpo": {"rule": "dr_grpo", "max_tokens": 12},
    "gspo": {"rule": "gspo", "epsilon": 0.05, "epsilon_high": 0.05},
    "cispo": {"rule": "cispo"},
    "grpo k3": {"rule": "grpo", "beta": 0.4},
    "dapo k2": {"rule": "dapo", "beta": 0.4, "kl": "k2", "tis_cap": 1.2},
    "rloo": {"rule": "rloo", "epsilon": 0.3, "epsilon_high": 0.3, "tis_cap": 0.0},
    "maxrl": {"rule": "maxrl"},
}


def by_token(batch: Sequence[Experience]) -> list[Experience]:
    """Give the tokens of every other experience advantages of their own."""
    rng = np.random.default_rng(8)
    own = [rng.standard_normal(sum(x.episode.mask)).astype(np.float32) for x in batch]
    mixed = [replace(x, advantage=0.0, by_token=own_T) for x, own_T in zip(batch, own, strict=True)]
    return [mixed[i] if i % 2 else x for i, x in enumerate(batch)]


@pytest.mark.parametrize("case", [*CASES, "by token: dr_grpo", "by token: cispo"])
def test_gradient_is_the_slope_of_the_numpy_loss(
    adapted: Load, truth: oracle.Llama, adapter: Arrays, batch: list[Experience], case: str
) -> None:
    knobs = CASES[case.removeprefix("by token: ")]
    batch = batch if case in CASES else by_token(batch)
    loss = PolicyLoss(temperature=TEMPERATURE, **knobs)
    given = samples(truth, adapter, batch, TEMPERATURE)
    update, computed = gradient(adapted(), batch, loss)
    metrics = expected_metrics(given, loss, knobs)
    assert update.metrics == pytest.approx(metrics, abs=oracle.CLOSE)
    assert 0 < metrics["clip_ratio/low_mean"] + metrics["clip_ratio/high_mean"] < 0.9
    same_logprobs(update, [sample.logprobs for sample in given])

    slopes = policy_oracle.gradient(given, **knobs)
    rng = np.random.default_rng(3)
    noise = {name: rng.standard_normal(array.shape) for name, array in adapter.items()}
    directions = [
        {
            name: array.astype(np.float64) / np.linalg.norm(flat(computed))
            for name, array in computed.items()
        }
    ]
    directions += [
        {n: noise[n] if part in n else np.zeros_like(noise[n]) for n in noise}
        for part in ("lora_A", "lora_B", "layers.0")
    ]
    for direction in directions:
        ahead, behind = (
            np.concatenate([logprobs(truth, moved, x.episode) for x in batch])
            for moved in (
                {n: adapter[n] + sign * 1e-5 * direction[n] for n in adapter} for sign in (1, -1)
            )
        )
        slope = float(flat(computed) @ flat(direction))
        assert slopes @ (ahead - behind) / 2e-5 == pytest.approx(slope, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("case", ["dr_grpo", "gspo", "dapo k2"])
def test_gradients_are_the_same_for_any_split_and_order(
    adapted: Load, batch: list[Experience], case: str
) -> None:
    loss = PolicyLoss(temperature=TEMPERATURE, **CASES[case])
    update, whole = gradient(adapted(), batch, loss)
    order = [4, 0, 6, 2, 5, 1, 3]
    for limits in (
        Limits(train_tokens=1),
        Limits(train_tokens=60),
        Limits(train_tokens=90, logit_rows=3),
    ):
        backend = adapted(limits=limits)
        split, computed = gradient(backend, batch, loss)
        assert apart(computed, whole) < 1e-5
        assert split.metrics == pytest.approx(update.metrics, abs=1e-5)
        same_logprobs(split, update.logprobs, atol=2e-5)
        backend.restore(TrainState(adapter=backend.state().adapter))
        mixed, computed = gradient(backend, [batch[i] for i in order], loss)
        assert apart(computed, whole) < 1e-5
        assert mixed.metrics == pytest.approx(update.metrics, abs=1e-5)
        same_logprobs(mixed, [update.logprobs[i] for i in order], atol=2e-5)


@pytest.mark.parametrize("limits", [Limits(), Limits(train_tokens=1)])
def test_a_missing_array_is_neutral_for_its_experience_alone(
    adapted: Load, truth: oracle.Llama, adapter: Arrays, batch: list[Experience], limits: Limits
) -> None:
    """Without old logprobs the ratio is 1, without behaviour logprobs the weight is."""

    def bare(one: Episode) -> Episode:
        return replace(
            one, segments=tuple(replace(segment, logprobs=None) for segment in one.segments)
        )

    some = [replace(x, old=None) if i % 2 else x for i, x in enumerate(batch)]
    some = [replace(x, episode=bare(x.episode)) if i % 3 == 1 else x for i, x in enumerate(some)]
    backend = adapted(limits=limits)
    update, computed = gradient(backend, some, PolicyLoss("dapo", temperature=TEMPERATURE))
    given = samples(truth, adapter, some, TEMPERATURE)
    assert update.metrics["loss"] == pytest.approx(
        policy_oracle.loss(given, rule="dapo"), abs=oracle.CLOSE
    )
    # A missing array equals a default: own logprobs as old ones, old ones as behaviour.
    filled = []
    for x, own in zip(some, update.logprobs, strict=True):
        assert own is not None
        old = own if x.old is None else x.old
        one = with_behaviour(x.episode, old) if x.episode.behaviour is None else x.episode
        filled.append(replace(x, old=old, episode=one))
    backend.restore(TrainState(adapter=adapter))
    _, expected = gradient(backend, filled, PolicyLoss("dapo", temperature=TEMPERATURE))
    assert apart(computed, expected) < 1e-5


def test_calls_add_up(adapted: Load, batch: list[Experience]) -> None:
    backend, loss = adapted(), PolicyLoss("grpo", temperature=TEMPERATURE)
    backend.policy_gradient(batch[:3], loss)
    backend.forward_backward([x.episode for x in batch[:2]])
    _, summed = gradient(backend, batch[3:], loss)
    parts = [gradient(adapted(), some, loss)[1] for some in (batch[:3], batch[3:])]
    backend.restore(TrainState(adapter=backend.state().adapter))
    backend.forward_backward([x.episode for x in batch[:2]])
    parts.append(taken(backend))
    assert (
        apart(summed, {name: np.sum([part[name] for part in parts], axis=0) for name in summed})
        < 1e-5
    )


@pytest.mark.parametrize("rule", ["grpo", "dr_grpo", "dapo", "gspo"])
def test_zero_advantages_count_but_are_not_computed(
    adapted: Load, batch: list[Experience], rule: str
) -> None:
    loss = PolicyLoss(rule, temperature=TEMPERATURE, max_tokens=12)  # type: ignore[arg-type]
    flat_ones = [replace(x, advantage=0.0) for x in batch[:3]]
    backend = adapted()
    alone, expected = gradient(backend, batch[3:], loss)
    backend.restore(TrainState(adapter=backend.state().adapter))
    update, computed = gradient(backend, [*flat_ones[:2], *batch[3:], flat_ones[2]], loss)
    same_logprobs(update, [None, None, *alone.logprobs, None], atol=2e-5)
    all_tokens = sum(sum(x.episode.mask) for x in batch)
    share = alone.metrics["tokens"] / all_tokens if rule == "dapo" else len(batch[3:]) / len(batch)
    assert apart(computed, expected, share) < 1e-5
    assert update.metrics["loss"] == pytest.approx(alone.metrics["loss"] * share, abs=1e-6)
    for name in alone.metrics.keys() - {"loss"}:
        assert update.metrics[name] == pytest.approx(alone.metrics[name], abs=1e-6)


def test_with_a_penalty_every_experience_is_computed(
    adapted: Load, truth: oracle.Llama, adapter: Arrays, batch: list[Experience]
) -> None:
    level = [replace(x, advantage=0.0) for x in batch]
    update = adapted().policy_gradient(level, PolicyLoss("dapo", beta=0.5, temperature=TEMPERATURE))
    given = samples(truth, adapter, level, TEMPERATURE)
    assert update.metrics["loss"] == pytest.approx(
        policy_oracle.loss(given, rule="dapo", beta=0.5), abs=oracle.CLOSE
    )
    same_logprobs(update, [sample.logprobs for sample in given])


def test_a_batch_without_any_advantage_gives_no_gradient(
    adapted: Load, batch: list[Experience]
) -> None:
    backend = adapted()
    update = backend.policy_gradient([replace(x, advantage=0.0) for x in batch], PolicyLoss())
    assert update.logprobs == (None,) * len(batch)
    ones = {"ratio/mean": 1.0, "ratio/max": 1.0}
    zeros = {"loss": 0.0, "tokens": 0.0, "clip_ratio/low_mean": 0.0, "clip_ratio/high_mean": 0.0}
    assert dict(update.metrics) == ones | zeros
    with pytest.raises(BackendError, match="gradient"):
        backend.optim_step(1e-2, PLAIN)


@EVERY
def test_logprobs_returned_are_those_of_score(adapted: Load, batch: list[Experience]) -> None:
    backend = adapted()
    update = backend.policy_gradient(batch, PolicyLoss(temperature=TEMPERATURE))
    same_logprobs(
        update, backend.score([x.episode for x in batch], temperature=TEMPERATURE), atol=2e-5
    )


def test_the_backends_agree(
    load: Load, adapted: Load, backend_name: str, batch: list[Experience]
) -> None:
    other = {"torch": "mlx", "mlx": "torch"}[backend_name]
    if find_spec(other) is None:
        pytest.skip(f"{other} is not installed")
    here, there = adapted(), adapted(name=other)
    assert here.name != there.name
    for knobs in CASES.values():
        loss = PolicyLoss(temperature=TEMPERATURE, **knobs)
        for one in (here, there):
            one.restore(TrainState(adapter=one.state().adapter))
        (update, mine), (others, theirs) = (
            gradient(backend, batch, loss) for backend in (here, there)
        )
        assert apart(mine, theirs) < 1e-4
        assert update.metrics == pytest.approx(others.metrics, abs=oracle.CLOSE)
        same_logprobs(update, others.logprobs)


def test_experiences_that_do_not_fit_are_refused(
    adapted: Load, load: Load, batch: list[Experience]
) -> None:
    backend, good = adapted(), batch[0]
    assert good.old is not None
    assert good.reference is not None
    prompt, sampled = good.episode.segments
    short = replace(good.episode, segments=(prompt, replace(sampled, logprobs=(-1.0,))))
    few = SamplingMask(np.array(sampled.tokens[:2], np.int32), np.ones(2, np.int32))
    thin = replace(good.episode, segments=(prompt, replace(sampled, sampling_mask=few)))
    for bad in (
        replace(good, old=good.old[:-1]),
        replace(good, reference=np.append(good.reference, np.float32(0))),
        replace(good, episode=short),
        replace(good, episode=thin),
        replace(good, reference=None),
        replace(good, episode=Episode("none", (prompt,))),
    ):
        with pytest.raises(ValueError, match=r"row-0|none|fit|reference"):
            backend.policy_gradient([bad, *batch[1:]], PolicyLoss(beta=0.1))
    with pytest.raises(BackendError):
        load().policy_gradient(batch, PolicyLoss())


# Truncated sampling: what is scored is what was sampled from

HOT = Sampling(max_tokens=9, stop_ids=(7, 30, 120), temperature=4.0, seed=11, step=2)
KINDS = {
    "top_k": replace(HOT, top_k=7),
    "top_p": replace(HOT, top_p=0.6),
    "min_p": replace(HOT, min_p=0.2),
    "all": replace(HOT, top_k=12, top_p=0.8, min_p=0.1),
}


def drawn(backend: Backend, sampling: Sampling, n: int = 3) -> list[tuple[Completion, Episode]]:
    return [
        (
            c,
            Episode(
                "",
                (
                    Segment(PROMPTS[group.prompt], False),
                    Segment(c.tokens, True, c.logprobs, c.sampling_mask),
                ),
            ),
        )
        for group in sorted(backend.rollout(PROMPTS, n, sampling), key=lambda group: group.prompt)
        for c in group.completions
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_rollouts_are_scored_over_their_sampling_mask(
    adapted: Load, truth: oracle.Llama, adapter: Arrays, kind: str
) -> None:
    backend, sampling = adapted(limits=Limits(rollout_rows=6, logit_rows=7)), KINDS[kind]
    done = drawn(backend, sampling)
    episodes = [one for _, one in done]
    scored = backend.score(episodes, temperature=sampling.temperature)
    for (completion, one), scores in zip(done, scored, strict=True):
        np.testing.assert_allclose(scores, completion.logprobs, atol=oracle.CLOSE)
        np.testing.assert_allclose(
            scores, logprobs(truth, adapter, one, sampling.temperature), atol=oracle.CLOSE
        )
        mask, start = completion.sampling_mask, one.mask.index(True) - 1
        assert mask is not None
        assert {mask.ids.dtype, mask.counts.dtype} == {np.dtype(np.int32)}
        assert mask.counts.shape == (len(completion.tokens),)
        rows = truth.logits(one.tokens, adapter, SHAPE.scale)[start:-1]
        sets = np.split(mask.ids, mask.counts.cumsum()[:-1])
        for row, token, ids in zip(rows, completion.tokens, sets, strict=True):
            assert token in ids
            np.testing.assert_array_equal(
                ids, np.flatnonzero(np.isfinite(oracle.sampled(row, sampling)))
            )
    everything = [
        replace(e, segments=(e.segments[0], replace(e.segments[1], sampling_mask=None)))
        for e in episodes
    ]
    over_all = backend.score(everything, temperature=sampling.temperature)
    assert np.abs(np.concatenate(over_all) - np.concatenate(scored)).max() > 0.1
    first = [Experience(one, 1.0 - 2.0 * (i % 2)) for i, one in enumerate(episodes)]
    update = backend.policy_gradient(first, PolicyLoss("gspo", temperature=sampling.temperature))
    same_logprobs(update, scored, atol=2e-5)


def test_the_reference_scores_over_sampling_masks_too(adapted: Load, truth: oracle.Llama) -> None:
    backend, sampling = adapted(), KINDS["all"]
    episodes = [one for _, one in drawn(backend, sampling)]
    for one, scores in zip(
        episodes,
        backend.score(episodes, by="reference", temperature=sampling.temperature),
        strict=True,
    ):
        np.testing.assert_allclose(
            scores, logprobs(truth, None, one, sampling.temperature), atol=oracle.CLOSE
        )


@pytest.mark.parametrize(
    "sampling", [HOT, replace(HOT, temperature=0.0, top_k=3, top_p=0.5, min_p=0.1)]
)
def test_other_rollouts_have_no_sampling_mask(adapted: Load, sampling: Sampling) -> None:
    assert not sampling.truncated
    assert all(completion.sampling_mask is None for completion, _ in drawn(adapted(), sampling))


def test_the_expected_score_is_zero_as_it_was_sampled(
    adapted: Load, truth: oracle.Llama, adapter: Arrays
) -> None:
    """E over the sampler of grad log pi is 0, by enumeration, with probabilities as advantages."""
    backend, prompt = adapted(), PROMPTS[0]

    def expected_score(sampling: Sampling, temperature: float, mask: SamplingMask | None) -> float:
        exact = np.exp(oracle.sampled(truth.logits(prompt, adapter, SHAPE.scale)[-1], sampling))
        every = [
            Experience(
                Episode("", (Segment(prompt, False), Segment((token,), True, sampling_mask=mask))),
                float(exact[token]),
            )
            for token in np.flatnonzero(exact).tolist()
        ]
        backend.restore(TrainState(adapter=adapter))
        update, computed = gradient(backend, every, PolicyLoss("dr_grpo", temperature=temperature))
        if temperature == sampling.temperature and (mask is not None) == sampling.truncated:
            given = np.array([float(one[0]) for one in update.logprobs if one is not None])
            np.testing.assert_allclose(given, np.log(exact[exact > 0]), atol=oracle.CLOSE)
        return float(np.linalg.norm(flat(computed))) * len(every)

    plain = replace(HOT, max_tokens=1)
    right, wrong = expected_score(plain, 4.0, None), expected_score(plain, 3.0, None)
    assert right < 1e-3 * wrong
    top = replace(plain, top_k=7)
    (group,) = backend.rollout([prompt], 1, top)
    mask = group.completions[0].sampling_mask
    assert mask is not None
    right, wrong = expected_score(top, 4.0, mask), expected_score(top, 4.0, None)
    assert right < 1e-3 * wrong


# Reference, inner updates, and what a step reports


def other_adapter(adapter: Arrays) -> Arrays:
    rng = np.random.default_rng(21)
    return {
        name: (0.1 * rng.standard_normal(array.shape)).astype(np.float32)
        for name, array in adapter.items()
    }


@pytest.mark.parametrize("fields", [{}, {"lora": SHAPE}])
def test_the_reference_is_the_adapter_that_was_loaded(
    load: Load,
    truth: oracle.Llama,
    adapter: Arrays,
    batch: list[Experience],
    tmp_path: Path,
    fields: dict[str, Any],
) -> None:
    for name, content in encode(adapter, SHAPE, Base("tiny")).items():
        (tmp_path / name).write_bytes(content)
    backend = load(adapter=tmp_path, **fields)
    episodes = [x.episode for x in batch]

    def check(policy: Any) -> None:
        for by, arrays in (("policy", policy), ("reference", adapter), ("policy", policy)):
            scored = backend.score(episodes, by=by, temperature=TEMPERATURE)  # type: ignore[arg-type]
            for one, scores in zip(episodes, scored, strict=True):
                np.testing.assert_allclose(scores, logprobs(truth, arrays, one), atol=oracle.CLOSE)

    check(adapter)
    restored = other_adapter(adapter)
    backend.restore(TrainState(adapter=restored))
    check(restored)
    backend.policy_gradient(batch, PolicyLoss(temperature=TEMPERATURE))
    backend.score(episodes, by="reference")  # between the gradient and the step
    backend.optim_step(1e-2, PLAIN)
    trained = backend.state().adapter
    assert apart(trained, restored) > 0.01
    check(trained)
    gradient(backend, batch, PolicyLoss(temperature=TEMPERATURE))
    check(trained)


def test_a_fresh_adapters_reference_is_the_base(
    load: Load, truth: oracle.Llama, adapter: Arrays
) -> None:
    backend = load(lora=SHAPE)
    backend.restore(TrainState(adapter=adapter))
    one = episode(PROMPTS[0], (3, 4, 5))
    np.testing.assert_allclose(
        backend.score([one], by="reference")[0], logprobs(truth, None, one, 1.0), atol=oracle.CLOSE
    )


def test_inner_updates_have_numpys_ratios(adapted: Load, truth: oracle.Llama) -> None:
    backend, sampling = adapted(), KINDS["all"]
    first = [
        Experience(one, (1.0, -0.3, -0.7)[i % 3])
        for i, (_, one) in enumerate(drawn(backend, sampling))
    ]
    knobs: dict[str, Any] = {"rule": "grpo", "epsilon": 0.01, "epsilon_high": 0.01}
    loss = PolicyLoss(temperature=sampling.temperature, **knobs)
    update = backend.policy_gradient(first, loss)
    ratios = [update.metrics[name] for name in ("ratio/mean", "ratio/max")]
    assert ratios == [1.0, 1.0]
    assert [update.metrics[f"clip_ratio/{side}_mean"] for side in ("low", "high")] == [0.0, 0.0]
    backend.optim_step(1e-2, PLAIN)
    second = [replace(x, old=own) for x, own in zip(first, update.logprobs, strict=True)]
    again = backend.policy_gradient(second, loss)
    given = samples(truth, backend.state().adapter, second, sampling.temperature)
    metrics = expected_metrics(given, loss, knobs)
    assert again.metrics == pytest.approx(metrics, abs=2e-4)
    assert abs(metrics["ratio/mean"] - 1) > 0.01
    assert metrics["clip_ratio/high_mean"] > 0.05


def test_a_step_makes_rewarded_completions_likelier(adapted: Load, batch: list[Experience]) -> None:
    backend = adapted()
    good, bad = (Experience(batch[i].episode, sign) for i, sign in ((0, 1.0), (3, -1.0)))
    before = backend.policy_gradient([good, bad], PolicyLoss()).logprobs
    backend.optim_step(1e-2, PLAIN)
    after = backend.score([good.episode, bad.episode])
    assert before[0] is not None
    assert before[1] is not None
    assert after[0].sum() > before[0].sum() + 0.1
    assert after[1].sum() < before[1].sum() - 0.1


def frobenius(adapter: Arrays) -> float:
    modules = {module(name) for name in adapter}
    changes = [
        adapter[parameter(m, "B")].astype(np.float64) @ adapter[parameter(m, "A")] for m in modules
    ]
    return SHAPE.scale * float(np.sqrt(sum((change**2).sum() for change in changes)))


def test_a_step_reports_adapter_norm_and_unreached_modules(
    adapted: Load, load: Load, adapter: Arrays, batch: list[Experience]
) -> None:
    backend, loss = adapted(), PolicyLoss(temperature=TEMPERATURE)
    for lr in (0.0, 3e-2):
        backend.policy_gradient(batch, loss)
        report = backend.optim_step(lr, PLAIN)
        assert report["adapter_norm"] == pytest.approx(frobenius(backend.state().adapter), rel=1e-5)
        assert report["unreached"] == 0
    assert report["adapter_norm"] > 1.01 * frobenius(adapter)
    dead = [parameter(f"model.layers.1.mlp.{name}_proj", "A") for name in ("up", "down")]
    backend.restore(
        TrainState(adapter={**adapter, **{name: np.zeros_like(adapter[name]) for name in dead}})
    )
    backend.policy_gradient(batch, loss)
    assert backend.optim_step(1e-2, AdamW())["unreached"] == 2
    fresh = load(lora=SHAPE)
    fresh.forward_backward([batch[0].episode])
    report = fresh.optim_step(0.0, PLAIN)
    assert (report["adapter_norm"], report["unreached"]) == (0.0, 0.0)
