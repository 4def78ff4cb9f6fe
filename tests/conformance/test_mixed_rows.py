"""Rows of any kind side by side in one engine: each is what it is alone, whatever it sits with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import oracle
import pytest

from offapi import adapter as folders
from offapi.backend import Arrays, Backend, Limits, LoraSpec, Sampling, TrainState
from offapi.engine import Engine, NewToken, RowRequest
from offapi.episodes import Episode, Segment

Load = Callable[..., Backend]
SHARED = tuple(range(40, 60))
GREEDY = Sampling(max_tokens=8, stop_ids=())
SAMPLED = Sampling(max_tokens=9, stop_ids=tuple(range(0, 300, 11)), temperature=4.0, seed=11)
KINDS = [
    GREEDY,
    replace(GREEDY, signals=True, max_tokens=5),
    SAMPLED,
    replace(SAMPLED, top_k=7, stop_ids=(), max_tokens=12),
    replace(SAMPLED, top_p=0.6, temperature=9.0, signals=True),
    replace(SAMPLED, min_p=0.2, stop_ids=(), seed=5, step=3),
]


@dataclass(frozen=True)
class Done:
    """What an engine said of one row."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: str | None
    allowed: tuple[tuple[int, ...] | None, ...]
    signals: tuple[tuple[float, float] | None, ...]


def finished(engine: Engine, *numbers: int) -> dict[int, Done]:
    """Step until nothing is left, and gather each row."""
    said: dict[int, list[NewToken]] = {number: [] for number in numbers}
    while not engine.idle:
        for token in engine.step():
            said.setdefault(token.row, []).append(token)
    return {number: gathered(tokens) for number, tokens in said.items()}


def gathered(tokens: list[NewToken]) -> Done:
    assert all(token.finish is None for token in tokens[:-1])
    return Done(
        tuple(token.token for token in tokens),
        tuple(token.logprob for token in tokens),
        tokens[-1].finish if tokens else None,
        tuple(None if t.allowed is None else tuple(t.allowed.tolist()) for t in tokens),
        tuple(token.signals for token in tokens),
    )


def alone(backend: Backend, request: RowRequest, **options: object) -> Done:
    engine = backend.engine(**options)  # type: ignore[arg-type]
    (number,) = engine.insert([request])
    done = finished(engine)[number]
    engine.close()
    return done


def same(one: Done, other: Done) -> None:
    assert (one.tokens, one.finish, one.allowed) == (other.tokens, other.finish, other.allowed)
    np.testing.assert_allclose(one.logprobs, other.logprobs, atol=oracle.CLOSE)
    assert [s is None for s in one.signals] == [s is None for s in other.signals]
    for left, right in zip(one.signals, other.signals, strict=True):
        if left is not None and right is not None:
            np.testing.assert_allclose(left, right, atol=oracle.CLOSE)


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path | None]:
    """Two PEFT folders of other shapes and values, and the base."""
    made: dict[str, Path | None] = {"base": None}
    shapes = {
        "broad": LoraSpec(rank=3, alpha=9.0),
        "narrow": LoraSpec(rank=6, alpha=6.0, targets=("q_proj", "up_proj")),
    }
    for seed, (name, shape) in enumerate(shapes.items()):
        draw = np.random.default_rng(seed)
        arrays = {
            key: (draw.standard_normal(size) * 0.1).astype(np.float32)
            for key, size in sorted(oracle.adapter_shapes(shape.rank).items())
            if key.split(".")[-3] in shape.targets
        }
        folder = tmp_path_factory.mktemp(name)
        for file, content in folders.encode(arrays, shape).items():
            (folder / file).write_bytes(content)
        made[name] = folder
    return made


def mixed(names: tuple[str | None, ...] = (None,)) -> list[RowRequest]:
    """Return rows of every kind and adapter; most start with SHARED, some do not."""
    draw = np.random.default_rng(3)
    requests = []
    for key in range(18):
        own = tuple(int(token) for token in draw.integers(0, 300, size=1 + key % 7))
        start = SHARED if key % 3 else SHARED[: key % 5]
        sampling, name = KINDS[key % len(KINDS)], names[key % len(names)]
        requests.append(RowRequest((*start, *own), sampling, key, key % 2, name))
    return requests


@pytest.mark.parametrize("rows", [1, 3, 64])
def test_rows_of_every_kind_share_a_batch(adapted: Load, rows: int) -> None:
    backend = adapted(limits=Limits(rollout_rows=rows))
    engine = backend.engine()
    numbers = engine.insert(mixed())
    together = finished(engine)
    for number, request in zip(numbers, mixed(), strict=True):
        same(together[number], alone(backend, request))
    assert {done.finish for done in together.values()} == {"stop", "length"}
    assert engine.step() == []


@pytest.mark.parametrize("rows", [3, 64])
def test_rows_may_join_at_any_time(adapted: Load, rows: int) -> None:
    """Later ones have another prefix than those that decode, or none."""
    backend = adapted(limits=Limits(rollout_rows=rows))
    engine, waiting = backend.engine(), mixed()
    said: dict[int, list[NewToken]] = {}
    numbers: list[int] = []
    while waiting or not engine.idle:
        if waiting:
            numbers += engine.insert([waiting.pop() for _ in range(min(2, len(waiting)))])
        for token in engine.step():
            said.setdefault(token.row, []).append(token)
    for number, request in zip(numbers, mixed()[::-1], strict=True):
        same(gathered(said[number]), alone(backend, request))


@pytest.mark.parametrize("rows", [4, 64])
def test_each_row_has_its_own_adapter(
    adapted: Load, adapters: Mapping[str, Path | None], rows: int
) -> None:
    names = (None, "broad", "base", "narrow", "broad")
    backend = adapted(limits=Limits(rollout_rows=rows))
    engine = backend.engine(adapters)
    numbers = engine.insert(mixed(names))
    together = finished(engine)
    for number, request in zip(numbers, mixed(names), strict=True):
        same(together[number], alone(backend, request, adapters=adapters))
    surprise = {
        alone(backend, RowRequest((*SHARED, 3), GREEDY, adapter=name), adapters=adapters).logprobs
        for name in (None, "broad", "base", "narrow")
    }
    assert len(surprise) == 4


def test_an_adapter_is_the_model_that_was_loaded_with_it(
    adapted: Load, load: Load, adapters: Mapping[str, Path | None], adapter: Arrays
) -> None:
    for name, folder in adapters.items():
        row = RowRequest((*SHARED, 3), KINDS[1], adapter=name)
        as_loaded = alone(load(adapter=folder), replace(row, adapter=None))
        for backend in (adapted(), load()):
            same(alone(backend, row, adapters=adapters), as_loaded)
    own = RowRequest((*SHARED, 3), KINDS[1])
    same(alone(adapted(), own, adapters=adapters), alone(adapted(), own))


def test_the_policys_adapter_is_as_it_was_last_trained(
    adapted: Load, adapters: Mapping[str, Path | None], adapter: Arrays
) -> None:
    backend = adapted()
    engine = backend.engine(adapters)
    rows = [RowRequest((*SHARED, 3), GREEDY, adapter=name) for name in (None, "broad")]

    def both() -> list[tuple[int, ...]]:
        numbers = engine.insert(rows)
        done = finished(engine)
        return [done[number].tokens for number in numbers]

    before = both()
    backend.restore(TrainState(adapter={name: 3 * array for name, array in adapter.items()}))
    after = both()
    assert after[0] != before[0]
    assert after[1] == before[1]
    assert after[0] == alone(backend, rows[0]).tokens


def test_training_is_the_same_next_to_an_engine_with_adapters(
    adapted: Load, adapters: Mapping[str, Path | None]
) -> None:
    episodes = [Episode("e", (Segment((1, 2, 3), False), Segment((4, 5, 6, 7), True)))]
    plain, used = adapted(), adapted()
    used.engine(adapters)
    assert used.forward_backward(episodes) == plain.forward_backward(episodes)
    np.testing.assert_array_equal(used.score(episodes)[0], plain.score(episodes)[0])


@pytest.mark.parametrize("name", [None, "broad"])
def test_a_kept_row_continues_without_reading_anything_again(
    adapted: Load, adapters: Mapping[str, Path | None], name: str | None
) -> None:
    backend = adapted()
    engine = backend.engine(adapters)
    sampling = replace(SAMPLED, stop_ids=())
    request = RowRequest((*SHARED, 3), sampling, 4, 1, name, keep=True)
    (number, other) = engine.insert([request, RowRequest((*SHARED, 9, 9), GREEDY)])
    first = finished(engine)[number]
    read = backend.prefilled_tokens
    engine.extend(number, (7, 8), replace(sampling, max_tokens=6))
    (later,) = engine.insert([RowRequest((5, 6), SAMPLED)])
    done = finished(engine)
    assert backend.prefilled_tokens - read == 1 + 2 + 2  # the last token, the new ones, a prompt
    longer = replace(sampling, max_tokens=15)
    whole = alone(backend, RowRequest((*SHARED, 3), longer, 4, 1, name), adapters=adapters)
    assert first.tokens == whole.tokens[:9]
    expected = extended(backend, request, first.tokens, (7, 8), adapters)
    same(done[number], expected)
    same(done[later], alone(backend, RowRequest((5, 6), SAMPLED)))
    with pytest.raises(ValueError, match=str(other)):
        engine.extend(other, (1,), GREEDY)


def extended(
    backend: Backend,
    request: RowRequest,
    said: tuple[int, ...],
    given: tuple[int, ...],
    adapters: Mapping[str, Path | None],
) -> Done:
    """Return the continuation as an engine gives it that reads everything again."""
    engine = backend.engine(adapters)
    (number,) = engine.insert([request])
    finished(engine)
    engine.extend(number, given, replace(request.sampling, max_tokens=6))
    assert engine.waiting[0].tokens == (*request.tokens, *said, *given)  # type: ignore[attr-defined]
    engine.waiting[0].known = None  # type: ignore[attr-defined]
    return finished(engine)[number]


def test_a_kept_row_can_be_continued_many_times(load: Load, truth: oracle.Llama) -> None:
    engine = load().engine()
    (number,) = engine.insert([RowRequest((*SHARED, 3), GREEDY, keep=True)])
    tokens = (*SHARED, 3)
    for given in ((7, 8), (), (9,) * 150):
        said = finished(engine)[number].tokens
        logits = truth.logits((*tokens, *said))[len(tokens) - 1 : -1]
        assert said == tuple(logits.argmax(-1))
        tokens = (*tokens, *said, *given)
        engine.extend(number, given, GREEDY)


def test_a_cancelled_row_leaves_and_the_others_stay(load: Load) -> None:
    backend = load(limits=Limits(rollout_rows=2))
    engine = backend.engine()
    requests = [RowRequest((*SHARED, key), SAMPLED, key, keep=key == 4) for key in range(5)]
    numbers = engine.insert(requests)
    early = engine.step()
    live = early[0].row
    engine.cancel(live)
    waiting = next(number for number in numbers[:4] if number not in {t.row for t in early})
    engine.cancel(waiting)
    done = finished(engine)
    assert waiting not in done
    assert live not in done
    for number, request in zip(numbers, requests, strict=True):
        if number not in (live, waiting) and number not in {t.row for t in early}:
            same(done[number], alone(backend, replace(request, keep=False)))
    engine.cancel(numbers[4])
    with pytest.raises(ValueError, match=str(numbers[4])):
        engine.extend(numbers[4], (1,), GREEDY)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (RowRequest((), GREEDY), "empty"),
        (RowRequest((1, 300), GREEDY), "300"),
        (RowRequest((1,), GREEDY, adapter="none such"), "none such"),
    ],
)
def test_a_bad_request_is_refused_and_nothing_waits(
    load: Load, request_: RowRequest, message: str
) -> None:
    engine = load().engine()
    with pytest.raises(ValueError, match=message):
        engine.insert([RowRequest((1, 2), GREEDY), request_])
    assert engine.idle


def test_closing_drops_everything(load: Load) -> None:
    engine = load().engine()
    engine.insert([RowRequest((1, 2), GREEDY)])
    engine.step()
    engine.close()
    assert engine.idle
    assert engine.step() == []
