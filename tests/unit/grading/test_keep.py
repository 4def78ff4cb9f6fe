"""Keep rules: what stays, what is dropped and why, and near-duplicates."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from offapi.checks import Verdict, is_json
from offapi.data.documents import fields_of
from offapi.data.traces import Trace
from offapi.errors import DataError
from offapi.grading import table
from offapi.grading.keep import NONE, Keep, require_groups
from offapi.grading.select import choose
from offapi.grading.similarity import near_duplicates, shingles
from offapi.task import Grade, Task

LETTER = (
    "Dear Sir or Madam, please find enclosed the goods that were ordered, together with an invoice"
    " for them. "
)


SCHEMA = {"type": "object", "properties": {"v": {}}}
TASK = Task("t", "Read.", SCHEMA, {"json": (is_json, 1.0)}, {"v": "text"})


def rows(*scores: float | None, **columns: list[Any]) -> list[tuple[Trace, Grade | None]]:
    """Return graded traces with these scores, of different documents unless given."""
    many = len(scores)
    group, cap = columns.get("group", [None] * many), columns.get("cap", [None] * many)
    document = columns.get("document", [f"text {i}" for i in range(many)])
    answered = columns.get("has_answer", [True] * many)
    answer = {"role": "assistant", "content": "{}"}
    found: list[tuple[Trace, Grade | None]] = []
    for i, score in enumerate(scores):
        trace = Trace(f"r{i}", ({"role": "user", "content": document[i]}, answer), group=group[i])
        value = {"v": cap[i]} if answered[i] else None
        parts = {"json": Verdict(1.0, "")}
        found.append((trace, None if score is None else Grade(score, parts, value)))
    return found


def select(
    graded: list[tuple[Trace, Grade | None]], keep: Keep, seed: int, near: str | None = None
) -> tuple[tuple[int, ...], dict[str, int]]:
    """Return the rows kept and the counts dropped; `near` is an evaluation document."""
    evaluation = [] if near is None else [("v", near)]
    chosen = choose(graded, TASK, keep, seed, evaluation=evaluation)
    return chosen.kept, dict(chosen.report.dropped)


def clusters(texts: list[str]) -> list[int]:
    """Return for each text the index of the first that it is a near-duplicate of."""
    found = np.zeros(len(texts), table.kind(0))
    ignored = shingles.common(texts)
    table.add_documents(found, texts, ignored)
    cluster = table.clusters(found, texts.__getitem__, ignored)
    return [int(first) for first in cluster]


@pytest.mark.parametrize(
    ("keep", "kept", "dropped"),
    [
        (Keep(), (0, 3), {"below the threshold": 2}),
        (Keep(threshold=0.5), (0, 2, 3), {"below the threshold": 1}),
        (Keep(best=1), (0, 3, 5), {"not the best of its group": 1}),
        (
            Keep(best=1, threshold=0.3),
            (0, 3),
            {"below the threshold": 1, "not the best of its group": 1},
        ),
        (Keep(top=0.5), (0, 3), {"not in the top": 2}),
    ],
)
def test_all_conditions_hold_and_each_dropped_row_has_a_reason(
    keep: Keep, kept: tuple[int, ...], dropped: dict[str, int]
) -> None:
    answered = [True, True, True, True, False, True]
    found = select(
        rows(
            1.0,
            None,
            0.5,
            1.0,
            1.0,
            0.2,
            has_answer=answered,
            group=["a", "a", "a", "b", "b", None],
        ),
        keep,
        0,
    )
    assert found == (
        kept,
        {"could not be graded": 1, "whose answer is not one JSON object": 1, **dropped},
    )


def test_the_cap_keeps_the_best_and_spares_rows_without_value() -> None:
    kept, dropped = select(
        rows(0.6, 0.9, 0.8, 0.7, 0.6, cap=["x", "x", "x", None, None]),
        Keep(threshold=0.5, cap=2, cap_by="v"),
        0,
    )
    assert kept == (1, 2, 3, 4)
    assert dropped == {"over the cap": 1}


def test_a_refused_row_takes_no_place() -> None:
    many = rows(1.0, 0.9, 0.8, 1.0, group=["a"] * 4)
    assert select(many, Keep(best=2), 0, near="text 3") == (
        (0, 1),
        {"near an evaluation document": 1, "not the best of its group": 1},
    )


def test_ties_fall_by_the_seed_alone() -> None:
    many = rows(*[1.0] * 40, cap=["x"] * 40)
    kept = [select(many, Keep(cap=5, cap_by="v"), seed)[0] for seed in (0, 0, 1)]
    assert kept[0] == kept[1] != kept[2]
    assert [len(each) for each in kept] == [5, 5, 5]


def test_the_best_near_duplicate_stays_and_numbers_distinguish() -> None:
    same = [
        LETTER * 3,
        LETTER.upper() * 3 + "Yours!",
        "Other.",
        LETTER * 3 + "12",
        LETTER * 3 + "13",
    ]
    scores = (0.8, 1.0, 1.0, 1.0, 1.0)
    assert select(rows(*scores, document=same), Keep(threshold=0.5), 0)[0] == (1, 2, 3, 4)
    assert select(rows(*scores, document=same), Keep(threshold=0.5, near_duplicates=False), 0)[
        0
    ] == (0, 1, 2, 3, 4)
    assert select(rows(*scores, document=same), Keep(), 0)[1] == {"near-duplicate": 1}


def test_with_best_answers_of_one_group_are_not_copies() -> None:
    group = ["a", "a", "a", "b", None]
    kept, _ = select(
        rows(0.9, 0.8, 0.7, 0.9, 0.9, document=["same"] * 5, group=group), Keep(best=2), 3
    )
    assert kept in ((0, 1), (3,), (4,))  # by the seed one of the three groups that hold 0.9
    scores = (1.0, 0.8, 0.7, 0.9, 0.9)
    assert select(rows(*scores, document=["same"] * 5, group=group), Keep(best=2), 0)[0] == (0, 1)
    assert select(rows(*scores, document=["same"] * 5, group=group), Keep(threshold=0.5), 0)[0] == (
        0,
    )


@given(
    st.lists(
        st.tuples(
            st.none() | st.sampled_from([0.0, 0.5, 1.0]),
            st.sampled_from("ab"),
            st.sampled_from("xyz"),
        )
    )
)
def test_no_row_is_lost_and_every_rule_holds(raw: list[tuple[float | None, str, str]]) -> None:
    many = rows(
        *(row[0] for row in raw), group=[row[1] for row in raw], cap=[row[2] for row in raw]
    )
    places, dropped = select(many, Keep(threshold=0.5, best=3, top=0.8, cap=2, cap_by="v"), 1)
    kept = [many[i] for i in places]
    assert len(kept) + sum(dropped.values()) == len(many)
    assert list(places) == sorted(set(places))
    groups = Counter(trace.group for trace, _ in kept)
    values = Counter(fields_of(grade.value)["v"] for _, grade in kept if grade and grade.value)
    assert max(groups.values(), default=0) <= 3
    assert max(values.values(), default=0) <= 2
    assert all(grade is not None and grade.score >= 0.5 for _, grade in kept)


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 1.1},
        {"top": 0.0},
        {"best": 0},
        {"cap": 0, "cap_by": "group"},
        {"cap": 3},
        {"cap_by": "vendor"},
    ],
)
def test_an_invalid_rule_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Keep(**wrong)


def test_a_condition_on_groups_needs_a_row_that_has_one() -> None:
    path = Path("traces.jsonl")
    for keep, named in (
        (Keep(best=1), "best = 1"),
        (Keep(cap=2, cap_by="group"), 'cap_by = "group"'),
    ):
        with pytest.raises(
            DataError, match=f"no row has a group, so {named} would drop none"
        ) as caught:
            require_groups(keep, [None, None], path)
        assert caught.value.where == "traces.jsonl, field 'group'"
        assert "threshold" in caught.value.next_step
        require_groups(keep, [None, "g"], path)
        require_groups(keep, [], path)
    require_groups(Keep(top=0.5), [None], path)


def test_graded_traces_become_columns() -> None:
    question = {"role": "user", "content": "Shop: Corner"}
    answer = {"role": "assistant", "content": '{"vendor": "Corner Ltd."}'}
    trace = Trace("a", (question, answer), group="g")
    call = {"type": "function", "function": {"name": "look", "arguments": "{}"}}
    agent = Trace(
        "b",
        (question, {"role": "assistant", "content": None, "tool_calls": [call]}),
        tools=({}, {}),
    )
    plain = Trace("c", (question, {"role": "assistant", "content": "no object"}))
    grade, bad = Grade(0.5, {}, {"vendor": "Corner Ltd."}), Grade(0.1, {}, None)
    graded = [(trace, grade), (agent, bad), (plain, bad), (trace, None)]
    found = table.of(graded, 0, "vendor", [table.UNKNOWN] * 4)
    columns = table.columns(found, np.arange(4))
    vendor, group = table.number("cornerltd"), table.number("g")
    assert columns.has_answer.tolist() == [True, True, False, True]
    assert columns.cap_value.tolist() == [vendor, NONE, NONE, NONE]
    assert columns.group.tolist() == [group, NONE, NONE, group]
    assert columns.score[:3].tolist() == [0.5, 0.1, 0.1]
    assert np.isnan(columns.score[3])
    by_group = table.of(graded[:2], 0, "group", [table.UNKNOWN] * 2)
    assert by_group["cap_value"].tolist() == [group, NONE]


def similar_texts(templates: int, each: int, seed: int) -> list[str]:
    """Return texts made of templates, up to twelve words of each replaced."""
    draw = np.random.default_rng(seed)
    texts = []
    for _ in range(templates):
        template = ["".join(draw.choice(list("klmnopqr"), 5)) for _ in range(60)]
        for _ in range(each):
            words = list(template)
            for i in draw.choice(60, draw.integers(0, 12), replace=False):
                words[i] = "".join(draw.choice(list("abcdefgh"), 5))
            texts.append(" ".join(words))
    return texts


def test_near_duplicates_match_comparing_every_pair() -> None:
    texts = similar_texts(templates=15, each=20, seed=5)
    found = clusters(texts)
    prints = shingles.prints(texts)
    sets = [prints.runs_of(i) for i in range(len(texts))]
    near = [
        (a, b)
        for b in range(300)
        for a in range(b)
        if shingles.shared(sets[a], sets[b]) >= near_duplicates.SIMILAR
    ]
    joined = sum(found[a] == found[b] for a, b in near)
    assert len(near) > 100
    assert joined >= 0.99 * len(near)
    assert all(found[i] == i for i in set(found))
    linked = coo_matrix((np.ones(len(near)), np.transpose(near)), shape=(300, 300))
    assert len(set(found)) >= connected_components(linked, directed=False)[0]


def test_many_documents_are_compared_by_sketches_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = similar_texts(templates=15, each=20, seed=5)
    compared = len(set(clusters(texts)))
    monkeypatch.setattr(near_duplicates, "COMPARED", 100)
    monkeypatch.setattr(table, "compare", None)
    assert len(set(clusters(texts))) == pytest.approx(compared, rel=0.1)


def test_pairs_that_meet_in_one_row_are_one_cluster() -> None:
    pairs = np.array([[0, 5], [1, 5], [3, 4], [2, 4]])
    assert near_duplicates._united(np.arange(7), pairs).tolist() == [0, 0, 2, 2, 2, 0, 6]


def test_a_chain_of_near_duplicates_is_one_cluster() -> None:
    words = [f"word{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(60)]
    steps = []
    for i in range(4):
        steps.append(" ".join(words))
        words[10 * i + 5], words[10 * i + 9] = f"new{chr(97 + i)}", f"newer{chr(97 + i)}"
    prints = shingles.prints(steps)
    shares = [shingles.shared(prints.runs_of(0), prints.runs_of(i)) for i in (1, 2)]
    assert shares[0] >= near_duplicates.SIMILAR > shares[1]
    assert clusters([steps[0], steps[3], steps[1], steps[2]]) == [0, 0, 0, 0]


def test_every_unspaced_character_passes_the_prefilter() -> None:
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    found = shingles._NO_SPACES.findall(everything)
    assert len(found) > 100_000
    assert all(each.encode().translate(None, shingles._SPACED) for each in found)
    assert shingles._bare("中文 a") == " 中 文 a ".replace(" 中 文 ", " 中  文  ").encode()


@given(st.lists(st.text(max_size=40), max_size=8), st.text(max_size=40))
def test_a_text_has_the_same_hashes_alone_and_among_others(others: list[str], text: str) -> None:
    alone, among = shingles.prints([text]), shingles.prints([*others, text, *others])
    i = len(others)
    assert alone.whole[0] == among.whole[i]
    assert alone.number_sums[0] == among.number_sums[i]
    assert np.array_equal(alone.sketches[0], among.sketches[i])
    assert np.array_equal(alone.runs_of(0), among.runs_of(i))
    assert np.array_equal(alone.numbers_of(0), among.numbers_of(i))


def test_hashes_do_not_change_between_versions() -> None:
    assert hex(int(shingles.prints(["Total: 12.40 EUR"]).whole[0])) == "0x2be2e20180d1ebbb"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("TOTAL: 12.40", "total 12,40 ", True),
        ("TOTAL: 12.40", "TOTAL: 12.41", False),
        ("a b c", "c b a", False),
        ("ab c", "a bc", False),
        ("", " \n", True),
        ("今天天气很好", "今天 天\n气很好", True),
        ("今天天气很好", "今天天气好很", False),
        ("ÜBER", "über", True),
    ],
)
def test_what_counts_in_a_text(one: str, other: str, same: bool) -> None:
    found = shingles.prints([one, other])
    assert (found.whole[0] == found.whole[1]) is np.bool_(same)
