"""An engine that serves for long: it holds no more, rows may go or fail, and rows tell of others."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import oracle
import pytest
from test_bound_rollout import GREEDY, ByPosition
from test_engine import KEPT, MIXED, Answer, alone, answer_all, drain, gather, odd, same
from test_engine import folders as folders
from test_rollout import KINDS, PROMPTS, SAMPLED

from offapi import engine as engine_module
from offapi.backend import Backend
from offapi.engine import Engine, RowError, RowRequest, Words
from offapi.episodes import Episode, Segment
from offapi.model_spec import Limits

Load = Callable[..., Backend]
PACKAGES = ("offapi.engine", "offapi.prefix_tree", "offapi.backends.")


def held(root: object) -> int:
    """Return how many members the containers of an engine have, all together."""
    seen, waiting, members = set[int](), [root], 0
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, dict):
            waiting += each.values()
        elif isinstance(each, list | tuple | set | deque):
            waiting += each
        elif type(each).__module__.startswith(PACKAGES) and hasattr(each, "__dict__"):
            waiting += vars(each).values()
            continue
        else:
            continue
        members += len(each)
    return members


def serve(engine: Engine, first: int, last: int) -> None:
    """Answer rows of as many samplings and prompts, some of which are cancelled."""
    for key in range(first, last, 4):
        requests = [
            RowRequest(
                (1 + number % 250, *PROMPTS[number % 3][:2]),
                replace(SAMPLED, temperature=1 + number / 999, max_tokens=1 + number % 3),
                number,
                start=odd if number % 4 == 1 else None,
                keep=number % 4 == 2,
            )
            for number in range(key, key + 4)
        ]
        numbers = engine.insert(requests)
        engine.step()
        engine.cancel(numbers[0])
        drain(engine)
        for number in numbers:
            engine.cancel(number)


@pytest.mark.parametrize("cache_bytes", [0, 10_000])
def test_nothing_grows_with_the_rows_served(
    load: Load, monkeypatch: pytest.MonkeyPatch, cache_bytes: int
) -> None:
    monkeypatch.setattr(engine_module, "KINDS", 8)
    engine = load(limits=Limits(rollout_rows=4)).engine(cache_bytes=cache_bytes)
    serve(engine, 0, 100)
    before, objects = held(engine), rows_alive()
    serve(engine, 100, 300)
    assert held(engine) <= before + 20, "the tree's last prefixes and the kinds differ"
    assert rows_alive() <= objects


def rows_alive() -> int:
    """Return how many rows, prompts and draws of engines are in memory."""
    gc.collect()
    return sum(
        type(each).__name__ in ("Row", "WaitingPrompt", "Ready", "Draw", "Guarded", "NewToken")
        for each in gc.get_objects()
    )


def test_a_row_may_be_cancelled_at_any_time(load: Load) -> None:
    engine = load(limits=Limits(rollout_rows=2)).engine()
    long = [RowRequest(PROMPTS[key], replace(SAMPLED, max_tokens=30), key) for key in range(3)]
    numbers = engine.insert(long[:2])
    engine.cancel(numbers[0])  # right after insert
    answers = gather(engine.step())
    waiting, last = engine.insert([long[0], long[2]])
    engine.cancel(waiting)
    gather(engine.step(), answers)
    assert sorted(answers) == [numbers[1], last], "a slot for each that was not cancelled"
    engine.cancel(last)
    (next_,) = engine.insert([replace(long[0], key=7)])
    gather(engine.step(), answers)
    assert next_ in answers, "the slot is free in the next step"
    seen = len(answers[last].tokens)
    drain(engine, answers)
    for gone in (numbers[0], waiting, last, numbers[1], 999, -1):
        engine.cancel(gone)
    assert engine.idle
    assert len(answers[last].tokens) == seen
    same(answers[numbers[1]], alone(load, long[1]))
    same(answers[next_], alone(load, replace(long[0], key=7)))


def test_a_cancelled_row_holds_no_keys(load: Load) -> None:
    engine = load().engine()
    finished = replace(KEPT[0], sampling=replace(SAMPLED, max_tokens=3))
    for late in (False, True):
        (number,) = engine.insert([finished])
        drain(engine)
        assert tree_bytes(engine) > 0
        if late:
            engine.extend(number, (5,), SAMPLED)
            if not engine.idle:
                engine.cancel(number)
        engine.cancel(number)
        assert tree_bytes(engine) == 0
    assert engine.idle
    same(answer_all(engine, MIXED[:1])[0], alone(load, MIXED[0]))


def tree_bytes(engine: Engine) -> int:
    """Return the bytes of kept prefixes."""
    holder = getattr(engine, "prompts", engine)
    return int(holder.tree.used_bytes)


@pytest.mark.parametrize("name", [None, "invoices"])
@pytest.mark.parametrize("kind", ["greedy", "top_k", "hot"])
def test_the_likeliest_tokens_are_those_of_score(
    load: Load, adapted: Load, folders: Mapping[str, Path | None], kind: str, name: str | None
) -> None:
    sampling = GREEDY if kind == "greedy" else KINDS[kind]
    asking = [
        replace(
            request,
            sampling=replace(sampling, top_logprobs=count, signals=True, stop_ids=()),
            adapter=name,
        )
        for request, count in [(MIXED[0], 5), (MIXED[4], 2), (MIXED[1], 400)]
    ]
    silent = replace(MIXED[2], adapter=name)
    engine = adapted().engine(folders)
    *answers, none = answer_all(engine, [*asking, silent])
    assert none.top == [None] * len(none.tokens)
    scorer = adapted() if name is None else load(adapter=folders[name])
    for request, answer in zip(asking, answers, strict=True):
        same(answer, alone(adapted, request, folders))
        for at, top in enumerate(answer.top):
            assert top is not None
            context = (*request.tokens, *answer.tokens[:at])
            expected_V = distribution(scorer, context)
            count = min(request.sampling.top_logprobs, 300)
            ids, logprobs = zip(*top, strict=True)
            assert len(set(ids)) == count
            np.testing.assert_allclose(logprobs, expected_V[list(ids)], atol=3 * oracle.CLOSE)
            best = np.sort(expected_V)[::-1][:count]
            np.testing.assert_allclose(logprobs, best, atol=3 * oracle.CLOSE)
            if count == 300:
                signals = answer.signals[at]
                assert signals is not None
                of_drawn = dict(top)[answer.tokens[at]]
                assert of_drawn == pytest.approx(signals[0], abs=oracle.CLOSE)
            if at == 2:
                break


def distribution(backend: Backend, context: tuple[int, ...]) -> oracle.Array:
    """Return the logprob of every token after `context`."""
    episodes = [
        Episode("", (Segment(context, False), Segment((token,), True))) for token in range(300)
    ]
    return np.concatenate(backend.score(episodes)).astype(np.float64)


@dataclass
class Faulty:
    """A matcher that fails at one of its calls."""

    call: str
    after: int
    accepted: int = 0

    def _fail(self, call: str) -> None:
        if call == self.call and self.accepted == self.after:
            raise KeyError(f"no {call}")

    def fill(self, words: Words) -> bool:
        if self.call == "nothing" and self.accepted == self.after:
            words[:] = 0
            return True
        words[:3] = 0
        self._fail("fill")
        return True

    def accept(self, token: int) -> None:
        self._fail("accept")
        self.accepted += 1

    @property
    def rank(self) -> int:
        self._fail("rank")
        return 0


FAULTS = [
    *((call, after) for call in ("fill", "rank", "accept", "nothing") for after in (0, 2)),
    ("start", 0),
    ("accept", 7),  # the last token
]


@pytest.mark.parametrize(("call", "after"), FAULTS)
def test_a_matcher_that_fails_ends_its_row_alone(load: Load, call: str, after: int) -> None:
    def start(sample: int) -> Faulty:
        if call == "start":
            raise KeyError("no start")
        return Faulty(call, after)

    engine = load(limits=Limits(rollout_rows=4)).engine()
    faulty = RowRequest(PROMPTS[1], replace(GREEDY, stop_ids=()), start=start, keep=True)
    requests = [MIXED[0], faulty, MIXED[4], replace(faulty, sample=1), MIXED[6], MIXED[2]]
    numbers = engine.insert(requests)
    answers, errors = dict[int, Answer](), list[RowError]()
    while not engine.idle:
        try:
            gather(engine.step(), answers)
        except RowError as error:
            errors.append(error)
    failed = sorted(error.row for error in errors)
    assert failed == [numbers[1], numbers[3]], "each once"
    for error in errors:
        assert isinstance(error.cause, ValueError if call == "nothing" else KeyError)
        assert len(answers.get(error.row, Answer()).tokens) <= after
        with pytest.raises(ValueError, match=f"row {error.row} "):
            engine.extend(error.row, (1,), SAMPLED)
    for number, request in zip(numbers, requests, strict=True):
        if number not in failed:
            same(answers[number], alone(load, request))
    same(answer_all(engine, MIXED[:1])[0], alone(load, MIXED[0]))


def test_a_failed_row_may_be_cancelled_before_its_error_is_raised(load: Load) -> None:
    engine = load().engine()
    faulty = RowRequest(PROMPTS[1], GREEDY, start=lambda sample: Faulty("fill", 0))
    numbers = engine.insert([faulty, MIXED[0], replace(faulty, sample=1)])
    with pytest.raises(RowError) as raised:
        engine.step()
    (other,) = {numbers[0], numbers[2]} - {raised.value.row}
    engine.cancel(other)
    assert sorted(drain(engine)) == [numbers[1]]


def test_a_rollout_raises_what_its_matcher_raised(load: Load) -> None:
    rollout = load().rollout(PROMPTS[:1], 1, GREEDY, starts=[lambda sample: Faulty("fill", 1)])
    with pytest.raises(KeyError, match="no fill"):
        list(rollout)


def test_rows_and_their_bounds_may_be_any_matcher(load: Load) -> None:
    """A matcher that never bounds anything changes no token."""
    free = replace(MIXED[0], start=lambda sample: ByPosition({}))
    (answer,) = answer_all(load().engine(), [free])
    assert answer.tokens == alone(load, MIXED[0]).tokens
