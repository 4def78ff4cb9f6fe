"""Decoding: right tokens and logprobs whatever the batch, and no prompt computed twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module

import numpy as np
import oracle
import pytest
from implementations import EVERY

from offapi.backend import Backend, Completion, Sampling
from offapi.episodes import Episode, Segment
from offapi.model_spec import Limits
from offapi.optimizer import Arrays
from offapi.randomness import uniforms

Load = Callable[..., Backend]
SCALE = 1.5  # alpha / rank of the conftest's adapter

SHARED = tuple(range(40, 60))
PROMPTS = [
    (*SHARED, *own) for own in ((1, 2, 3), (9,), (4, 5, 6, 7, 8, 9, 10), (11, 12), (1, 2, 4))
]
SAMPLED = Sampling(max_tokens=10, stop_ids=(), temperature=4.0, seed=11, step=2)
KINDS = {
    "plain": SAMPLED,
    "hot": replace(SAMPLED, temperature=9.0),
    "top_k": replace(SAMPLED, top_k=7),
    "top_p": replace(SAMPLED, top_p=0.6),
    "min_p": replace(SAMPLED, min_p=0.2),
    "all": replace(SAMPLED, top_k=12, top_p=0.8, min_p=0.1),
    "one": replace(SAMPLED, top_k=1),
}


def run(
    backend: Backend,
    prompts: Sequence[Sequence[int]] = PROMPTS,
    n: int = 1,
    sampling: Sampling = SAMPLED,
    keys: Sequence[int] | None = None,
) -> list[tuple[Completion, ...]]:
    """Return completions by prompt; every group must come exactly once and complete."""
    groups = list(backend.rollout(prompts, n, sampling, keys))
    assert sorted(group.prompt for group in groups) == list(range(len(prompts)))
    assert {len(group.completions) for group in groups} == {n}
    completions = {group.prompt: group.completions for group in groups}
    return [completions[i] for i in range(len(prompts))]


def same(one: Completion, other: Completion) -> None:
    assert (one.tokens, one.finish) == (other.tokens, other.finish)
    np.testing.assert_allclose(one.logprobs, other.logprobs, atol=oracle.CLOSE)


@EVERY
def test_greedy_takes_the_largest_logit_untempered(
    adapted: Load, truth: oracle.Llama, adapter: Arrays
) -> None:
    # Truncation does nothing here.
    greedy = Sampling(max_tokens=8, stop_ids=(), top_k=1, top_p=0.1)
    for prompt, (completion,) in zip(PROMPTS, run(adapted(), sampling=greedy), strict=True):
        logits = truth.logits((*prompt, *completion.tokens), adapter, SCALE)[len(prompt) - 1 : -1]
        assert completion.tokens == tuple(logits.argmax(-1))
        np.testing.assert_allclose(
            completion.logprobs, oracle.log_softmax(logits).max(-1), atol=oracle.CLOSE
        )


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_and_logprobs_are_those_of_the_inverse_cdf(
    adapted: Load, truth: oracle.Llama, adapter: Arrays, kind: str
) -> None:
    sampling = KINDS[kind]
    for index, group in enumerate(run(adapted(), n=3, sampling=sampling)):
        for sample, completion in enumerate(group):
            draws = uniforms(sampling.seed, sampling.step, index, sample, sampling.max_tokens)
            logits = truth.logits((*PROMPTS[index], *completion.tokens), adapter, SCALE)[
                len(PROMPTS[index]) - 1 :
            ]
            for at, (token, logprob) in enumerate(
                zip(completion.tokens, completion.logprobs, strict=True)
            ):
                expected = oracle.sampled(logits[at], sampling)
                reached = np.cumsum(np.exp(expected))
                assert token == int((reached <= draws[at]).sum()), (index, sample, at)
                assert logprob == pytest.approx(expected[token], abs=oracle.CLOSE)


def test_uneven_rounding_draws_no_impossible_token(backend_name: str) -> None:
    """A GPU's parallel sums can change where nothing was added, and stop short of the whole."""
    draw = import_module(f"offapi.backends.{backend_name}_backend.sampling").first_beyond
    array = import_module({"torch": "torch", "mlx": "mlx.core"}[backend_name])
    make = array.tensor if backend_name == "torch" else array.array
    reached = [[0.0, 0.3, 0.2999, 0.3001, 0.8, 0.7999, 0.7999]] * 6
    possible = [[False, True, False, False, True, False, False]] * 6
    drawn = draw(make(reached), make(possible), make([0.0, 0.3, 0.375, 0.3751, 0.38, 0.99999994]))
    assert drawn.tolist() == [1, 1, 1, 4, 4, 4]


def test_kinds_of_sampling_really_differ(load: Load) -> None:
    backend = load()
    drawn = {
        kind: tuple(c.tokens for (c,) in run(backend, sampling=sampling))
        for kind, sampling in KINDS.items()
    }
    assert len(set(drawn.values())) == len(KINDS)
    assert len({token for tokens in drawn["plain"] for token in tokens}) > 10


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
def test_a_row_is_the_same_whatever_it_is_batched_with(load: Load, rows: int) -> None:
    backend = load(limits=Limits(rollout_rows=rows))
    stopping = replace(SAMPLED, stop_ids=tuple(range(0, 300, 9)), max_tokens=16)
    together = run(backend, n=3, sampling=stopping)
    for key, prompt in enumerate(PROMPTS):
        (alone,) = run(backend, [prompt], n=3, sampling=stopping, keys=[key])
        for one, other in zip(alone, together[key], strict=True):
            same(one, other)
    lengths = {len(c.tokens) for group in together for c in group}
    assert len(lengths) > 3  # rows did leave at different times


def test_keys_name_the_prompts(load: Load) -> None:
    backend = load()
    keys = [5, 900, 3, 0, 17]
    named = run(backend, keys=keys)
    for (one,), (other,) in zip(
        reversed(named), run(backend, PROMPTS[::-1], keys=keys[::-1]), strict=True
    ):
        same(one, other)
    assert named != run(backend)


def test_samples_of_a_prompt_differ_whatever_their_number(load: Load) -> None:
    backend = load()
    for few, many in zip(run(backend, n=2), run(backend, n=6), strict=True):
        assert len({c.tokens for c in many}) == 6
        for one, other in zip(few, many, strict=False):
            same(one, other)


def test_seed_and_step_change_the_draws(load: Load) -> None:
    backend = load()
    runs = [
        run(backend, sampling=replace(SAMPLED, **change))
        for change in ({}, {"seed": 12}, {"step": 3})
    ]
    assert len({tuple(c.tokens for (c,) in groups) for groups in runs}) == 3
    assert runs[0] == run(backend)


@EVERY
@pytest.mark.parametrize("kind", ["plain", "hot"])
def test_behaviour_logprobs_are_what_score_gives(adapted: Load, kind: str) -> None:
    backend, sampling = adapted(), KINDS[kind]
    done = [
        (PROMPTS[i], c)
        for i, group in enumerate(run(backend, n=2, sampling=sampling))
        for c in group
    ]
    episodes = [
        Episode("", (Segment(prompt, False), Segment(c.tokens, True))) for prompt, c in done
    ]
    for (_, completion), scored in zip(
        done, backend.score(episodes, temperature=sampling.temperature), strict=True
    ):
        np.testing.assert_allclose(completion.logprobs, scored, atol=oracle.CLOSE)


@EVERY
def test_a_stop_token_ends_a_row_and_is_kept(load: Load) -> None:
    backend = load()
    free = [group[0] for group in run(backend)]
    stops = (free[0].tokens[3], free[1].tokens[0])
    finishes = set()
    for before, (after,) in zip(
        free, run(backend, sampling=replace(SAMPLED, stop_ids=stops)), strict=True
    ):
        stopped = [at for at, token in enumerate(before.tokens) if token in stops]
        cut = stopped[0] + 1 if stopped else SAMPLED.max_tokens
        assert after.tokens == before.tokens[:cut]
        assert after.finish == ("stop" if stopped else "length")
        finishes.add(after.finish)
        np.testing.assert_allclose(after.logprobs, before.logprobs[:cut], atol=oracle.CLOSE)
    assert finishes == {"stop", "length"}


def test_one_token_is_enough(load: Load) -> None:
    backend = load()
    for (one,), (more,) in zip(
        run(backend, sampling=replace(SAMPLED, max_tokens=1)), run(backend), strict=True
    ):
        assert one.tokens == more.tokens[:1]
    first = run(backend)[0][0].tokens[0]
    ((one,),) = run(
        backend, PROMPTS[:1], sampling=replace(SAMPLED, max_tokens=1, stop_ids=(first,))
    )
    assert (one.tokens, one.finish) == ((first,), "stop")


@pytest.mark.parametrize(
    "prompts",
    [
        [(5, 6, 7)],
        [(5, 6, 7), (5, 6, 7)],
        [(5, 6), (5, 6, 7, 8), (5,)],
        [(5,), (6,)],
        [(5, 6), (7, 8, 9)],
        [tuple(range(5, 200)), (5, 6)],
    ],
    ids=["one", "twins", "nested", "single tokens", "nothing in common", "long and short"],
)
def test_shared_prefixes_change_nothing(adapted: Load, prompts: list[tuple[int, ...]]) -> None:
    backend = adapted(limits=Limits(train_tokens=64))
    for key, group in enumerate(run(backend, prompts, n=2)):
        # It shares nothing with (250,).
        alone, _ = run(backend, [prompts[key], (250,)], n=2, keys=[key, 99])
        for one, other in zip(group, alone, strict=True):
            same(one, other)


def test_prompts_beyond_the_first_columns_and_many_tokens(load: Load, truth: oracle.Llama) -> None:
    prompt = tuple(range(1, 280))
    greedy = Sampling(max_tokens=150, stop_ids=())
    (completion,) = run(load(), [(2,), prompt], sampling=greedy)[1]
    logits = truth.logits((*prompt, *completion.tokens))[len(prompt) - 1 : -1]
    assert completion.tokens == tuple(logits.argmax(-1))


@pytest.mark.parametrize("rows", [3, 64])
def test_prefix_and_prompts_are_prefilled_once(load: Load, rows: int) -> None:
    backend = load(limits=Limits(rollout_rows=rows))
    run(backend, n=4)
    assert backend.prefilled_tokens == len(SHARED) + sum(
        len(prompt) - len(SHARED) for prompt in PROMPTS
    )


def test_groups_come_as_they_finish(load: Load) -> None:
    backend = load(limits=Limits(rollout_rows=2))
    groups = backend.rollout(PROMPTS, 2, SAMPLED)
    next(groups)
    assert backend.prefilled_tokens < sum(map(len, PROMPTS)) - 4 * len(SHARED)
    assert len(list(groups)) == len(PROMPTS) - 1


def test_no_prompts_no_groups(load: Load) -> None:
    assert list(load().rollout([], 2, SAMPLED)) == []


def test_an_empty_prompt_is_refused(load: Load) -> None:
    with pytest.raises(ValueError, match="prompt"):
        list(load().rollout([(1, 2), ()], 1, SAMPLED))
