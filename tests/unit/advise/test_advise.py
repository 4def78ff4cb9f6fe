"""Advice: personas and the recipe for each, the rules' consistency, what would change it, drawings."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from shlex import split
from typing import Any

import click
import orjson
import pytest
import reached
from hypothesis import example, given
from hypothesis import strategies as st

from offapi.advise import flowchart, flowchart_svg, measured, text
from offapi.advise.engine import KnownAnswers, advise, decide_gate
from offapi.advise.questions import BY_KEY, MEASURED, QUESTIONS, Answers, Question, Value
from offapi.advise.recipes import BY_RECIPE, RECIPES
from offapi.advise.rules import GATES, LAST, NOTES
from offapi.advise.thresholds import THRESHOLDS
from offapi.cli import COMMANDS
from offapi.compare.ranking import Entry, rank_entries
from offapi.errors import DataError
from offapi.evaluation.accuracy import Prediction, Report

OPS = {"is", "is-not", "below", "not-below", "at-least", "above", "before", "not-before"}
GOOD: Answers = {
    "narrow": "yes",
    "maintainer": "somebody",
    "lifetime": 24,
    "volume": 500_000,
    "tried": "yes",
}
PERSONAS: list[tuple[str, dict[str, Value], str]] = [
    ("a chat about anything", {"narrow": "no", "volume": 1e6, "traces": 1e5}, "no"),
    ("a hospital's chat about anything", {"narrow": "no", "privacy": "stays"}, "no"),
    ("a shop with 3,000 invoices a month", {**GOOD, "volume": 3000, "labels": 900}, "api"),
    ("an agency whose project ends in spring", {**GOOD, "lifetime": 4, "labels": 900}, "api"),
    ("a founder with nobody to look after it", {**GOOD, "maintainer": "nobody", "traces": 9000}, "api"),
    ("a lab that scans at the end of each quarter", {**GOOD, "volume": 200_000, "swings": "bursts"}, "api"),
    ("the same, evenly", {**GOOD, "volume": 200_000, "swings": "steady", "labels": 400}, "sft"),
    ("a law firm with nobody to look after it", {**GOOD, "maintainer": "nobody", "privacy": "stays"}, "prompt"),
    ("a court case of three months", {**GOOD, "lifetime": 3, "privacy": "stays", "labels": 500}, "prompt"),
    ("a bank that never tried a small model", {**GOOD, "tried": "no", "labels": 5000}, "prompt"),
    ("a library whose prompt is good enough", {**GOOD, "prompted": 0.96, "target": 0.95, "labels": 999}, "prompt"),
    ("a hospital with few documents that must stay", {**GOOD, "volume": 900, "privacy": "stays", "labels": 300}, "sft"),
    ("an archive with checked labels", {**GOOD, "labels": 1200, "scorable": "no"}, "sft"),
    ("a clerk who labelled eighty", {**GOOD, "labels": 80, "scorable": "no", "teacher": "none"}, "sft"),
    ("an agent with logs and a checker", {**GOOD, "traces": 8000, "scorable": "yes", "terms": "allowed"}, "graded"),
    ("an agent with logs, partly checkable", {**GOOD, "traces": 400, "scorable": "partly"}, "graded"),
    (
        "logs whose terms forbid training, documents, a teacher of one's own",
        {**GOOD, "traces": 8000, "scorable": "no", "terms": "forbidden", "labels": 60},
        "sft",
    ),
    ("a clinic with a large model", {**GOOD, "privacy": "stays", "teacher": "local", "inputs": 2000}, "distill"),
    ("a shop and a teacher", {**GOOD, "teacher": "elsewhere", "terms": "allowed", "inputs": 800}, "distill"),
    ("logs that cannot be graded, and a teacher", {**GOOD, "traces": 900, "scorable": "no", "teacher": "local",
                                                   "inputs": 900}, "distill"),
    ("documents that must stay, a teacher elsewhere", {**GOOD, "privacy": "stays", "teacher": "elsewhere",
                                                       "inputs": 800}, "collect"),
    ("a score and a base right at times", {**GOOD, "scorable": "yes", "inputs": 5000, "prompted": 0.3}, "grpo"),
    ("a score and a base nobody measured", {**GOOD, "scorable": "yes", "inputs": 5000}, "grpo"),
    ("terms that forbid the teacher, but a score", {**GOOD, "scorable": "yes", "inputs": 5000, "prompted": 0.2,
                                                    "teacher": "elsewhere", "terms": "forbidden"}, "grpo"),
    (
        "a score, sixty labels, and a base that is never right",
        {**GOOD, "scorable": "yes", "inputs": 5000, "prompted": 0.0, "labels": 60},
        "grpo_after",
    ),
    ("a score, no labels, and a base that is never right", {**GOOD, "scorable": "yes", "inputs": 5000, "prompted": 0.0},
     "collect"),
    (
        "an expert who has to beat the teacher",
        {**GOOD, "maintainer": "expert", "scorable": "yes", "inputs": 5000, "target": 0.98, "teacher_quality": 0.9,
         "teacher": "local"},
        "grpo_after",
    ),
    (
        "an expert who has to beat the agent, from its traces",
        {**GOOD, "maintainer": "expert", "scorable": "yes", "inputs": 5000, "target": 0.98, "teacher_quality": 0.9,
         "traces": 3000},
        "grpo_after",
    ),
    (
        "the same without an expert",
        {**GOOD, "scorable": "yes", "inputs": 5000, "target": 0.98, "teacher_quality": 0.9, "traces": 3000},
        "graded",
    ),
    ("a shop whose API ends in seven weeks", {**GOOD, "volume": 50_000, "withdrawn": 1.6, "labels": 800}, "sft"),
    ("a shop whose API outlives its task", {**GOOD, "volume": 50_000, "withdrawn": 30, "labels": 800}, "api"),
    ("an API that ends, a task without an end", {"volume": 50_000, "withdrawn": 30, "labels": 60}, "sft"),
    ("an API that ends, and nobody to look after a model", {**GOOD, "maintainer": "nobody", "withdrawn": 2}, "prompt"),
    ("an API that ends before a short task", {**GOOD, "lifetime": 4, "withdrawn": 3, "labels": 900}, "prompt"),
    ("a chat about anything whose API ends", {"narrow": "no", "withdrawn": 2}, "no"),
    ("nothing but the wish", {**GOOD, "inputs": 30}, "collect"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("who", "answers", "recipe"), PERSONAS, ids=[who for who, _, _ in PERSONAS]
)
def test_personas(who: str, answers: dict[str, Value], recipe: str) -> None:
    found = advise(answers)
    assert found.recipe.key == recipe, f"{found.recipe.key}: {found.row.because}"
    assert found.other.key != recipe
    assert found.why_not


def test_every_recipe_is_recommended_to_somebody() -> None:
    assert {recipe for _, _, recipe in PERSONAS} == BY_RECIPE.keys()


def test_personas_answer_as_people_could() -> None:
    for _, answers, _ in PERSONAS:
        for key, value in answers.items():
            assert BY_KEY[key].read(str(value)) == value


def conditions() -> list[str]:
    rows = [when for gate in GATES for row in gate.rows for when in row.when]
    return rows + [when for note in NOTES for when in note.when]


def test_every_word_of_the_rules_means_something() -> None:
    asked, limits = {*BY_KEY, MEASURED.key}, {one.name for one in THRESHOLDS}
    assert limits.isdisjoint(
        choice for question in (*QUESTIONS, MEASURED) for choice in question.choices
    )
    named = 0
    for condition in conditions():
        key, op, name = condition.split()
        assert key in asked, condition
        assert op in OPS, condition
        choices = BY_KEY[key].choices if key in BY_KEY else MEASURED.choices
        if op in ("is", "is-not"):
            named += 1
            assert name in choices, condition
        else:
            assert name in limits or (name[0] == "@" and name[1:] in BY_KEY), condition
    assert 0 < named < len(list(conditions()))
    for gate in GATES:
        for row in gate.rows:
            assert row.recipe in BY_RECIPE
    assert LAST.recipe in BY_RECIPE


def test_every_question_and_every_threshold_is_used() -> None:
    used = " ".join(conditions()).replace("@", "").split()
    assert {question.key for question in QUESTIONS} - set(used) == set()
    assert {one.name for one in THRESHOLDS} - set(used) == set()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.key)
def test_the_commands_exist(recipe: Any) -> None:
    for teacher in ("local", "elsewhere"):
        for line in advise_to(recipe.key, teacher).commands:
            program, name, *arguments = split(line)
            assert (program, name in COMMANDS) == ("offapi", True), line
            parse(import_module(f"offapi.cli.{name}").command, name, arguments)


def advise_to(recipe: str, teacher: str) -> Any:
    answers = next(answers for _, answers, found in PERSONAS if found == recipe)
    found = advise({**answers, "teacher": teacher})
    return found if found.recipe.key == recipe else advise(answers)


def parse(command: click.Command, name: str, arguments: list[str]) -> None:
    """Parse a command line as click does, without running it."""
    context = click.Context(command, info_name=name)
    if isinstance(command, click.Group):
        inner = command.get_command(context, arguments[0])
        assert inner is not None, arguments
        parse(inner, arguments[0], arguments[1:])
    else:
        command.make_context(name, list(arguments))


def test_a_command_that_does_not_exist_is_found_out() -> None:
    with pytest.raises(click.UsageError):
        parse(import_module("offapi.cli.eval").command, "eval", ["--tusk", "x"])


def test_commands_are_filled_in_from_the_answers() -> None:
    elsewhere = advise({**GOOD, "teacher": "elsewhere", "inputs": 800})
    assert "--teacher-terms-checked" in elsewhere.commands[1]
    assert "127.0.0.1" in advise({**GOOD, "teacher": "local", "inputs": 800}).commands[1]
    from_traces = next(answers for who, answers, _ in PERSONAS if "from its traces" in who)
    assert "my-task/filtered_sft.toml" in advise(from_traces).commands[1]


def answer(question: Question) -> st.SearchStrategy[Value]:
    if question.kind == "choice":
        return st.sampled_from(question.choices)
    return st.floats(0, 1) if question.kind == "share" else st.floats(0, 1e6)


anybody = st.fixed_dictionaries(
    {}, optional={question.key: answer(question) for question in QUESTIONS}
)


@given(anybody)
def test_any_answers_give_advice_and_a_chart_with_one_path(answers: Answers) -> None:
    found = advise(answers)
    lines = flowchart.draw_text(found)
    assert sum(f"[ {found.recipe.short.upper()} ]" in line for line in lines) == 1
    assert sum("━▶" in line or "▶ [" in line for line in lines) == 1
    assert sum(line.startswith("◆") for line in lines) == len(found.passed) + (
        found.gate is not None
    )
    assert text.lines(found)
    orjson.dumps(text.as_dict(found))


NOBODY: Answers = {"narrow": "yes", "maintainer": "nobody"}


@given(anybody)
@example(NOBODY)
def test_documents_that_must_stay_are_never_sent_away(answers: Answers) -> None:
    found = advise({**answers, "privacy": "stays"})
    assert "api" not in (found.recipe.key, found.other.key)
    assert not any(
        "https://" in command for command in found.commands if found.recipe.key == "distill"
    )


@reached.at_least(20)
@given(anybody, st.floats(0, 100))
@example(NOBODY, 1.6)
@example({"volume": 50_000}, 1.6)
def test_nobody_is_told_to_stay_on_an_api_that_ends(answers: Answers, months: float) -> None:
    found = advise({**answers, "withdrawn": months})
    if "lifetime" not in answers or months < float(answers["lifetime"]):
        reached.hit()
        assert "api" not in (found.recipe.key, found.other.key)
        assert "keep the large model" not in found.row.because


@given(anybody)
def test_the_figures_are_never_an_empty_list(answers: Answers) -> None:
    shown = text.lines(advise(answers))
    at = [i for i, line in enumerate(shown) if line.startswith("Based on")]
    assert len(at) == 1
    assert shown[at[0]].endswith("answers alone: no figure decided.") or (
        shown[at[0] + 1].startswith("  ") and " = " in shown[at[0] + 1]
    )


def test_what_was_not_compared_is_no_reason() -> None:
    assert [one.name for one in text.used(advise({"volume": 50_000}))] == ["volume", "burst_volume"]
    assert text.used(advise({"narrow": "no"})) == []


@given(anybody)
def test_answers_whose_terms_forbid_it_are_not_learned(answers: Answers) -> None:
    assert advise({**answers, "terms": "forbidden"}).recipe.key not in ("distill", "graded")


@reached.at_least(20)
@given(anybody)
def test_what_would_change_the_advice_does(answers: Answers) -> None:
    for change in advise(answers).changes:
        question, known = (
            BY_KEY[change.question],
            KnownAnswers(answers, {one.name: one for one in THRESHOLDS}),
        )
        assert change.known == (change.question in answers)
        if question.kind == "choice":
            reached.hit()
            row = decide_gate(
                KnownAnswers({**answers, change.question: change.answer}, known.thresholds)
            )[1]
            assert row.recipe == change.recipe != advise(answers).recipe.key


def test_the_nearest_change_of_a_number() -> None:
    found = advise({**GOOD, "labels": 199})
    changes = {(change.question, change.answer): change.recipe for change in found.changes}
    assert found.row.because.startswith("There are few labels")
    assert changes["labels", "below 50"] == "collect"
    assert changes["volume", "below 150,000"] == "api"
    assert changes["narrow", "no"] == "no"


def test_the_alternative_and_why_not() -> None:
    found = advise({**GOOD, "labels": 900, "traces": 900, "scorable": "yes"})
    assert (found.recipe.key, found.other.key) == ("sft", "graded")
    assert "it gets no better than your agent's best answers" in found.why_not
    stay = advise({**GOOD, "volume": 10, "labels": 900})
    assert (stay.recipe.key, stay.other.key) == ("api", "sft")
    assert "people's hours cost more than the API" in stay.why_not
    nothing = advise({**GOOD, "labels": 20})
    assert nothing.why_not == "Not possible now: labels is below 200."


def test_notes_fit_the_recipe() -> None:
    unchecked = advise({**GOOD, "traces": 900, "scorable": "yes", "terms": "unchecked"})
    assert any("Read the terms first" in note for note in unchecked.notes)
    above = advise(
        {**GOOD, "traces": 900, "scorable": "partly", "target": 0.99, "teacher_quality": 0.9}
    )
    assert any("stays below it" in note for note in above.notes)


def test_figures_are_shown_with_their_source() -> None:
    found = advise({**GOOD, "labels": 900})
    assert [one.name for one in text.used(found)] == [
        "life",
        "volume",
        "burst_volume",
        "answers",
    ]
    assert all("rule of thumb" in one.source for one in THRESHOLDS)
    assert any(
        "150,000 requests a month (rule of thumb: break-even" in line for line in text.lines(found)
    )


def test_the_volume_threshold_is_the_examples_break_even() -> None:
    from offapi.cost.estimate import estimate
    from offapi.cost.inputs import Layer, resolve_inputs

    example = Path(str(import_module("offapi.cost").__path__[0])) / "prices-2026-11.toml"
    owned = estimate(resolve_inputs([Layer.of_file(example)])).cases[0].break_even_requests
    volume = next(one for one in THRESHOLDS if one.name == "volume")
    assert owned.low is not None
    assert owned.likely is not None
    assert owned.high is not None
    assert volume.value == pytest.approx(owned.likely, rel=0.05)
    assert f"({round(owned.low, -3):,.0f} to {round(owned.high, -3):,.0f})" in volume.source


def test_the_rules_of_thumb_that_are_arithmetic() -> None:
    from offapi.stats.interval import wilson

    assert [round(100 * end) for end in (wilson(45, 50).low, wilson(45, 50).high)] == [79, 96]
    assert pytest.approx(0.34, abs=0.005) == 1 - 0.95**8


COST = {
    "verdict": "cannot tell",
    "sensitivity": {"case": "owned", "inputs": []},
    "cases": {"owned": {"break_even_start": {"likely": 20_000.0, "low": 9_000.0, "high": None}}},
    "inputs": {"requests": {"likely": 30_000.0}},
}
CURVE = {
    "law": {},
    "road": "sft",
    "answer": {"want": 0.9, "rows": 700.0, "text": "700 rows would do."},
    "doubling": {"mean": 0.02},
}
COMPARED = {
    "take": "filtered_sft",
    "rows": {
        "recorded": {"report": {"all_fields": {"mean": 0.63}}},
        "filtered_sft": {"verdict": "better by 4.0–9.0 points", "arm": {"start": None}},
        "grpo": {"verdict": "cannot tell", "arm": {"start": "sft"}},
    },
}


def read(folder: Path, result: Any) -> measured.Measured:
    path = folder / "result.json"
    path.write_bytes(orjson.dumps(result))
    return measured.read_measured(path)


def test_a_measured_break_even_replaces_the_rule_of_thumb(tmp_path: Path) -> None:
    found = read(tmp_path, COST)
    assert found.answers == {"volume": 30_000.0}
    assert advise({"labels": 900, "volume": 30_000}).recipe.key == "api"
    with_cost = advise({"labels": 900, "volume": 30_000}, found.thresholds)
    assert with_cost.recipe.key == "sft"
    assert any("[9,000, never]" in one.source for one in text.used(with_cost))


def test_without_a_break_even_the_advice_is_the_api(tmp_path: Path) -> None:
    never = {"likely": None, "low": None, "high": None}
    found = read(tmp_path, {**COST, "cases": {"owned": {"break_even_start": never}}})
    advice = advise({"labels": 900, "volume": 1e9}, found.thresholds)
    assert advice.recipe.key == "api"
    assert any("no volume" in line for line in text.lines(advice))


def test_a_curve_says_how_many_answers_it_takes(tmp_path: Path) -> None:
    found = read(tmp_path, CURVE)
    assert advise({**GOOD, "labels": 600}).row.because.startswith("You have enough")
    few = advise({**GOOD, "labels": 600}, found.thresholds).row.because
    assert few.startswith("There are few labels")
    assert "curve" not in advise({**GOOD, "labels": 700}, found.thresholds).row.because
    never = read(
        tmp_path, {**CURVE, "answer": {"want": 0.9, "rows": None, "text": "More data will not."}}
    )
    assert (never.thresholds, never.said[0].endswith("More data will not.")) == ((), True)
    assert "+2.0 points" in read(tmp_path, {**CURVE, "answer": None}).said[0]
    for answer in (None, {"want": 0.9, "rows": None, "text": "No forecast: x."}):
        unfit = read(
            tmp_path, {**CURVE, "answer": answer, "doubling": None, "misfit": "No forecast: x."}
        )
        assert (unfit.thresholds, unfit.said[0].endswith("No forecast: x.")) == ((), True)


def test_a_comparison_decides(tmp_path: Path) -> None:
    found = read(tmp_path, COMPARED)
    assert found.answers == {"measured": "graded", "teacher_quality": 0.63}
    assert advise({**GOOD, "labels": 900, **found.answers}).recipe.key == "graded"
    assert read(tmp_path, {**COMPARED, "take": "grpo"}).answers == {
        "measured": "grpo_after",
        "teacher_quality": 0.63,
    }
    assert read(tmp_path, {"take": "base", "rows": {"base": {}}}).answers == {}
    assert advise({**GOOD, "volume": 1, "measured": "sft"}).recipe.key == "api", (
        "it says nothing about cost"
    )


def compared(n: int, **right: tuple[int, float]) -> dict[str, Any]:
    """Make the JSON of `offapi compare` on `n` documents from how many are right, and the hours."""
    reports = {
        name: Report.of(
            [Prediction(f"d{i}", "", None, {"shop": i < k}, {"shop": "x"}) for i in range(n)]
        )
        for name, (k, _) in right.items()
    }
    found = rank_entries(
        [Entry(name, reports[name], hours) for name, (_, hours) in right.items()], 0.05
    )
    rows = {
        name: {"report": reports[name].as_dict(), **asdict(one)} for name, one in found.rows.items()
    }
    result = {"take": found.take, "rows": rows, "test": {"documents": n}, "margin": 0.05}
    return dict(orjson.loads(orjson.dumps(result)))


def test_a_comparison_that_cannot_tell_decides_nothing(tmp_path: Path) -> None:
    """With ten documents and none right before, the comparison shows nothing; 300 labels decide."""
    found = read(tmp_path, compared(10, base=(0, 0.0), sft=(2, 1.0), distill=(0, 2.0)))
    assert found.answers == {"prompted": 0.0}
    advice = advise({"labels": 300, **found.answers}, found.thresholds)
    assert (advice.recipe.key, advice.gate and advice.gate.key) == ("sft", "labels")
    shown = "\n".join(text.lines(advice, found.said))
    for pair in ("sft apart from base", "distill apart from sft"):
        assert f"cannot tell {pair} with 10 test documents; about 667 would show a" in shown
    one = read(tmp_path, compared(1, base=(0, 0.0), sft=(1, 1.0)))
    assert "with 1 test document;" in one.said[0]


def test_a_base_that_is_good_enough_is_taken(tmp_path: Path) -> None:
    found = read(tmp_path, compared(10, base=(9, 0.0), sft=(10, 1.0)))
    assert found.answers is not None
    assert advise({"labels": 300, "target": 0.9, **found.answers}).recipe.key == "prompt"
    assert advise({"labels": 300, "target": 0.95, **found.answers}).recipe.key == "sft"


def test_recipes_not_worth_their_hours_are_not_recommended(tmp_path: Path) -> None:
    found = read(tmp_path, compared(400, base=(200, 0.0), sft=(201, 1.0)))
    assert found.answers == {"measured": "base", "prompted": 0.5}
    assert "not worth its hours" in found.said[0]
    advice = advise({"labels": 300, **found.answers})
    assert (advice.recipe.key, advice.row.because) == (
        "prompt",
        "In your own comparison, no recipe is worth its hours.",
    )
    assert advise({"labels": 300, "target": 0.9, **found.answers}).recipe.key == "sft", (
        "the base misses the target"
    )


def test_a_recipe_shown_to_be_better_is_recommended(tmp_path: Path) -> None:
    found = read(tmp_path, compared(100, base=(10, 0.0), distill=(60, 1.0), sft=(62, 2.0)))
    assert found.answers == {"measured": "distill", "prompted": 0.1}
    assert advise({"labels": 300, **found.answers}).recipe.key == "distill"


@pytest.mark.parametrize(
    "content",
    [[], {}, {"cases": {}}, {"law": 1}, {"take": "sft"}, {"take": "x", "rows": {}}, "text"],
)
def test_files_that_were_not_measured(tmp_path: Path, content: Any) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, content)
    assert caught.value.next_step


def test_the_picture_loads_nothing_and_marks_the_path() -> None:
    found = advise({**GOOD, "labels": 900})
    text = flowchart_svg.draw_svg(found)
    root = ET.fromstring(text)
    assert {element.tag.split("}")[1] for element in root.iter()} == {
        "svg",
        "title",
        "style",
        "g",
        "rect",
        "text",
        "line",
    }
    assert "http" not in text.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert "url(" not in text
    marked = [
        group for group in root.iter("{http://www.w3.org/2000/svg}g") if group.get("class") == "on"
    ]
    said = [
        element.text
        for group in marked
        for element in group.iter("{http://www.w3.org/2000/svg}text")
    ]
    assert found.recipe.short in said
    assert "Is the task narrow?" in said
    assert "Distillation" not in said


def test_words_fit_their_boxes() -> None:
    """Assume 8.4 pixels a bold letter, more than any of the fonts needs."""
    steps, end = flowchart.flowchart_steps(advise({**GOOD, "labels": 900}))
    for step in steps:
        assert 24 + 8.4 * len(step.asks) <= flowchart_svg.GATE, step.asks
        assert 24 + 8.0 * len(step.leads) <= flowchart_svg.RECIPE, step.leads
    assert flowchart_svg.RIGHT + flowchart_svg.RECIPE + flowchart_svg.LEFT == flowchart_svg.WIDTH
    assert 24 + 8.4 * len(end.recipe) <= flowchart_svg.GATE


def test_unanswered_questions_are_marked() -> None:
    lines = flowchart.draw_text(advise({"narrow": "yes", "labels": 900}))
    assert lines[2] == "┃  yes"
    assert lines[5] == "┃  yes (not answered)"


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("narrow", "y", "yes"),
        ("narrow", " NO ", "no"),
        ("target", "95%", 0.95),
        ("volume", "1e5", 1e5),
        ("volume", "50k", 50_000),
        ("volume", "1.5M", 1_500_000),
        ("volume", "50,000", 50_000),
    ],
)
def test_answers_as_people_type_them(key: str, text: str, value: Value) -> None:
    assert BY_KEY[key].read(text) == value


@pytest.mark.parametrize(
    ("key", "text"),
    [("narrow", "maybe"), ("narrow", ""), ("teacher", "x"), ("target", "95"), ("target", "-0.1"), ("volume", "many"),
     ("volume", "-1"), ("volume", "1,5"), ("volume", "k"), ("volume", "5x"), ("volume", "inf"), ("volume", "nan"), ("swings", "s,b")],
)  # fmt: skip
def test_texts_that_are_not_answers(key: str, text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        BY_KEY[key].read(text)
