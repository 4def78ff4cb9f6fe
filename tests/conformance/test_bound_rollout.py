"""Bound rollouts: what a matcher forbids has no probability, and rows say how sure the model was."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import oracle
import pytest
from implementations import EVERY
from test_rollout import KINDS, PROMPTS, SAMPLED, run, same

from offapi.backend import Backend, Completion, Sampling, StartMatcher
from offapi.engine import Words
from offapi.episodes import Episode, Segment
from offapi.model_spec import Limits
from offapi.optimizer import Arrays
from offapi.randomness import uniforms

Load = Callable[..., Backend]
SCALE = 1.5  # alpha / rank of the conftest's adapter
STOP = 33
GREEDY = Sampling(max_tokens=8, stop_ids=(STOP,))


@dataclass
class ByPosition:
    """Allows a set of tokens at each position, every token at a position without one."""

    sets: Mapping[int, Sequence[int]]
    ranks: Mapping[int, int] = field(default_factory=dict)
    said: list[int] = field(default_factory=list)

    def fill(self, words: Words) -> bool:
        allowed = self.sets.get(len(self.said))
        if allowed is None:
            return False
        words[:] = 0
        for token in allowed:
            words.view(np.uint32)[token // 32] |= np.uint32(1 << token % 32)
        return True

    def accept(self, token: int) -> None:
        assert token in self.sets.get(len(self.said), (token,))
        self.said.append(token)

    @property
    def rank(self) -> int:
        return self.ranks.get(len(self.said), 0)


def sets(prompt: int, sample: int = 0) -> dict[int, list[int]]:
    """Return what is allowed at each position: wide, narrow, one token, or anything."""
    draw = np.random.default_rng((prompt, sample))
    sizes = [40, 3, 1, None, 31, 2, 150, 5, 300, 1]
    return {
        at: sorted(map(int, draw.choice(300, size, replace=False)))
        for at, size in enumerate(sizes)
        if size is not None
    }


def starting(prompt: int) -> StartMatcher:
    return lambda sample: ByPosition(sets(prompt, sample))


STARTS = [starting(prompt) for prompt in range(len(PROMPTS))]


def bound(
    backend: Backend,
    sampling: Sampling,
    n: int = 1,
    starts: Sequence[StartMatcher | None] = tuple(STARTS),
) -> list[tuple[Completion, ...]]:
    groups = {
        group.prompt: group.completions
        for group in backend.rollout(PROMPTS, n, sampling, starts=starts)
    }
    return [groups[i] for i in range(len(PROMPTS))]


def forbidding(logits: np.ndarray, allowed: Sequence[int] | None) -> np.ndarray:
    """Return the logits with -inf where something is not allowed."""
    free = np.isin(np.arange(len(logits)), range(300) if allowed is None else allowed)
    return np.where(free, logits, -np.inf)


def next_logits(
    truth: oracle.Llama, index: int, tokens: Sequence[int], adapter: Arrays
) -> np.ndarray:
    """Return the true logits at each token of a completion."""
    logits: np.ndarray = truth.logits((*PROMPTS[index], *tokens), adapter, SCALE)
    return logits[len(PROMPTS[index]) - 1 : -1]


def test_greedy_takes_the_likeliest_that_is_allowed(
    adapted: Load, truth: oracle.Llama, adapter: Arrays
) -> None:
    for index, (completion,) in enumerate(bound(adapted(), GREEDY)):
        logits = next_logits(truth, index, completion.tokens, adapter)
        for at, token in enumerate(completion.tokens):
            masked = forbidding(logits[at], sets(index).get(at))
            assert token == masked.argmax(), (index, at)
            expected = oracle.log_softmax(masked)[token]
            assert completion.logprobs[at] == pytest.approx(expected, abs=oracle.CLOSE)
        assert completion.sampling_mask is None


@pytest.mark.parametrize("kind", ["plain", "top_k", "top_p", "min_p", "all"])
def test_a_bound_draw_is_the_inverse_cdf_of_what_is_allowed(
    adapted: Load, truth: oracle.Llama, adapter: Arrays, kind: str
) -> None:
    sampling = KINDS[kind]
    for index, group in enumerate(bound(adapted(), sampling, n=3)):
        for sample, completion in enumerate(group):
            draws = uniforms(sampling.seed, sampling.step, index, sample, sampling.max_tokens)
            logits = next_logits(truth, index, completion.tokens, adapter)
            mask = completion.sampling_mask
            assert mask is not None
            left = np.split(mask.ids, np.cumsum(mask.counts)[:-1])
            for at, token in enumerate(completion.tokens):
                masked = forbidding(logits[at], sets(index, sample).get(at))
                expected = oracle.sampled(masked, sampling)
                reached = np.cumsum(np.exp(expected))
                assert token == int((reached <= draws[at]).sum()), (index, sample, at)
                assert completion.logprobs[at] == pytest.approx(expected[token], abs=oracle.CLOSE)
                assert left[at].tolist() == np.flatnonzero(np.isfinite(expected)).tolist()


def test_the_logprobs_of_bound_draws_are_what_score_gives(adapted: Load) -> None:
    backend = adapted()
    done = [(PROMPTS[i], c) for i, group in enumerate(bound(backend, SAMPLED, n=2)) for c in group]
    episodes = [
        Episode(
            "", (Segment(prompt, False), Segment(c.tokens, True, sampling_mask=c.sampling_mask))
        )
        for prompt, c in done
    ]
    scored = backend.score(episodes, temperature=SAMPLED.temperature)
    for (_, completion), logprobs in zip(done, scored, strict=True):
        np.testing.assert_allclose(completion.logprobs, logprobs, atol=oracle.CLOSE)


def test_free_and_bound_rows_decode_side_by_side(load: Load) -> None:
    backend = load()

    def second_is_free(sample: int) -> ByPosition | None:
        return None if sample == 1 else ByPosition(sets(9, sample))

    for sampling in (GREEDY, SAMPLED, KINDS["top_k"]):
        free, starts = run(backend, n=3, sampling=sampling), [second_is_free, None] * 2 + [None]
        mixed = bound(backend, sampling, 3, starts)
        for start, one, other in zip(starts, free, mixed, strict=True):
            same(one[1], other[1])
            assert other[1].sampling_mask is None or sampling.truncated
            if start is None:
                same(one[0], other[0])
            else:
                assert one[0].tokens != other[0].tokens


@EVERY
@pytest.mark.parametrize("rows", [1, 4, 64])
def test_a_bound_row_is_the_same_whatever_it_is_batched_with(load: Load, rows: int) -> None:
    together = bound(load(limits=Limits(rollout_rows=rows)), SAMPLED, n=2)
    alone = load()
    for key, prompt in enumerate(PROMPTS):
        (group,) = alone.rollout([prompt], 2, SAMPLED, keys=[key], starts=[STARTS[key]])
        for one, other in zip(group.completions, together[key], strict=True):
            same(one, other)


@pytest.mark.parametrize("rank", [1, 2, 9])
def test_a_rank_takes_the_runner_up_and_greedy_goes_on(
    adapted: Load, truth: oracle.Llama, adapter: Arrays, rank: int
) -> None:
    allowed = {0: [4, 90, 180], 1: list(range(0, 300, 2))}
    starts = [lambda sample: ByPosition(allowed, {0: rank})] * len(PROMPTS)
    for index, (completion,) in enumerate(bound(adapted(), GREEDY, 1, starts)):
        logits = next_logits(truth, index, completion.tokens, adapter)
        first = forbidding(logits[0], allowed[0])
        assert completion.tokens[0] == np.argsort(-first)[min(rank, 2)]
        expected = oracle.log_softmax(first)[completion.tokens[0]]
        assert completion.logprobs[0] == pytest.approx(expected, abs=oracle.CLOSE)
        assert completion.tokens[1] == forbidding(logits[1], allowed[1]).argmax()
        assert completion.tokens[2] == logits[2].argmax()


@pytest.mark.parametrize("starts", [None, STARTS], ids=["free", "bound"])
@pytest.mark.parametrize("kind", ["greedy", "plain", "all"])
def test_signals_are_of_the_models_own_distribution(
    adapted: Load,
    truth: oracle.Llama,
    adapter: Arrays,
    kind: str,
    starts: list[StartMatcher | None] | None,
) -> None:
    sampling = replace({**KINDS, "greedy": GREEDY}[kind], signals=True)
    backend = adapted()
    for index, (completion,) in enumerate(
        bound(backend, sampling, starts=starts or [None] * len(PROMPTS))
    ):
        free = oracle.log_softmax(next_logits(truth, index, completion.tokens, adapter))
        tokens = np.array(completion.tokens)
        chosen = free[np.arange(len(tokens)), tokens]
        assert completion.free_logprobs is not None
        assert completion.margins is not None
        np.testing.assert_allclose(completion.free_logprobs, chosen, rtol=2e-6, atol=oracle.CLOSE)
        others = np.where(np.arange(300) == tokens[:, None], -np.inf, free).max(-1)
        np.testing.assert_allclose(
            completion.margins, chosen - others, rtol=2e-6, atol=2 * oracle.CLOSE
        )
    (silent,) = bound(backend, replace(sampling, signals=False))[0]
    assert silent.free_logprobs is None
    assert silent.margins is None


def test_a_matcher_hears_every_token_and_may_end_a_row(load: Load) -> None:
    heard: list[ByPosition] = []

    def start(sample: int) -> ByPosition:
        heard.append(ByPosition({0: [5, 6], 1: [7], 2: [STOP]}))
        return heard[-1]

    for group in bound(load(), GREEDY, 2, [start] * len(PROMPTS)):
        for completion in group:
            assert completion.tokens[1:] == (7, STOP)
            assert completion.finish == "stop"
    assert len(heard) == 2 * len(PROMPTS)
    assert {tuple(matcher.said[1:]) for matcher in heard} == {(7, STOP)}


def test_starts_are_one_per_prompt(load: Load) -> None:
    with pytest.raises(ValueError, match="`starts` must have one entry per prompt, got 1 for 5"):
        load().rollout(PROMPTS, 1, SAMPLED, starts=[None])


@EVERY
def test_a_matcher_that_allows_nothing_is_refused(load: Load) -> None:
    starts = [lambda sample: ByPosition({2: []})] * len(PROMPTS)
    with pytest.raises(ValueError, match="got one that allows none"):
        bound(load(), GREEDY, 1, starts)
