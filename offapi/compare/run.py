"""A comparison from end to end: plan the arms, train each, score all on one test set, rank them.

Run it again to resume: a finished arm is kept, and an interrupted one is resumed by its recipe.
Left out: how it is shown (`table`).
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
from offapi.compare.forecast import forecast_arm, measure_machine
from offapi.compare.ranking import BASE, Entry, Verdicts, rank_entries
from offapi.compare.train_arm import ArmOutcome
from offapi.data import documents
from offapi.data.traces import Trace
from offapi.errors import DataError
from offapi.evaluation import accuracy
from offapi.evaluation.accuracy import Report
from offapi.evaluation.evaluate import Questions, Scored
from offapi.evaluation.run_forecast import Outlook
from offapi.files import atomic
from offapi.progress import Progress
from offapi.teachers import labels_file
from offapi.teachers.teacher import parse_teacher
from offapi.text.display import duration

RECORDED, TEACHER = "recorded", "teacher"


@dataclass(frozen=True)
class ComparisonPlan:
    """The arms in the order they run, and the recipes left out with the reason."""

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

    `reports` has the accuracy of every row; `costs` and `outcomes` are of the arms only.
    """

    plan: ComparisonPlan
    arms: Mapping[RecipeName, Arm]
    outcomes: Mapping[RecipeName, ArmOutcome]
    reports: Mapping[str, Report]
    costs: Mapping[str, Effort]
    # what an answer costs, for the rows that were asked
    answering: Mapping[str, Mapping[str, float]]
    predictions: Mapping[str, Path]
    verdicts: Verdicts
    left_out: Mapping[str, str]


def plan_comparison(keys: Keys, backend: str, data: Path | None = None) -> ComparisonPlan:
    """Read all data and name the arms.

    Their rows are written to the folder `data`, by default inside `out`.
    """
    material = read_material(keys)
    recipes, refused = select_recipes(keys, material)
    folder = data or keys.out / DATA
    held_out: dict[str, Path] = {}
    if keys.val is None and "grpo" in recipes and (keys.start or "sft") in recipes:
        material = set_aside(material, keys.seed)
        held_out = {"val": write_rows(folder, [documents.as_row(row) for row in material.held])}
    arms: dict[str, Arm] = {}
    for recipe in recipes:
        start = arms.get(keys.start or "sft") if recipe == "grpo" else None
        arms[recipe] = make_arm(
            keys,
            recipe,
            material.rows(recipe),
            backend,
            folder,
            start=start,
            **(held_out if start else {}),
        )
    return ComparisonPlan(
        keys,
        backend,
        material,
        tuple(arms.values()),
        {str(recipe): why for recipe, why in refused.items()},
    )


def forecast_arms(plan: ComparisonPlan, progress: Progress) -> dict[RecipeName, Outlook | None]:
    """Forecast each arm; None for a finished one.

    An arm that the data do not allow is reported and has no entry.
    """
    machine = measure_machine(plan.keys, plan.backend)
    outlooks: dict[RecipeName, Outlook | None] = {}
    for arm in plan.arms:
        try:
            done = train_arm.read_outcome(arm) is not None
            outlooks[arm.recipe] = (
                None
                if done
                else forecast_arm(arm, plan.material.task, plan.material.test, machine, progress)
            )
        except DataError as error:
            if plan.keys.recipes is not None:
                raise
            progress.say(f"{arm.recipe} is left out: {error.what}")
    return outlooks


def run_comparison(plan: ComparisonPlan, progress: Progress) -> Found:
    """Train, score and rank all arms.

    A recipe that turns out not to be possible is left out, unless the keys name it.
    """
    keys, backend, questions = plan.keys, plan.backend, plan.questions
    over = _over_budget(plan, progress) if keys.minutes is not None else {}
    left_out = {**plan.left_out, **over}
    answers = _references(plan, left_out, progress)
    answers[BASE] = score_arm.score_model(BASE, keys.model, 0, keys, questions, backend, progress)
    arms: dict[RecipeName, Arm] = {}
    outcomes: dict[RecipeName, ArmOutcome] = {}
    for arm in plan.arms:
        if arm.start and arm.start.recipe not in answers:
            left_out.setdefault(
                arm.recipe, f"{arm.start.recipe}, which it starts from, is left out"
            )
        outcome = None if arm.recipe in left_out else _reach(plan, arm, left_out, progress)
        if outcome is not None and outcome.adapter is not None:
            arms[arm.recipe], outcomes[arm.recipe] = arm, outcome
            answers[arm.recipe] = score_arm.score_student(
                arm.path, outcome.adapter, keys, questions, backend, progress
            )
    reports = {name: scored.report for name, scored in answers.items()}
    costs: dict[str, Effort] = {
        recipe: arm_effort(keys, arm, outcomes) for recipe, arm in arms.items()
    }
    hours = {BASE: 0.0, **{recipe: effort.hours for recipe, effort in costs.items()}}
    entries = [Entry(name, report, hours.get(name)) for name, report in reports.items()]
    answering = {name: scored.cost for name, scored in answers.items()}
    paths = {name: scored.path for name, scored in answers.items()}
    verdicts = rank_entries(entries, keys.margin, RECORDED)
    return Found(plan, arms, outcomes, reports, costs, answering, paths, verdicts, left_out)


def _reach(
    plan: ComparisonPlan, arm: Arm, left_out: dict[str, str], progress: Progress
) -> ArmOutcome | None:
    """Train the arm and return its outcome.

    If it leaves no student, put the reason into `left_out`.
    """
    try:
        outcome = train_arm.reach_outcome(arm, plan.material.task, plan.backend, progress)
    except DataError as error:
        if plan.keys.recipes is not None:
            raise
        left_out[arm.recipe] = f"{error.what} {error.where}".strip()
        return None
    if outcome.adapter is None:
        left_out[arm.recipe] = f"it left no student: {outcome.gate}"
    return outcome


def _references(
    plan: ComparisonPlan, left_out: dict[str, str], progress: Progress
) -> dict[str, Scored]:
    """Score the recorded answers and the teacher on the test set, where they exist.

    Where they do not, the reason goes into `left_out`.
    """
    keys, task, test = plan.keys, plan.material.task, plan.material.test
    references: dict[str, Scored] = {}
    try:
        recorded = Report.of(accuracy.recorded_predictions(task, test)[0])
        references[RECORDED] = _store_answers(keys, RECORDED, recorded)
    except DataError:
        left_out[RECORDED] = "the test set has no recorded answers"
    teacher = parse_teacher(keys.teacher) if keys.teacher else None
    if keys.labels is not None:
        labels = labels_file.settle_labels(labels_file.read_labels(keys.labels).labels)
        outputs = {label.id: label.output for label in labels.values()}
        if all(row.id in outputs for row in test):
            report = accuracy.score_predictions(task, test, [outputs[row.id] for row in test])
            references[TEACHER] = _store_answers(keys, TEACHER, report)
        else:
            left_out[TEACHER] = "its labels do not include the test documents"
    elif teacher is not None and teacher.kind == "local":
        shots = keys.table("distill").get("shots", len(task.examples))
        if shots and any(isinstance(row, Trace) for row in test):
            left_out[TEACHER] = (
                "the test set's traces have their own prompts, without its worked examples"
            )
        else:
            references[TEACHER] = score_arm.score_model(
                TEACHER, teacher.target, shots, keys, plan.questions, plan.backend, progress
            )
    return references


def _store_answers(keys: Keys, name: str, report: Report) -> Scored:
    """Write answers that are already known to the comparison's own folder."""
    folder = keys.out / keys.name
    folder.mkdir(parents=True, exist_ok=True)
    path = (folder / f"predictions-{name}.jsonl").absolute()
    atomic.write_file(path, report.jsonl())
    return Scored(report, {}, path)


def _over_budget(plan: ComparisonPlan, progress: Progress) -> dict[str, str]:
    """Return why arms not yet started are left out: they would exceed the time budget."""
    budget = (plan.keys.minutes or 0.0) * 60
    over: dict[str, str] = {}
    fresh = {arm.recipe for arm in plan.arms if not arm.path.exists()}
    for recipe, outlook in (forecast_arms(plan, progress) if fresh else {}).items():
        if outlook is not None and recipe in fresh and outlook.seconds > budget:
            over[recipe] = (
                f"it would take up to {duration(outlook.seconds)}, and {duration(budget)} are"
                " allowed; lower its epochs"
            )
    return over
