"""What only MLX's engine does: a step in flight, a prefix given up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
from test_bound_rollout import GREEDY
from test_engine import KEPT, MIXED, Answer, alone, answer_all, drain, gather, same
from test_engine import folders as folders
from test_mlx_only import open_mlx
from test_rollout import PROMPTS, SAMPLED, SHARED

from offapi.backend import Backend
from offapi.engine import RowRequest
from offapi.episodes import Episode, Segment
from offapi.model_spec import Limits
from offapi.optimizer import Arrays, TrainState

pytestmark = pytest.mark.skipif(find_spec("mlx_lm") is None, reason="mlx is not installed")

Open = Callable[..., Backend]
LONG = replace(SAMPLED, max_tokens=30)


@pytest.fixture
def open_adapted(model_folder: Path, adapter: Arrays) -> Open:
    def start(**fields: object) -> Backend:
        backend = open_mlx(model_folder, lora=oracle.SHAPE, **fields)
        backend.restore(TrainState(adapter=adapter))
        return backend

    return start


@pytest.mark.parametrize("rows", [2, 5, 64])
def test_a_step_in_flight_changes_no_row(
    open_adapted: Open,
    folders: Mapping[str, Path | None],
    monkeypatch: pytest.MonkeyPatch,
    rows: int,
) -> None:
    """As on a GPU: rows that are bound or kept are read in step, and the others one step behind."""
    from offapi.backends.mlx_backend import engine

    requests = [replace(row, adapter=name) for row in MIXED + KEPT for name in (None, *folders)]
    expected = answer_all(open_adapted().engine(folders), requests)
    monkeypatch.setattr(engine, "ahead", lambda: 1)
    backend = open_adapted(limits=Limits(rollout_rows=rows))
    for one, other in zip(expected, answer_all(backend.engine(folders), requests), strict=True):
        same(one, other)
    free = [row for row in MIXED if row.start is None]
    behind = open_adapted(limits=Limits(rollout_rows=rows)).engine()
    numbers = behind.insert(free)
    answers = gather(behind.step())
    behind.cancel(numbers[0])
    before = len(answers.get(numbers[0], Answer()).tokens)
    drain(behind, answers)
    assert len(answers.get(numbers[0], Answer()).tokens) == before
    for number, request in zip(numbers[1:], free[1:], strict=True):
        same(answers[number], alone(open_adapted, request))


def test_a_row_is_cancelled_with_its_last_token_in_flight(
    open_adapted: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    from offapi.backends.mlx_backend import engine

    monkeypatch.setattr(engine, "ahead", lambda: 1)
    behind = open_adapted().engine()
    long, short = (RowRequest(PROMPTS[0], replace(SAMPLED, max_tokens=n), n) for n in (9, 2))
    kept, gone = behind.insert([long, short])
    answers = gather(behind.step())
    assert len(answers.get(gone, Answer()).tokens) < 2
    behind.cancel(gone)
    seen = dict(answers)
    assert gone not in drain(behind, {kept: answers.get(kept, Answer())})
    assert seen.keys() <= {kept, gone}
    (last,) = behind.insert([short])
    behind.step()
    behind.cancel(last)
    assert behind.idle, "nothing that is awaited is in flight"


def test_a_prefix_that_few_rows_follow_is_given_up(open_adapted: Open) -> None:
    backend = open_adapted()
    engine = backend.engine()
    requests = [RowRequest(PROMPTS[0], LONG, 0), RowRequest(PROMPTS[2], LONG, 2)]
    numbers = engine.insert(requests)
    answers = gather(engine.step())
    assert engine.prompts.shared.tokens == SHARED  # type: ignore[attr-defined]
    for key in range(3, 6):
        requests.append(RowRequest((key, *PROMPTS[1]), LONG, key))
        numbers += engine.insert(requests[-1:])
        gather(engine.step(), answers)
        assert bool(engine.prompts.shared.tokens) == (key == 3)  # type: ignore[attr-defined]
    drain(engine, answers)
    for number, request in zip(numbers, requests, strict=True):
        same(answers[number], alone(open_adapted, request))


def test_many_kept_prefixes_come_back_at_once(open_adapted: Open) -> None:
    """Each in its own way: all but little known, little known, or nothing."""
    backend = open_adapted()
    engine = backend.engine(cache_bytes=10**7)
    short = replace(SAMPLED, max_tokens=2)
    chats = [tuple(range(at, at + 30)) for at in (1, 50, 150)]
    answer_all(engine, [RowRequest(chat, short) for chat in chats])
    read = backend.prefilled_tokens
    again = [
        *(RowRequest((*chat, 7, 8), SAMPLED, key) for key, chat in enumerate(chats)),
        RowRequest((*chats[0][:4], *range(200, 220)), SAMPLED, 3),
        RowRequest((9, 9, 9), SAMPLED, 4),
    ]
    for request, answer in zip(again, answer_all(engine, again), strict=True):
        same(answer, alone(open_adapted, request))
    assert backend.prefilled_tokens - read == 3 * 2 + 24 + 3


def test_training_is_the_same_next_to_an_engine_with_adapters(
    open_adapted: Open, folders: Mapping[str, Path | None]
) -> None:
    episodes = [Episode("e", (Segment((1, 2, 3), False), Segment((4, 5, 6, 7), True)))]
    plain, used = open_adapted(), open_adapted()
    answer_all(used.engine(folders), [RowRequest(PROMPTS[0], GREEDY, adapter="letters")])
    assert used.forward_backward(episodes) == plain.forward_backward(episodes)
    np.testing.assert_array_equal(used.score(episodes)[0], plain.score(episodes)[0])


def test_a_prefix_is_followed_under_its_own_adapter_alone(
    open_adapted: Open, folders: Mapping[str, Path | None]
) -> None:
    pairs = [(0, None), (1, None), (2, None), (0, "invoices"), (1, "invoices")]
    requests = [RowRequest(PROMPTS[key], SAMPLED, key, adapter=name) for key, name in pairs]
    engine = open_adapted().engine(folders)
    for request, answer in zip(requests, answer_all(engine, requests), strict=True):
        same(answer, alone(open_adapted, request, folders))
    assert engine.prompts.shared.tokens == SHARED  # type: ignore[attr-defined]


def test_rows_that_are_extended_together_are_computed_in_one_pass(
    open_adapted: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: Any = open_adapted().engine()
    short = replace(SAMPLED, max_tokens=3)
    requests = [RowRequest(prompt, short, key, keep=True) for key, prompt in enumerate(PROMPTS)]
    rows = engine.insert(requests)
    drain(engine)
    passes = []
    hidden = engine.policy.hidden

    def counted(tokens_RL: Any, caches: Any) -> Any:
        if tokens_RL.shape[1] > 1:
            passes.append(tokens_RL.shape)
        return hidden(tokens_RL, caches)

    monkeypatch.setattr(engine.policy, "hidden", counted)
    for at, row in enumerate(rows):
        engine.extend(row, (5, 6, 7)[: 1 + at % 3], short)
    drain(engine)
    assert passes == [(len(PROMPTS), 4)]
