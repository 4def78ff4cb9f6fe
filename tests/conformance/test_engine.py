"""The engine: rows of any kind join, decode side by side, end and are extended, each as if alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import oracle
import pytest
import tiny_llama
from implementations import EVERY
from numpy.typing import NDArray
from test_bound_rollout import GREEDY, ByPosition, sets
from test_rollout import KINDS, PROMPTS, SAMPLED, SHARED, run

from offapi import adapter as adapters
from offapi.backend import Backend
from offapi.completions import Finish
from offapi.engine import Engine, NewToken, RowRequest
from offapi.episodes import Episode, Segment
from offapi.errors import ModelError
from offapi.model_spec import Limits, LoraSpec
from offapi.optimizer import AdamW, Arrays, TrainState
from offapi.randomness import uniforms

Load = Callable[..., Backend]
STOPPING = replace(SAMPLED, stop_ids=tuple(range(0, 300, 9)), max_tokens=16)


@dataclass(eq=False)
class Answer:
    """What a row has drawn."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: Finish | None = None
    allowed: list[NDArray[np.int32] | None] = field(default_factory=list)
    signals: list[tuple[float, float] | None] = field(default_factory=list)
    top: list[tuple[tuple[int, float], ...] | None] = field(default_factory=list)

    def add(self, token: NewToken) -> None:
        assert self.finish is None, "a token after the last one"
        self.tokens.append(token.token)
        self.logprobs.append(token.logprob)
        self.allowed.append(token.allowed)
        self.signals.append(token.signals)
        self.top.append(token.top)
        self.finish = token.finish


def gather(
    tokens: Iterable[NewToken], answers: dict[int, Answer] | None = None
) -> dict[int, Answer]:
    """Put tokens to the answers of their rows."""
    answers = {} if answers is None else answers
    for token in tokens:
        answers.setdefault(token.row, Answer()).add(token)
    return answers


def drain(engine: Engine, answers: dict[int, Answer] | None = None) -> dict[int, Answer]:
    """Step until nothing waits or decodes."""
    answers = {} if answers is None else answers
    while not engine.idle:
        gather(engine.step(), answers)
    assert engine.step() == []
    return answers


def answer_all(engine: Engine, requests: Sequence[RowRequest]) -> list[Answer]:
    """Insert all requests at once, and return their answers in order."""
    numbers = engine.insert(requests)
    answers = drain(engine)
    assert sorted(answers) == sorted(numbers)
    return [answers[number] for number in numbers]


def same(one: Answer, other: Answer, close: float = 1.0) -> None:
    """Check that the answers are equal, but for rounding of `close` times what is usual."""
    assert (one.tokens, one.finish) == (other.tokens, other.finish)
    np.testing.assert_allclose(one.logprobs, other.logprobs, atol=close * oracle.CLOSE)
    for left, right in zip(one.allowed, other.allowed, strict=True):
        assert (left is None) == (right is None)
        assert left is None or left.tolist() == right.tolist()  # type: ignore[union-attr]
    for pair, twin in zip(one.signals, other.signals, strict=True):
        assert (pair is None) == (twin is None)
        np.testing.assert_allclose(pair or (), twin or (), rtol=2e-6, atol=2 * close * oracle.CLOSE)


def alone(
    load: Load, request: RowRequest, adapters: Mapping[str, Path | None] | None = None
) -> Answer:
    """Return the answer of a row that has an engine for itself."""
    (answer,) = answer_all(load().engine(adapters or {}), [request])
    return answer


def odd(sample: int) -> ByPosition:
    return ByPosition(sets(4, sample), {0: 2})


MIXED = [
    RowRequest(PROMPTS[0], SAMPLED, key=5),
    RowRequest(PROMPTS[1], replace(SAMPLED, max_tokens=3, temperature=1.0), key=1),
    RowRequest(PROMPTS[2], replace(KINDS["all"], signals=True), key=9, sample=2),
    RowRequest((9, 8, 7), GREEDY),
    RowRequest(PROMPTS[3], replace(GREEDY, max_tokens=12, signals=True), start=odd),
    RowRequest((201, *PROMPTS[4]), STOPPING, key=3),
    RowRequest(PROMPTS[3], replace(SAMPLED, seed=99, step=0), start=odd, sample=1),
    RowRequest((4,), replace(KINDS["top_k"], max_tokens=20), key=2),
]


@pytest.fixture
def folders(tmp_path: Path) -> Mapping[str, Path | None]:
    """Two adapters of other shapes than the policy's, and the base alone."""
    draw = np.random.default_rng(21)
    named: dict[str, Path | None] = {"base": None}
    for name, spec in {
        "invoices": LoraSpec(rank=2, alpha=4.0),
        "letters": LoraSpec(rank=8, alpha=4.0, targets=("q_proj", "down_proj")),
    }.items():
        arrays = {
            parameter: (draw.standard_normal(shape) * 0.2).astype(np.float32)
            for parameter, shape in sorted(oracle.adapter_shapes(spec.rank).items())
            if parameter.split(".lora_")[0].rsplit(".", 1)[-1] in spec.targets
        }
        named[name] = tmp_path / name
        (tmp_path / name).mkdir()
        for file, content in adapters.encode(arrays, spec).items():
            (tmp_path / name / file).write_bytes(content)
    return named


@pytest.mark.parametrize("rows", [1, 7, 64])
@pytest.mark.parametrize("n", [1, 3])
def test_an_engine_draws_what_rollout_draws(adapted: Load, rows: int, n: int) -> None:
    backend = adapted(limits=Limits(rollout_rows=rows))
    requests = [
        RowRequest(prompt, STOPPING, key, sample)
        for key, prompt in enumerate(PROMPTS)
        for sample in range(n)
    ]
    answers = answer_all(backend.engine(), requests)
    expected = [c for group in run(backend, n=n, sampling=STOPPING) for c in group]
    for answer, completion in zip(answers, expected, strict=True):
        assert (tuple(answer.tokens), answer.finish) == (completion.tokens, completion.finish)
        np.testing.assert_allclose(answer.logprobs, completion.logprobs, atol=oracle.CLOSE)


@EVERY
@pytest.mark.parametrize("rows", [2, 3, 64])
def test_rows_of_every_kind_share_a_batch_and_each_is_as_if_alone(adapted: Load, rows: int) -> None:
    together = answer_all(adapted(limits=Limits(rollout_rows=rows)).engine(), MIXED)
    for request, answer in zip(MIXED, together, strict=True):
        same(answer, alone(adapted, request))
    assert len({len(answer.tokens) for answer in together}) > 3


@pytest.mark.parametrize("first", [1, 2, 4])
def test_rows_that_join_late_are_as_if_alone(adapted: Load, first: int) -> None:
    engine, answers, numbers = adapted().engine(), dict[int, Answer](), list[int]()
    for at in range(0, len(MIXED), first):
        numbers += engine.insert(MIXED[at : at + first])
        gather(engine.step(), answers)
        gather(engine.step(), answers)
    drain(engine, answers)
    for number, request in zip(numbers, MIXED, strict=True):
        same(answers[number], alone(adapted, request))


@EVERY
@pytest.mark.parametrize("cache_bytes", [0, 10**7])
def test_rows_of_several_adapters_share_a_batch(
    adapted: Load, folders: Mapping[str, Path | None], cache_bytes: int
) -> None:
    requests = [
        replace(request, adapter=name) for request in MIXED[:4] for name in (None, *folders)
    ]
    backend = adapted()
    if cache_bytes and backend.implementation == "library":
        pytest.skip("the library's own cache keeps no prefixes")
    engine = backend.engine(folders, cache_bytes)
    for order in (requests, requests[::-1], requests[::3]):
        answers = answer_all(engine, order)
        for request, answer in zip(order, answers, strict=True):
            same(answer, alone(adapted, request, adapters=folders))
    for policy in run(adapted(), [PROMPTS[0]], sampling=SAMPLED, keys=[5])[0]:
        (own,) = answer_all(engine, requests[:1])
        assert tuple(own.tokens) == policy.tokens
        assert tuple(answer_all(engine, requests[1:2])[0].tokens) != policy.tokens


def test_an_adapter_is_what_a_backend_that_loads_it_has(
    load: Load, folders: Mapping[str, Path | None]
) -> None:
    engine = load().engine(folders)
    for name, folder in folders.items():
        requests = [
            RowRequest(prompt, SAMPLED, key, adapter=name) for key, prompt in enumerate(PROMPTS)
        ]
        loaded = load() if folder is None else load(adapter=folder)
        for answer, (completion,) in zip(answer_all(engine, requests), run(loaded), strict=True):
            assert tuple(answer.tokens) == completion.tokens
            np.testing.assert_allclose(answer.logprobs, completion.logprobs, atol=oracle.CLOSE)


@pytest.mark.parametrize(("cache_bytes", "first"), [(0, set()), (10**7, {"letters"})])
def test_an_adapter_may_be_added_while_rows_are_live(
    adapted: Load, folders: Mapping[str, Path | None], cache_bytes: int, first: set[str]
) -> None:
    named = {name: folders[name] for name in first}
    engine = adapted().engine(named, cache_bytes)
    live = [replace(each, adapter=name) for each in MIXED for name in (None, *named)]
    numbers = engine.insert(live)
    answers = gather([*engine.step(), *engine.step()])
    engine.add_adapter("invoices", folders["invoices"])
    later = [replace(each, adapter=name) for each in MIXED for name in (None, "invoices", *named)]
    numbers += engine.insert(later)
    gather(engine.step(), answers)
    engine.add_adapter("base", None)
    later.append(replace(MIXED[0], adapter="base"))
    numbers += engine.insert(later[-1:])
    drain(engine, answers)
    for number, request in zip(numbers, [*live, *later], strict=True):
        same(answers[number], alone(adapted, request, folders), close=2.0)
    for name in named:
        assert answers[numbers[0]].tokens != answers[numbers[1]].tokens, name
    again = answer_all(engine, later)
    for answer, request in zip(again, later, strict=True):
        same(answer, alone(adapted, request, folders), close=2.0)


def test_an_adapter_that_cannot_be_added_changes_nothing(
    load: Load, folders: Mapping[str, Path | None], tmp_path: Path
) -> None:
    engine = load().engine({"invoices": folders["invoices"]})
    request = replace(MIXED[0], adapter="invoices")
    (number,) = engine.insert([request])
    answers = gather(engine.step())
    with pytest.raises(ValueError, match="has an adapter 'invoices' already"):
        engine.add_adapter("invoices", folders["letters"])
    with pytest.raises(ModelError):
        engine.add_adapter("missing", tmp_path / "missing")
    with pytest.raises(ModelError, match="not finite"):
        engine.add_adapter("infinite", infinite(tmp_path))
    for name in ("missing", "infinite"):
        with pytest.raises(ValueError, match=f"no adapter '{name}'"):
            engine.insert([replace(request, adapter=name)])
    same(drain(engine, answers)[number], alone(load, request, folders))


def infinite(folder: Path) -> Path:
    """Write an adapter with a number that is not finite."""
    arrays = {p: np.ones(s, np.float32) for p, s in oracle.adapter_shapes(2).items()}
    next(iter(arrays.values()))[0, 0] = np.inf
    for file, content in adapters.encode(arrays, LoraSpec(rank=2)).items():
        (folder / file).write_bytes(content)
    return folder


def test_the_head_may_have_no_adapter(load: Load, tmp_path: Path) -> None:
    """PEFT can put one there, which would do nothing where logits come from the weight alone."""
    spec = LoraSpec(rank=2, targets=("lm_head",))
    sizes = {"A": (2, tiny_llama.HIDDEN), "B": (300, 2)}
    arrays = {adapters.parameter("lm_head", m): np.ones(s, np.float32) for m, s in sizes.items()}
    for file, content in adapters.encode(arrays, spec).items():
        (tmp_path / file).write_bytes(content)
    for attempt in (
        lambda: load(lora=spec),
        lambda: load(adapter=tmp_path),
        lambda: load().engine({"head": tmp_path}),
    ):
        with pytest.raises(ModelError, match=r"'lm_head' cannot have|on the head or the embedding"):
            attempt()


@EVERY
def test_the_policys_own_adapter_may_train_beside_others(
    adapted: Load, folders: Mapping[str, Path | None]
) -> None:
    backend = adapted()
    engine = backend.engine(folders, cache_bytes=10**7)
    requests = [RowRequest(PROMPTS[0], SAMPLED, adapter=name) for name in (None, "invoices")]
    before = answer_all(engine, requests)
    train(backend)
    after = answer_all(engine, requests)
    assert before[0].tokens != after[0].tokens
    same(before[1], after[1])
    ((completion,),) = run(backend, PROMPTS[:1])
    assert tuple(after[0].tokens) == completion.tokens


def train(backend: Backend) -> None:
    """Take a large step."""
    episode = Episode("", (Segment(PROMPTS[0], False), Segment((1, 2, 3), True)))
    backend.forward_backward([episode])
    backend.optim_step(0.5, AdamW())


KEPT = [
    RowRequest(PROMPTS[0], SAMPLED, 0, keep=True),
    RowRequest(PROMPTS[1], KINDS["all"], 1, keep=True),
    RowRequest((7, 7), replace(GREEDY, stop_ids=()), 2, keep=True),
    RowRequest(PROMPTS[2], SAMPLED, 3, sample=1, keep=True),
]


@EVERY
@pytest.mark.parametrize("cache_bytes", [0, 10**7])
@pytest.mark.parametrize("cut", [2, 5])
def test_an_extended_row_continues_as_one_long_prompt_would(
    adapted: Load, truth: oracle.Llama, adapter: Arrays, cut: int, cache_bytes: int
) -> None:
    backend = adapted()
    if cache_bytes and backend.implementation == "library":
        pytest.skip("the library's own cache keeps no prefixes")
    engine = backend.engine(cache_bytes=cache_bytes)
    limited = [replace(each, sampling=replace(each.sampling, max_tokens=cut)) for each in KEPT]
    numbers = engine.insert(limited)
    answers = drain(engine)
    histories = {
        number: [*request.tokens, *answers[number].tokens]
        for number, request in zip(numbers, KEPT, strict=True)
    }
    used = cut
    for given, count in [((60, 3, 250), 4), ((), 3), ((1,), 2)]:
        read = backend.prefilled_tokens
        for number, request in zip(numbers, KEPT, strict=True):
            engine.extend(number, given, replace(request.sampling, max_tokens=count))
            histories[number] += given
        answers = drain(engine)
        assert backend.prefilled_tokens - read == len(KEPT) * (len(given) + 1)
        for number, request in zip(numbers, KEPT, strict=True):
            expected = continued(truth, adapter, request, histories[number], used, count)
            assert answers[number].tokens == expected
            histories[number] += expected
        used += count


def continued(
    truth: oracle.Llama,
    adapter: Arrays,
    request: RowRequest,
    history: Sequence[int],
    used: int,
    count: int,
) -> list[int]:
    """Return what the oracle draws after `history`, with the uniforms after the first `used`."""
    s, tokens = request.sampling, list(history)
    draws = uniforms(s.seed, s.step, request.key, request.sample, used + count)[used:]
    for draw in draws:
        logits = truth.logits(tokens, adapter, 1.5)[-1]
        if s.temperature == 0:
            tokens.append(int(logits.argmax()))
        else:
            reached = np.cumsum(np.exp(oracle.sampled(logits, s)))
            tokens.append(int((reached <= draw).sum()))
    return tokens[len(history) :]


@EVERY
def test_an_extended_row_has_its_adapter_still(
    adapted: Load, folders: Mapping[str, Path | None]
) -> None:
    engine = adapted().engine(folders, 10**7)
    request = RowRequest(PROMPTS[0], replace(SAMPLED, max_tokens=4), adapter="invoices", keep=True)
    other = replace(request, adapter=None)
    number, twin = engine.insert([request, other])
    first = drain(engine)
    engine.extend(number, (5, 6), SAMPLED)
    engine.extend(twin, (5, 6), SAMPLED)
    second = drain(engine)
    prompt = (*request.tokens, *first[number].tokens, 5, 6)
    greedy = adapted().engine(folders)
    whole = RowRequest(prompt, replace(GREEDY, max_tokens=1), adapter="invoices")
    (expected,) = answer_all(greedy, [whole])
    engine.cancel(twin)
    engine.extend(number, (), replace(GREEDY, max_tokens=1))
    drain(engine)
    assert second[number].tokens != second[twin].tokens
    again = engine.insert([whole])
    assert drain(engine)[again[0]].tokens == expected.tokens


@EVERY
def test_a_cancelled_row_leaves_its_slot_to_one_that_waits(load: Load) -> None:
    engine = load(limits=Limits(rollout_rows=2)).engine()
    long = replace(SAMPLED, max_tokens=30)
    numbers = engine.insert([RowRequest(prompt, long, key) for key, prompt in enumerate(PROMPTS)])
    seen = gather([*engine.step(), *engine.step()])
    assert len(seen) == 2, "two slots"
    live, other = sorted(seen)
    (waiting, *_) = [number for number in numbers if number not in seen]
    engine.cancel(live)
    engine.cancel(waiting)
    before = len(seen[live].tokens)
    drain(engine, seen)
    assert len(seen[live].tokens) == before
    assert waiting not in seen
    assert len(seen) == len(PROMPTS) - 1
    for number in set(numbers) - {live, waiting}:
        request = RowRequest(PROMPTS[number - numbers[0]], long, number - numbers[0])
        same(seen[number], alone(load, request))
    assert len(seen[other].tokens) == 30


def test_all_rows_may_be_cancelled_and_the_engine_goes_on(load: Load) -> None:
    engine = load().engine()
    numbers = engine.insert(MIXED)
    gather(engine.step())
    for number in numbers:
        engine.cancel(number)
    assert engine.idle
    assert engine.step() == []
    for request, answer in zip(MIXED, answer_all(engine, MIXED), strict=True):
        same(answer, alone(load, request))


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (RowRequest((), SAMPLED), "at least one token"),
        (RowRequest((1, 300), SAMPLED), "has token 300; tokens must be 0 to 299"),
        (RowRequest((1,), SAMPLED, adapter="invoices"), "no adapter 'invoices'"),
    ],
)
def test_what_an_engine_refuses(load: Load, request_: RowRequest, words: str) -> None:
    engine = load().engine()
    with pytest.raises(ValueError, match=words):
        engine.insert([RowRequest((1,), SAMPLED), request_])
    assert engine.idle, "all are refused, or none"


def test_only_a_kept_finished_row_is_extended(load: Load) -> None:
    engine = load().engine()
    kept, dropped = engine.insert([replace(KEPT[0], keep=keep) for keep in (True, False)])
    for number in (kept, 77):
        with pytest.raises(ValueError, match=f"row {number} "):
            engine.extend(number, (1,), SAMPLED)
    drain(engine)
    with pytest.raises(ValueError, match=f"row {dropped} "):
        engine.extend(dropped, (1,), SAMPLED)
    with pytest.raises(ValueError, match="token 300"):
        engine.extend(kept, (300,), SAMPLED)
    engine.cancel(kept)
    with pytest.raises(ValueError, match=f"row {kept} "):
        engine.extend(kept, (1,), SAMPLED)


@EVERY
def test_a_closed_engine_has_no_rows_and_can_be_used_again(load: Load) -> None:
    engine = load().engine(cache_bytes=10**7)
    engine.insert(MIXED)
    engine.step()
    engine.close()
    assert engine.idle
    same(answer_all(engine, MIXED[:1])[0], alone(load, MIXED[0]))


def test_an_adapter_that_does_not_fit_is_refused(load: Load, tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        load().engine({"missing": tmp_path / "missing"})
    spec = LoraSpec(rank=2, targets=("q_proj",))
    shapes = {p: s for p, s in oracle.adapter_shapes(2).items() if ".q_proj." in p}
    wide = {p: np.ones((s[0], s[1] + 1), np.float32) for p, s in shapes.items()}
    for file, content in adapters.encode(wide, spec).items():
        (tmp_path / file).write_bytes(content)
    with pytest.raises(ModelError, match="does not fit"):
        load().engine({"wide": tmp_path})


def test_what_prompts_share_is_prefilled_once(load: Load) -> None:
    backend = load(limits=Limits(rollout_rows=4))
    requests = [RowRequest(p, SAMPLED, sample=s) for p in PROMPTS for s in range(3)]
    answer_all(backend.engine(), requests)
    own = sum(len(prompt) - len(SHARED) for prompt in PROMPTS)
    assert backend.prefilled_tokens == len(SHARED) + own


def test_kept_prefixes_are_not_read_again(adapted: Load) -> None:
    backend = adapted()
    engine = backend.engine(cache_bytes=10**7)
    for prompt in [PROMPTS[0], (*PROMPTS[0], 80, 81), (*SHARED[:10], 99), PROMPTS[0]]:
        request = RowRequest(prompt, SAMPLED)
        same(answer_all(engine, [request])[0], alone(adapted, request))
    # The second reads its two last tokens, the third one, the fourth its last one again.
    assert backend.prefilled_tokens == len(PROMPTS[0]) + 2 + 1 + 1


def test_what_follows_a_shared_prefix_is_kept_for_each_prompt(adapted: Load) -> None:
    engine = adapted().engine(cache_bytes=10**7)
    answer_all(engine, [RowRequest(prompt, SAMPLED) for prompt in PROMPTS])
    for prompt in PROMPTS:
        request = RowRequest((*prompt, 80), SAMPLED)
        same(answer_all(engine, [request])[0], alone(adapted, request))


def test_without_a_budget_prefixes_are_read_again(adapted: Load) -> None:
    backend = adapted()
    engine = backend.engine()
    answer_all(engine, [RowRequest(PROMPTS[0], SAMPLED)])
    answer_all(engine, [RowRequest(PROMPTS[0], SAMPLED)])
    assert backend.prefilled_tokens == 2 * len(PROMPTS[0])


def test_a_kept_prefix_is_never_another_adapters(
    adapted: Load, folders: Mapping[str, Path | None]
) -> None:
    """Others answered with the wrong adapter's cache, without an error (llama.cpp 26207)."""
    backend = adapted()
    engine = backend.engine(folders, cache_bytes=10**7)
    for name in (None, *folders, None):
        request = RowRequest(PROMPTS[2], SAMPLED, adapter=name)
        same(answer_all(engine, [request])[0], alone(adapted, request, adapters=folders))
    assert backend.prefilled_tokens == len(PROMPTS[2]) * (1 + len(folders)) + 1


def test_an_update_of_the_weights_makes_kept_prefixes_useless(
    adapted: Load, adapter: Arrays
) -> None:
    backend = adapted()
    engine = backend.engine(cache_bytes=10**7)
    request = replace(KEPT[0], sampling=replace(SAMPLED, max_tokens=3))
    (number,) = engine.insert([request])
    before = drain(engine)[number]
    train(backend)
    ((completion,),) = run(backend, PROMPTS[:1], sampling=request.sampling)
    assert tuple(answer_all(engine, [request])[0].tokens) == completion.tokens
    assert tuple(before.tokens) != completion.tokens
    greedy = replace(GREEDY, stop_ids=())
    engine.extend(number, (5, 6), greedy)
    extended = drain(engine)[number]
    whole = (*request.tokens, *before.tokens, 5, 6)
    ((completion,),) = run(backend, [whole], sampling=greedy)
    assert tuple(extended.tokens) == completion.tokens
    backend.restore(TrainState(adapter=adapter))
    assert answer_all(engine, [request])[0].tokens == before.tokens


def test_few_bytes_keep_few_prefixes_and_answers_are_the_same(adapted: Load) -> None:
    backend = adapted()
    bytes_per_token = 2 * 2 * 2 * 16 * 4  # keys and values, layers, heads, width, float32
    engine = backend.engine(cache_bytes=30 * bytes_per_token)
    prompts = [tuple(range(at, at + 20)) for at in (1, 50, 100)]
    for prompt in [*prompts, *prompts]:
        request = RowRequest(prompt, SAMPLED)
        same(answer_all(engine, [request])[0], alone(adapted, request))
    read = backend.prefilled_tokens
    assert read == 6 * 20, "each of them drops the one before"
    answer_all(engine, [RowRequest(prompts[-1], SAMPLED)])
    assert backend.prefilled_tokens == read + 1
