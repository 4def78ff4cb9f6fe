"""Drift: e-values by hand, their false alarms and power by simulation, findings, the state."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from math import log, log2
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from offapi.data.rows import read_documents
from offapi.drift import outliers, reference, sequential_test, state, without_gold
from offapi.drift import report as verdict
from offapi.drift.monitor import DriftMonitor
from offapi.drift.quantile_scale import MARKS, Ruler, marks
from offapi.drift.reference import Reference
from offapi.drift.rows import MOST_FAILED, RowTally, TraceSource
from offapi.drift.sequential_test import BLOCK, STEPS, Bets
from offapi.drift.signals import Signal, task_signals
from offapi.drift.state import State
from offapi.errors import ConfigError, DataError, RunError
from offapi.grading.similarity.character_runs import Known, Texts
from offapi.grading.similarity.hash_set import Ids
from offapi.progress import Advance

pytestmark = pytest.mark.filterwarnings("error")
RATE = 0.05


def coins(heads: NDArray[np.int64], of: int) -> NDArray[np.int64]:
    """Return counts of 0 and 1, a row for each number of heads."""
    found = np.zeros((len(heads), STEPS + 1), np.int64)
    found[:, 0], found[:, STEPS] = of - heads, heads
    return found


# e-values


def test_an_e_value_by_hand() -> None:
    test = sequential_test.against(coins(np.array([9]), 10), 0.0)
    bets = Bets.start(test)
    k = int(np.argmin(np.abs(test.q[0] - 0.95)))
    q = test.q[0, k]
    # The gamblers begin with 25 rows of mean 0.9 and mean
    # square 0.9, whose variance 0.09 is raised to 1 / 10.
    bet = min((q - 0.9) / (0.1 + (q - 0.9) ** 2), 0.95 / (1 - q))
    ones, zero = np.ones((BLOCK - 1, 1)), np.zeros((1, 1))
    after = sequential_test.after(test, bets, np.concatenate([ones, zero]))
    assert np.exp(after.wealth[0, :, k]) == pytest.approx(
        (1 + bet * q) * (1 + bet * (q - 1)) ** (BLOCK - 1)
    )
    # Then with what they saw: 24 of 25, the reference's 22.5 of 25.
    mean = (24 + 0.9 * 25) / 50
    gap = q - mean
    again = min(gap / (0.1 + gap**2), 0.95 / (1 - q))
    both = sequential_test.log_e(test, after, np.array([[0.5]]))
    wealth = np.exp(after.wealth[0, :, k]) * (1 + again * (q - 0.5))
    assert both[0] <= np.log(wealth.mean()) + test.evidence[0, k] + 1e-12
    assert after.rows == pytest.approx([25, 25])
    third = sequential_test.after(test, after, np.ones((BLOCK, 1)))
    assert third.rows == pytest.approx([25 * 0.5 ** (25 / 200) + 25, 25 * 0.5 ** (25 / 2000) + 25])


def test_the_references_evidence_by_hand() -> None:
    at = np.array([0.8])
    sizes = [
        min(2.0 * z / 10**0.5, 0.95) for z in (0.0, 1.5, 3.0, 6.0, 12.0)
    ]  # sqrt(0.8 / 0.2) = 2
    wealth = [(1 + f * (1 / 0.8 - 1)) ** 9 * (1 - f) for f in sizes]
    assert sequential_test.log_above(coins(np.array([9]), 10)[0], at)[0] == pytest.approx(
        log(sum(wealth) / 5)
    )


@given(
    st.lists(st.sampled_from([0.0, 0.5, 1.0]), max_size=3), st.floats(0.02, 0.98), st.integers(0, 3)
)
@settings(max_examples=60, deadline=None)
def test_no_bet_is_better_than_fair(seen: list[float], chance: float, kind: int) -> None:
    """If the mean is q or more, the expected wealth does not grow with one more block."""
    test = sequential_test.against(coins(np.array([5]), 8), 0.0)
    bets = Bets.start(test)
    for value in seen:
        bets = sequential_test.after(test, bets, np.full((BLOCK, 1), value))
    low, high = ((0.0, 1.0), (0.5, 1.0), (0.0, 0.5), (0.25, 0.75))[kind]
    mean = chance * high + (1 - chance) * low
    one, other = (
        np.exp(sequential_test._wealth(test, bets, np.array([[x]])) - bets.wealth)
        for x in (high, low)
    )
    fair = test.q[0] <= mean
    assert (chance * one + (1 - chance) * other)[:, :, fair].max(initial=0.0) <= 1 + 1e-9


def test_the_e_value_is_the_least_over_all_means() -> None:
    rng = np.random.default_rng(5)
    test = sequential_test.against(coins(np.array([180]), 200), 0.02)
    bets = Bets.start(test)
    for _ in range(20):
        bets = sequential_test.after(test, bets, (rng.random((BLOCK, 1)) < 0.75).astype(float))
    e = sequential_test.log_e(test, bets, np.zeros((0, 1)))[0]
    each = np.log(np.exp(bets.wealth[0]).mean(axis=0)) + test.evidence[0]
    assert e == pytest.approx(each.min())
    assert e > log(1 / RATE)
    ends = np.clip(test.q[0] + 0.02, 0, 1)
    assert (np.diff(ends) >= -1e-12).all()
    assert (np.diff(test.evidence[0]) <= 1e-9).all(), "a cell's upper end is its least"
    assert ends[-1] > 0.97
    for k in range(len(ends) - 1):
        inside = np.linspace(ends[k], ends[k + 1], 3)[1:]
        assert (
            sequential_test.log_above(coins(np.array([180]), 200)[0], inside)
            >= test.evidence[0, k] - 1e-9
        ).all()


def test_a_change_within_the_margin_is_no_drift() -> None:
    assert np.isfinite(first_alarms(20_000, 0.9, 0.86, 1500)).mean() > 0.5
    assert np.isfinite(first_alarms(20_000, 0.9, 0.86, 1500, margin=0.04)).mean() <= RATE


def first_alarms(
    reference: int, before: float, after: float, rows: int, **how: Any
) -> NDArray[np.float64]:
    """Return after how many rows each of 300 simulations raises its alarm; inf means never."""
    rng, trials, margin = np.random.default_rng(11), 300, how.get("margin", 0.0)
    test = sequential_test.against(
        coins(rng.binomial(reference, before, trials), reference), margin
    )
    bets, alarm = Bets.start(test), np.full(trials, np.inf)
    for block in range(rows // BLOCK):
        chance = before if block * BLOCK < how.get("start", 0) else after
        bets = sequential_test.after(
            test, bets, (rng.random((BLOCK, trials)) < chance).astype(float)
        )
        found = sequential_test.log_e(test, bets, np.zeros((0, trials))) >= log(
            how.get("watched", 1) / RATE
        )
        alarm[found & np.isinf(alarm)] = (block + 1) * BLOCK
    return alarm


@pytest.mark.parametrize(("reference", "mean"), [(20, 0.5), (100, 0.9), (2000, 0.97)])
def test_false_alarms_are_as_rare_as_stated_at_every_block(reference: int, mean: float) -> None:
    alarms = np.isfinite(first_alarms(reference, mean, mean, 1500)).mean()
    assert alarms <= RATE


def test_without_a_reference_nothing_is_ever_found() -> None:
    test = sequential_test.against(np.zeros((1, STEPS + 1), np.int64), 0.0)
    bets = Bets.start(test)
    for _ in range(40):
        bets = sequential_test.after(test, bets, np.zeros((BLOCK, 1)))
    assert sequential_test.log_e(test, bets, np.zeros((0, 1)))[0] <= 1e-9


def test_a_drop_of_ten_points_is_found_among_twelve_signals() -> None:
    alarms = first_alarms(2000, 0.9, 0.8, 1000, margin=0.02, watched=12)
    assert np.isfinite(alarms).mean() >= 0.95
    assert np.median(alarms) <= 600


def test_a_drop_that_comes_late_is_found_as_well() -> None:
    alarms = first_alarms(2000, 0.9, 0.8, 3500, margin=0.02, watched=12, start=2000)
    assert (alarms <= 2000).mean() <= RATE
    assert np.median(alarms) <= 2800


# what is measured


def test_lengths_are_placed_by_halves_of_ties() -> None:
    ruler = Ruler(np.bincount(marks(np.array([3.0, 3.0, 10.0, 50.0])), minlength=MARKS))
    assert ruler.places()[marks(np.array([0.0, 3.0, 5.0, 10.0, 50.0, 1e9]))] == pytest.approx(
        [0, 0.25, 0.5, 0.625, 0.875, 1]
    )
    assert ruler.median() == 3
    assert Ruler(np.zeros(MARKS, np.int64)).places()[7] == 0.5
    assert marks(np.array([63.0]))[0] != marks(np.array([64.0]))[0]
    assert marks(np.array([2.0**40]))[0] == MARKS - 1
    assert marks(np.array([1000.0]))[0] == int(log2(1001) * 64)


TEXT = st.text(st.sampled_from("ab7é ٣日\n\U0001f600\ud800"), max_size=12)


@given(st.lists(TEXT, max_size=4), st.lists(TEXT, max_size=4))
@settings(max_examples=200, deadline=None)
def test_shares_and_novelty_are_what_plain_counting_finds(
    known: list[str], fresh: list[str]
) -> None:
    def runs(text: str) -> list[str]:
        bare = "   " + "".join("0" if c in "7٣" else " " if c == "\n" else c for c in text)
        return [bare[i : i + 4] for i in range(len(text))]

    met = Known()
    met.add(Texts.of([*known, "zzzz"]), np.array([*[True] * len(known), False]))
    texts = Texts.of(fresh)
    seen = {run for text in known for run in runs(text)}
    size = [max(len(text), 1) for text in fresh]
    novel = [
        sum(run not in seen for run in runs(text)) / n for text, n in zip(fresh, size, strict=True)
    ]
    digits = [sum(c in "7٣" for c in text) / n for text, n in zip(fresh, size, strict=True)]
    other = [sum(not c.isascii() for c in text) / n for text, n in zip(fresh, size, strict=True)]
    assert texts.share(met.novel(texts)) == pytest.approx(novel)
    assert texts.share(texts.digits) == pytest.approx(digits)
    assert texts.share(texts.non_ascii) == pytest.approx(other)


def test_the_longest_new_stretch_is_shown() -> None:
    met = Known()
    met.add(Texts.of(["Total to pay: 12"]), np.array([True]))
    assert met.longest_new("Total to pay: 98") == ""
    assert met.longest_new("Total zu zahlen to pay: 98") == "al zu zahlen to"


def test_ids_are_kept_once_across_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offapi.grading.similarity.hash_set.FOLD", 10)
    ids = Ids(np.array([5, 2**63 + 1], np.uint64))
    for i in range(0, 60, 2):
        ids.add(i)
    assert [i in ids for i in (5, 2**63 + 1, 58, 59, None)] == [True, True, True, False, False]
    assert len(ids.sorted()) == 32


# files

TASK = """
import offapi
from offapi import checks

def low(document, answer, context):
    assert context.gold is None, "gold was shown"
    {EVIL}
    total = (answer.value or {}).get("total") or 0
    return checks.Verdict(1.0 if total < 1000 else 0.0, "low" if total < 1000 else "too much")

task = offapi.Task(
    name="totals",
    instructions="Read the total.",
    schema={"type": "object", "properties": {"total": {"type": "number"}, "date": {"type": "string"}}},
    checks={"json": (checks.is_json, 1.0), "low": (low, 1.0), "gold": (checks.matches_gold, 1.0)},
    match={"total": "number"},
    check_seconds=5,
)
"""


class Quiet:
    """A progress reporter that reports nothing."""

    def say(self, text: str = "") -> None:
        pass

    @contextmanager
    def progress(self, title: str, total: int | None = None) -> Iterator[Advance]:
        yield lambda done, note="": None


def row(
    i: int, prefix: str = "f", *, bad: bool = False, lines: int = 0, text: str = "", **more: Any
) -> dict[str, Any]:
    """Make a trace about a receipt of its own."""
    draw = random.Random(f"{prefix}{i}")
    answer: dict[str, Any] = {"total": 5000 if bad else draw.randint(1, 900), "date": "2026-01-02"}
    items = "\n".join(
        f"{draw.randint(1, 9)} x thing {draw.randint(1, 99)}.50"
        for _ in range(draw.randint(1, 6) + lines)
    )
    question = f"Receipt {i}\n{items}\n{text}Sum: {answer['total']}"
    chat = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": json.dumps(answer)},
    ]
    return {"id": f"{prefix}{i}", "messages": chat, **more}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), "utf-8")
    return path


class Case:
    """A task, a reference and the means to watch files."""

    def __init__(
        self, folder: Path, rows: list[dict[str, Any]] | None = None, evil: str = "pass"
    ) -> None:
        self.folder, self.task_file = folder, folder / "task.py"
        self.task_file.write_text(TASK.replace("{EVIL}", evil))
        self.task = without_gold.load(self.task_file)
        self.watching: tuple[Signal, ...] = task_signals(self.task)
        path = write(
            folder / "ref.jsonl", [row(i, "r") for i in range(400)] if rows is None else rows
        )
        self.known: Reference = reference.read_reference(self.source(path, Ids()), Quiet())
        self.watch = DriftMonitor(self.known, self.watching, 0.02)

    def source(self, path: Path, ids: Ids | None = None) -> TraceSource:
        return TraceSource(
            path, self.task_file, self.task, self.watching, self.known.ids if ids is None else ids
        )

    def run(
        self, rows: list[dict[str, Any]], before: State | None = None, tally: RowTally | None = None
    ) -> State:
        path = write(self.folder / "fresh.jsonl", rows)
        return self.watch.run(
            before or self.watch.start(), self.source(path), tally or RowTally(), Quiet()
        )

    def report(self, found: State) -> verdict.DriftReport:
        return verdict.drift_report(self.watch, found, RATE)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("drift"))


def moved(report: verdict.DriftReport) -> set[str]:
    return {one.name for one in report.watched if one.moved}


def test_like_rows_are_fresh_and_gold_stands_apart(case: Case) -> None:
    rows = [row(i, gold={"total": 1}) if i % 2 else row(i) for i in range(300)]
    told = case.report(case.run(rows))
    assert (told.verdict, moved(told), told.fresh_rows) == ("fresh", set(), 300)
    right = told.right["fresh"]
    assert right is not None
    assert right.mean < 0.05, "all that gold is known of are wrong, and no check says so"
    assert told.right["reference"] is None
    assert told.alarm == len(case.watching) / RATE == 10 / RATE


@pytest.mark.parametrize(
    ("how", "name", "said"),
    [
        ({"lines": 4}, "document length in lines", "lines; the reference's median is"),
        (
            {"text": "Gesamtbetrag in Euro einschließlich Steuer\n"},
            "share of new character runs",
            "einschließlich",
        ),
        ({"text": "合計金額消費税込み領収書\n"}, "share of non-ASCII", "%"),
        ({"text": "0123456789 0123456789\n"}, "share of digits", "%"),
    ],
    ids=["longer", "another language", "another script", "digits"],
)
def test_a_shift_of_the_documents_is_found_named_and_shown(
    case: Case, how: Any, name: str, said: str
) -> None:
    told = case.report(case.run([row(i, **how) for i in range(300)]))
    assert told.verdict == "watch"
    found = next(one for one in told.watched if one.name == name)
    assert found.moved
    assert found.difference.low > 0
    assert said in found.rows[0].reason
    assert not moved(told) & {"check json", "check low", "total missing", "date missing"}
    assert len(found.rows) == outliers.SHOWN
    values = [one.value for one in found.rows]
    assert values == sorted(values, reverse=True)


def test_a_check_that_falls_says_retrain_with_its_rows(case: Case) -> None:
    told = case.report(case.run([row(i, bad=i % 4 == 2) for i in range(300)]))
    assert told.verdict == "retrain"
    assert "check low" in moved(told)
    assert "check json" not in moved(told)
    low = next(one for one in told.watched if one.name == "check low")
    assert [(one.id, one.reason) for one in low.rows] == [
        ("f2", "too much"),
        ("f6", "too much"),
        ("f10", "too much"),
    ]
    assert low.difference.mean == pytest.approx(-0.25)
    assert told.worst[0].reason == "low: too much"


def test_an_alarm_within_one_call_stays_an_alarm(case: Case) -> None:
    """Evidence is highest in the middle of one batch; the good rows after it do not undo it."""
    rows = [row(i, bad=i < 75) for i in range(900)]
    whole = case.run(rows)
    at = [one.name for one in case.watching].index("check low")
    early = case.run(rows[:75])
    assert case.watch.log_e(whole)[at] < case.watch.log_e(early)[at]
    assert whole.peak[at] >= early.peak[at]
    assert case.report(whole).verdict == "retrain"


def test_the_verdict_is_said_in_words_and_units(case: Case) -> None:
    told = case.report(case.run([row(i, bad=i % 4 == 2) for i in range(300)]))
    assert told.headline() == (
        "RETRAIN: the answers have got worse. check low fell from 100.0% to 75.0%;"
        " answer length in characters now beyond 61% of the reference's."
    )
    longer = case.report(case.run([row(i, lines=40) for i in range(300)]))
    by_name = {one.name: one for one in longer.watched}
    cells = by_name["document length in lines"].cells()
    assert cells[0] == "median document length in lines"
    assert (cells[1], cells[2]) == ("5", "above 8")
    assert cells[4].startswith("longer than 100% [")
    assert by_name["check low"].cells()[1:3] == ("100.0%", "100.0%")
    assert longer.headline().startswith(
        "WATCH: something has changed, but no check has surely fallen."
    )
    assert "median document length in lines 5, now above 8" in longer.headline()
    assert case.report(case.run([row(i) for i in range(300)])).headline() == (
        "FRESH: no drift found in 300 rows."
    )


def test_the_length_at_a_place() -> None:
    ruler = Ruler(np.bincount(marks(np.array([3.0, 3.0, 10.0, 50.0])), minlength=MARKS))
    shown = [ruler.length_at(place) for place in (0.0, 0.25, 0.6, 0.875, 1.0)]
    assert shown == ["below 3", "3", "10", "50", "above 50"]
    assert Ruler(np.zeros(MARKS, np.int64)).length_at(0.5) == "unknown"


def test_missing_fields_and_missing_answers_are_drift(case: Case) -> None:
    rows = [row(i) for i in range(300)]
    for one in rows[::3]:
        one["messages"][1]["content"] = '{"total": 5, "date": null}'
    assert "date missing" in moved(case.report(case.run(rows)))
    for one in rows[::3]:
        one["messages"][1]["content"] = " "
    told = case.report(case.run(rows))
    assert told.verdict == "retrain"
    assert {"check json", "check low", "total missing", "date missing"} <= moved(told)
    assert told.worst[0].reason == "there is no answer"


def test_a_state_in_several_calls_equals_one_pass(case: Case, tmp_path: Path) -> None:
    rows = [row(i, bad=i % 5 == 0) for i in range(260)]
    whole, key = case.run(rows), {"task": "t"}
    path, tally = tmp_path / "state.json", RowTally()
    now = case.watch.start()
    for cut in (0, 1, 30, 30, 175, 260):
        now = case.run(
            [*rows[:cut], {**row(999, "r"), "id": "r7"}], state.read(path, key, now), tally
        )
        state.write(path, key, now)
    assert tally.passed_over == {"counted before": 0 + 1 + 30 + 30 + 175, "in the reference": 6}
    again = state.read(path, key, case.watch.start())
    assert again.rows == whole.rows == 260
    assert (again.counts == whole.counts).all()
    assert again.tops == whole.tops
    for name in ("wealth", "rows", "sums", "squares"):
        assert np.array_equal(getattr(again.bets, name), getattr(whole.bets, name)), name
    assert np.array_equal(case.watch.log_e(again), case.watch.log_e(whole))
    assert (again.peak >= whole.peak).all()
    assert case.report(again).verdict == case.report(whole).verdict == "retrain"
    assert path.stat().st_size < 150_000


def test_the_alarm_stays_when_better_rows_follow(case: Case) -> None:
    bad = case.run([row(i, bad=i % 3 == 0) for i in range(150)])
    after = case.run([row(i, "later") for i in range(300)], bad)
    assert case.report(after).verdict == "retrain"


def test_one_row_of_a_group_counts(case: Case) -> None:
    tally = RowTally()
    found = case.run([row(i, group=f"g{i % 10}") for i in range(50)], tally=tally)
    assert (found.rows, tally.passed_over) == (10, {"of a group counted before": 40})


def test_a_whole_number_is_the_id_that_its_text_is(case: Case) -> None:
    tally = RowTally()
    rows = [{**row(i), "id": id} for i, id in enumerate((1, "1", 1, 2))]
    assert case.run(rows, tally=tally).rows == 2
    assert sum(tally.passed_over.values()) == 2


def test_one_array_is_named(case: Case) -> None:
    path = case.folder / "array.json"
    path.write_text(json.dumps([row(1), row(2)], indent=1))
    with pytest.raises(DataError, match="not JSON Lines in UTF-8") as error:
        reference.read_reference(case.source(path, Ids()), Quiet())
    assert "jq -c" in error.value.next_step


@pytest.mark.parametrize("damage", ["cut", "text", "rows", "nan", "steps", "ids", "list", "key"])
def test_a_damaged_state_is_refused(case: Case, tmp_path: Path, damage: str) -> None:
    path, key = tmp_path / "state.json", {"task": "t", "margin": 0.02}
    state.write(path, key, case.run([row(i) for i in range(30)]))
    value = json.loads(path.read_text())
    match damage:
        case "text":
            value["bets"]["wealth"] = "x" + value["bets"]["wealth"]
        case "rows":
            value["rows"] += 25
        case "nan":
            value["peak"][0] = None
        case "steps":
            value["pending"][0][0] = STEPS + 1
        case "ids":
            value["ids"] = value["ids"][:-4]
        case "list":
            value = [value]
        case "key":
            del value["key"]["margin"]
    path.write_text(json.dumps(value)[: -5 if damage == "cut" else None])
    with pytest.raises(RunError, match="the state file is damaged"):
        state.read(path, key, case.watch.start())


def test_a_state_of_another_comparison_is_refused(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    state.write(path, {"task": "t", "margin": 0.02}, case.run([row(1)]))
    with pytest.raises(ConfigError, match="made with a different margin"):
        state.read(path, {"task": "t", "margin": 0.05}, case.watch.start())


# hostile rows

HOSTILE = [
    ("{", "line 3: not JSON"),
    ("[1]", "line 3: a JSON list"),
    (json.dumps({**row(9), "id": [5]}), "line 3, field 'id'"),
    ('{"id": "x", "messages": []}', "line 3, field 'messages'"),
    ('{"id": "x", "messages": [{"role": "user", "content": "?"}]}', "line 3, field 'messages'"),
    (
        '{"id": "x", "document": "Sum: 5"}',
        "line 3, field 'recorded_label': the document has no answer",
    ),
    ('{"id": "x", "document": 5, "recorded_label": {}}', "line 3, field 'document'"),
]


@pytest.mark.parametrize(("line", "said"), HOSTILE)
def test_an_invalid_row_is_reported_with_its_line(case: Case, line: str, said: str) -> None:
    path = write(case.folder / "hostile.jsonl", [row(1)])
    path.write_text(path.read_text() + "\n" + line + "\n" + json.dumps(row(2)))
    with pytest.raises(DataError) as error:
        case.watch.run(case.watch.start(), case.source(path), RowTally(), Quiet())
    assert f"{path}, {said}" in str(error.value)


def test_an_empty_file_is_refused(case: Case) -> None:
    for text in ("", "\n \n"):
        path = case.folder / "empty.jsonl"
        path.write_text(text)
        with pytest.raises(DataError, match="the file has no rows"):
            reference.read_reference(case.source(path, Ids()), Quiet())
    with pytest.raises(DataError, match="the file cannot be read"):
        reference.read_reference(case.source(case.folder / "none.jsonl", Ids()), Quiet())


def test_odd_rows_count_and_cannot_command_a_terminal(case: Case) -> None:
    long = row(1, text="\x1b[2J\U0001f600\x00" * 1000)
    label = {"id": "label", "document": "", "recorded_label": {"total": 1e308}}
    broken = row(3)
    broken["messages"][1]["content"] = "[" * 5000
    calls = [{"type": "function", "function": {"name": "\x1b[2J", "arguments": "{" * 50}}]
    calling = {
        "id": "\x1b[2Jid",
        "messages": [{"role": "assistant", "content": None, "tool_calls": calls}],
    }
    found = case.run([long, label, broken, calling])
    assert found.rows == 4
    assert not any(
        "\x1b" in f"{one.id}{one.reason}" for some in found.tops.values() for one in some
    )
    assert case.report(found).verdict == "fresh"


def test_rows_that_a_check_cannot_grade_do_not_count(tmp_path: Path) -> None:
    case = Case(
        tmp_path, evil='assert "Receipt 7\\n" not in document or "x thing" not in document, "seven"'
    )
    assert (case.known.rows, case.known.tally.failed) == (399, 1)
    assert "row 'r7'" in case.known.tally.first
    tally = RowTally()
    found = case.run([row(i) for i in range(20)], tally=tally)
    assert (found.rows, found.failed) == (19, 1)
    with pytest.raises(
        ConfigError, match=f"more than {MOST_FAILED} rows could not be graded; the first: row 'a7'"
    ):
        case.run([{**row(7), "id": f"a{i}"} for i in range(7, 200)])


def test_a_task_with_only_gold_checks_is_refused(tmp_path: Path) -> None:
    text = TASK.replace('"json": (checks.is_json, 1.0), "low": (low, 1.0), ', "").replace(
        "{EVIL}", "pass"
    )
    (tmp_path / "task.py").write_text(text)
    with pytest.raises(ConfigError, match="only has checks against gold"):
        without_gold.load(tmp_path / "task.py")


def test_a_reference_of_one_row_is_reported_as_small(tmp_path: Path) -> None:
    case = Case(tmp_path, [row(1, "r")])
    told = case.report(case.run([row(i, bad=True) for i in range(200)]))
    assert any("has only 1 row, too few to detect" in line for line in told.lines())
    assert told.verdict != "retrain"


def test_what_to_run_next(tmp_path: Path) -> None:
    task, fresh = tmp_path / "my task.py", tmp_path / "fresh.jsonl"
    assert verdict.next_commands("fresh", task, fresh) == []
    assert verdict.next_commands("watch", task, fresh) == [
        f"offapi grade --task '{task}' --traces {fresh} --review 30"
    ]
    assert [line.split()[1] for line in verdict.next_commands("retrain", task, fresh)] == [
        "init",
        "label",
        "train",
    ]
    (tmp_path / "distill.toml").touch()
    (tmp_path / "filtered_sft.toml").touch()
    label, train = verdict.next_commands("retrain", task, fresh)
    assert label.startswith(f"offapi label --task '{task}' --data {fresh} --teacher TEACHER --out ")
    assert train.startswith(
        f"offapi train {tmp_path / 'distill.toml'} --set data={fresh} --set labels=retrain-"
    )
    assert label.split("--out ")[1] == train.split("labels=")[1].split()[0]


def test_the_served_answers_are_never_proposed_as_labels(tmp_path: Path) -> None:
    for name in ("", "filtered_sft.toml", "distill.toml"):
        (tmp_path / name).touch()
        lines = verdict.next_commands("retrain", tmp_path / "task.py", tmp_path / "fresh.jsonl")
        assert not [line for line in lines if "traces=" in line or "filtered_sft" in line]


def test_the_documents_of_served_traces_are_labelled_without_their_answers(tmp_path: Path) -> None:
    path = write(tmp_path / "served.jsonl", [row(1, bad=True), row(2)])
    found = read_documents(path)
    assert [one.id for one in found] == ["f1", "f2"]
    assert found[0].text.startswith("Receipt 1\n")
    assert found[0].recorded_label is None


def test_the_state_does_not_grow_with_the_rows(case: Case) -> None:
    rng, now, sizes = np.random.default_rng(3), case.watch.start(), []
    for _ in range(2):
        now = case.watch.counted(
            now, rng.integers(STEPS - 9, STEPS + 1, (1000, len(case.watching)))
        )
        sizes.append(
            sum(
                array.nbytes
                for array in (now.counts, now.bets.wealth, now.bets.sums, now.pending, now.peak)
            )
        )
    assert sizes[0] == sizes[1]
    assert now.rows == 2000
