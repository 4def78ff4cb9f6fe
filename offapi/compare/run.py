"""A comparison from end to end: its arms planned,
reached one by one, scored on one test set and judged.

Killed at any moment it goes on where it was: a finished arm is taken as it is, one under way is
resumed by its recipe. Left out: how it is shown (`table`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from offapi.compare import score_arm, train_arm
from offapi.compare.arm import DATA, Arm, make_arm
from offapi.compare.config import Keys, RecipeName
from offapi.compare.data import Material, read_material, select_recipes, set_aside, write_rows
from offapi.compare.effort import Effort, arm_effort
from offapi.compare.forecast import Outlook, forecast_arm, measure_machine
from offapi.compare.ranking import BASE, Entry, Verdicts, rank_entries
from offapi.compare.train_arm import ArmOutcome
from offapi.data import documents
from offapi.data.traces import Trace
from offapi.errors import DataError
from offapi.evaluation import accuracy
from offapi.evaluation.accuracy import Report
from offapi.evaluation.evaluate import Questions, Scored
from offapi.files import atomic
from offapi.progress import Progress
from offapi.teachers import labels_file
from offapi.teachers.teacher import parse_teacher
from offapi.text.display import duration

RECORDED, TEACHER = "recorded", "teacher"


@dataclass(frozen=True)
class ComparisonPlan:
    """The arms in the order they are run, and the roads not taken with the reason."""

    keys: Keys
    backend: str
    material: Material
    arms: tuple[Arm, ...]
    left_out: Mapping[str, str]

    @property
    def questions(self) -> Questions:
        """The test set."""
        return Questions(self.material.task, self.keys.test, self.material.test)


@dataclass(frozen=True)
class Found:
    """A finished comparison.

    `reports`: every row's accuracy; `costs` and `outcomes`: the roads' alone.
    """

    plan: ComparisonPlan
    arms: Mapping[RecipeName, Arm]
    outcomes: Mapping[RecipeName, ArmOutcome]
    reports: Mapping[str, Report]
    costs: Mapping[str, Effort]
    answering: Mapping[
        str, Mapping[str, float]
    ]  # what an answer costs, of the rows that were asked
    predictions: Mapping[str, Path]
    verdicts: Verdicts
    left_out: Mapping[str, str]


def plan_comparison(keys: Keys, backend: str, data: Path | None = None) -> ComparisonPlan:
    """Read everything and name the arms; what they read
    goes to the folder `data`, inside `out` by default.
    """
    found = read_material(keys)
    recipes, refused = select_recipes(keys, found)
    folder = data or keys.out / DATA
    looks: dict[str, Path] = {}
    if keys.val is None and "grpo" in recipes and (keys.start or "sft") in recipes:
        found = set_aside(found, keys.seed)
        looks = {"val": write_rows(folder, [documents.as_row(row) for row in found.held])}
    made: dict[str, Arm] = {}
    for recipe in recipes:
        start = made.get(keys.start or "sft") if recipe == "grpo" else None
        made[recipe] = make_arm(
            keys,
            recipe,
            found.rows(recipe),
            backend,
            folder,
            start=start,
            **(looks if start else {}),
        )
    return ComparisonPlan(
        keys,
        backend,
        found,
        tuple(made.values()),
        {str(recipe): why for recipe, why in refused.items()},
    )


def forecast_arms(plan: ComparisonPlan, out: Progress) -> dict[RecipeName, Outlook | None]:
    """What each arm takes; None of one that is done.

    An arm that cannot be has no entry, and it is said.
    """
    machine = measure_machine(plan.keys, plan.backend)
    found: dict[RecipeName, Outlook | None] = {}
    for each in plan.arms:
        try:
            done = train_arm.read_outcome(each) is not None
            found[each.recipe] = (
                None
                if done
                else forecast_arm(each, plan.material.task, plan.material.test, machine, out)
            )
        except DataError as error:
            if plan.keys.recipes is not None:
                raise
            out.say(f"{each.recipe} is left out: {error.what}")
    return found


def run_comparison(plan: ComparisonPlan, out: Progress) -> Found:
    """Everything, in order. A road that the data turn out not
    to allow is left out, unless it was asked for by name.
    """
    keys, backend = plan.keys, plan.backend
    left_out = {**plan.left_out, **(_over_budget(plan, out) if keys.minutes is not None else {})}
    answers = _references(plan, left_out, out)
    answers[BASE] = score_arm.score_model(BASE, keys.model, 0, keys, plan.questions, backend, out)
    arms: dict[RecipeName, Arm] = {}
    outcomes: dict[RecipeName, ArmOutcome] = {}
    for each in plan.arms:
        if each.start and each.start.recipe not in answers:
            left_out.setdefault(
                each.recipe, f"{each.start.recipe}, which it starts from, is left out"
            )
        reached = None if each.recipe in left_out else _reach(plan, each, left_out, out)
        if reached is not None and reached.adapter is not None:
            arms[each.recipe], outcomes[each.recipe] = each, reached
            answers[each.recipe] = score_arm.score_student(
                each.path, reached.adapter, keys, plan.questions, backend, out
            )
    reports = {name: found.report for name, found in answers.items()}
    costs: dict[str, Effort] = {
        recipe: arm_effort(keys, found, outcomes) for recipe, found in arms.items()
    }
    hours = {BASE: 0.0, **{recipe: each.hours for recipe, each in costs.items()}}
    entries = [Entry(name, report, hours.get(name)) for name, report in reports.items()]
    cheap = {name: found.cost for name, found in answers.items()}
    paths = {name: found.path for name, found in answers.items()}
    verdicts = rank_entries(entries, keys.margin, RECORDED)
    return Found(plan, arms, outcomes, reports, costs, cheap, paths, verdicts, left_out)


def _reach(
    plan: ComparisonPlan, arm: Arm, left_out: dict[str, str], out: Progress
) -> ArmOutcome | None:
    """What becomes of the arm; None, with the reason
    in `left_out`, where it comes to no student.
    """
    try:
        found = train_arm.reach_outcome(arm, plan.material.task, plan.backend, out)
    except DataError as error:
        if plan.keys.recipes is not None:
            raise
        left_out[arm.recipe] = f"{error.what} {error.where}".strip()
        return None
    if found.adapter is None:
        left_out[arm.recipe] = f"it left no student: {found.gate}"
    return found


def _references(plan: ComparisonPlan, left_out: dict[str, str], out: Progress) -> dict[str, Scored]:
    """The recorded answers and the teacher, where there
    are any, on the test set; reasons go to `left_out`.
    """
    keys, task, test = plan.keys, plan.material.task, plan.material.test
    found: dict[str, Scored] = {}
    try:
        found[RECORDED] = _old(
            keys, RECORDED, Report.of(accuracy.recorded_predictions(task, test)[0])
        )
    except DataError:
        left_out[RECORDED] = "the test set has no recorded answers"
    named = parse_teacher(keys.teacher) if keys.teacher else None
    if keys.labels is not None:
        said = {
            one.id: one.output
            for one in labels_file.settle_labels(
                labels_file.read_labels(keys.labels).labels
            ).values()
        }
        if all(row.id in said for row in test):
            report = accuracy.score_predictions(task, test, [said[row.id] for row in test])
            found[TEACHER] = _old(keys, TEACHER, report)
        else:
            left_out[TEACHER] = "its labels do not hold the test documents"
    elif named is not None and named.kind == "local":
        shots = keys.table("distill").get("shots", len(task.examples))
        if shots and any(isinstance(row, Trace) for row in test):
            left_out[TEACHER] = (
                "the test set's traces bring their own prompts, without its worked examples"
            )
        else:
            found[TEACHER] = score_arm.score_model(
                TEACHER, named.target, shots, keys, plan.questions, plan.backend, out
            )
    return found


def _old(keys: Keys, name: str, report: Report) -> Scored:
    """Answers that are known already, kept beside the comparison
    as those that were asked for are beside their arms.
    """
    folder = keys.out / keys.name
    folder.mkdir(parents=True, exist_ok=True)
    path = (folder / f"predictions-{name}.jsonl").absolute()
    atomic.write_file(path, report.jsonl())
    return Scored(report, {}, path)


def _over_budget(plan: ComparisonPlan, out: Progress) -> dict[str, str]:
    """The arms not yet begun that would take longer than the budget."""
    budget = (plan.keys.minutes or 0.0) * 60
    found: dict[str, str] = {}
    fresh = {each.recipe for each in plan.arms if not each.path.exists()}
    for recipe, expected in (forecast_arms(plan, out) if fresh else {}).items():
        if expected is not None and recipe in fresh and expected.seconds > budget:
            took = (
                f"it would take up to {duration(expected.seconds)} of the {duration(budget)}"
                " allowed"
            )
            found[recipe] = f"{took}; lower its epochs"
    return found
