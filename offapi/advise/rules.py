"""The advice as data: the gates of the flowchart, and the recipe each leads to.

Gates are tried in order, and the rows of a gate in order; the first row whose conditions all hold
decides. A condition is `QUESTION OP VALUE`: VALUE is a choice, a threshold's name, or
`@QUESTION` for another answer. What is unknown makes `is-not` and `not-below` true and everything
else false. `before` and `not-before` compare a date with a task's end: without a date nothing ends
before it, and without an end everything does. Left out: how it is evaluated (`engine`) and drawn
(`flowchart`).
"""

from __future__ import annotations

from dataclasses import dataclass

from offapi.advise.recipes import BY_RECIPE


@dataclass(frozen=True)
class AdviceRule:
    """If all of `when` hold, recommend `recipe`, for the reason `because`."""

    when: tuple[str, ...]
    recipe: str
    because: str


@dataclass(frozen=True)
class Gate:
    """A question of the flowchart: `exit` is the answer that decides, `on` leads to the next."""

    key: str
    asks: str
    exit: str
    on: str
    rows: tuple[AdviceRule, ...]


@dataclass(frozen=True)
class RuleNote:
    """A note for some recipes, if all of `when` hold."""

    when: tuple[str, ...]
    recipes: tuple[str, ...]
    text: str


# The API is an option while the documents may leave and its model outlives the task.
API = ("privacy is-not stays", "withdrawn not-before @lifetime")
ENDS = "withdrawn before @lifetime"
NARROW = "A small model can replace a large one only on a narrow task."
NOBODY = "The data drift after training, and nobody would notice and retrain the model."
SHORT = "The task will not be needed long enough to pay back the work."
FEW = "At this volume, people's hours cost more than the API."
BEATS = (
    "You need better answers than any you could copy. Only training with a score goes beyond"
    " them, starting from a trained student."
)
TERMS = "terms is-not forbidden"
LOCAL = ("teacher is local", TERMS, "inputs at-least answers")
ELSEWHERE = ("teacher is elsewhere", "privacy is-not stays", TERMS, "inputs at-least answers")
ABOVE = (
    "scorable is yes",
    "target above @teacher_quality",
    "maintainer is expert",
    "inputs at-least prompts",
)
GATES = (
    Gate(
        "narrow",
        "Is the task narrow?",
        "no",
        "yes",
        (
            AdviceRule(
                ("narrow is no", ENDS),
                "no",
                f"{NARROW} Train for a narrow part of the task, or move to another large model.",
            ),
            AdviceRule(
                ("narrow is no",),
                "no",
                f"{NARROW} Train for a narrow part of the task, or keep the large model.",
            ),
        ),
    ),
    Gate(
        "maintainer",
        "Will somebody maintain the model?",
        "no",
        "yes",
        (
            AdviceRule(("maintainer is nobody", *API), "api", NOBODY),
            AdviceRule(
                ("maintainer is nobody",),
                "prompt",
                f"{NOBODY} A prompted model needs less maintenance.",
            ),
        ),
    ),
    Gate(
        "lifetime",
        "Will the task be needed long enough?",
        "no",
        "yes",
        (
            AdviceRule(("lifetime below life", *API), "api", SHORT),
            AdviceRule(("lifetime below life",), "prompt", SHORT),
        ),
    ),
    Gate(
        "volume",
        "Enough volume, or must the task leave the API?",
        "no",
        "yes",
        (
            AdviceRule(("volume below volume", *API), "api", FEW),
            AdviceRule(
                ("swings is bursts", "volume below burst_volume", *API),
                "api",
                f"{FEW} With bursts, the machine is often idle.",
            ),
        ),
    ),
    Gate(
        "prompt",
        "Is a prompted small model good enough, or untried?",
        "yes",
        "no",
        (
            AdviceRule(
                ("prompted at-least @target",),
                "prompt",
                "It is already as good as you need, without training.",
            ),
            AdviceRule(
                ("tried is no",),
                "prompt",
                "It takes an afternoon, and shows what training would have to add.",
            ),
        ),
    ),
    Gate(
        "measured",
        "Has a comparison on your own task decided?",
        "yes",
        "no",
        (
            AdviceRule(
                ("measured is base", "prompted not-below @target"),
                "prompt",
                "In your own comparison, no recipe is worth its hours.",
            ),
            *(
                AdviceRule((f"measured is {recipe}",), recipe, "It won your own comparison.")
                for recipe in ("sft", "distill", "graded", "grpo", "grpo_after")
            ),
        ),
    ),
    Gate(
        "beyond",
        "Must it be better than every answer it could copy?",
        "yes",
        "no",
        (
            AdviceRule((*ABOVE, "labels at-least answers"), "grpo_after", BEATS),
            AdviceRule((*ABOVE, "traces at-least answers", TERMS), "grpo_after", BEATS),
            AdviceRule((*ABOVE, *LOCAL), "grpo_after", BEATS),
            AdviceRule((*ABOVE, *ELSEWHERE), "grpo_after", BEATS),
        ),
    ),
    Gate(
        "labels",
        "Are there enough labels checked by people?",
        "yes",
        "no",
        (
            AdviceRule(
                ("labels at-least answers",),
                "sft",
                "You have enough checked labels, and no other answers to copy are better.",
            ),
        ),
    ),
    Gate(
        "traces",
        "Are there enough traces, and can they be graded?",
        "yes",
        "no",
        (
            AdviceRule(
                ("traces at-least answers", "scorable is yes", TERMS),
                "graded",
                "The data are nearly free: grade them and keep the best.",
            ),
            AdviceRule(
                ("traces at-least answers", "scorable is partly", TERMS),
                "graded",
                "The data are nearly free, and a partial score still removes the worst.",
            ),
        ),
    ),
    Gate(
        "teacher",
        "May a teacher label your documents?",
        "yes",
        "no",
        (
            AdviceRule(
                LOCAL, "distill", "A teacher on your own machines labels instead of people."
            ),
            AdviceRule(
                ELSEWHERE,
                "distill",
                "A teacher labels instead of people, and you pay it once.",
            ),
        ),
    ),
    Gate(
        "start",
        "Is the base never right, but are there labels?",
        "yes",
        "no",
        (
            AdviceRule(
                (
                    "scorable is yes",
                    "inputs at-least prompts",
                    "prompted below signal",
                    "labels at-least check",
                ),
                "grpo_after",
                "A base that is never right learns nothing from a score. Your labels first bring it"
                " to the point where it can.",
            ),
        ),
    ),
    Gate(
        "score",
        "Is there a score, and is the base sometimes right?",
        "yes",
        "no",
        (
            AdviceRule(
                ("scorable is yes", "inputs at-least prompts", "prompted not-below signal"),
                "grpo",
                "There are no answers to learn from, but documents and a function that scores.",
            ),
        ),
    ),
    Gate(
        "few",
        "Are there enough labels to measure with?",
        "yes",
        "no",
        (
            AdviceRule(
                ("labels at-least check",),
                "sft",
                "There are few labels and nothing else to learn from. Train on them; `offapi curve`"
                " estimates how many more are needed.",
            ),
        ),
    ),
)
LAST = AdviceRule(
    (),
    "collect",
    "There is nothing yet that a model could learn from: too few labels and traces, no teacher,"
    " no score.",
)

COPIES = ("sft", "distill", "graded")
NOTES = (
    RuleNote(
        (ENDS, TERMS),
        tuple(recipe for recipe in BY_RECIPE if recipe != "api"),
        "The API's model ends before your task does: log its answers while it still answers.",
    ),
    RuleNote(
        ("terms is unchecked",),
        ("distill", "graded", "grpo_after"),
        "Read the terms first: many forbid training on their answers.",
    ),
    RuleNote(
        ("terms is forbidden",),
        tuple(BY_RECIPE),
        "This advice ignores answers whose terms forbid training on them.",
    ),
    RuleNote(
        ("target above @teacher_quality",),
        ("distill", "graded"),
        "You need more than the teacher's own accuracy; this recipe stays below it.",
    ),
    RuleNote(
        ("scorable is yes",),
        COPIES,
        "Afterwards, `offapi train my-task/grpo.toml` can improve this student further.",
    ),
    RuleNote(
        ("scorable is no",),
        COPIES,
        "Without a score you cannot grade served answers: have a person check a sample.",
    ),
    RuleNote(
        ("maintainer is somebody",),
        ("grpo", "grpo_after"),
        "GRPO can exploit flaws in the score: keep an audit that it is not rewarded for.",
    ),
    RuleNote(
        ("labels below check",),
        ("distill", "graded", "grpo"),
        "Check 50 answers yourself first: without them you cannot measure accuracy.",
    ),
    RuleNote(
        ("swings is bursts",),
        ("sft", "distill", "graded", "grpo", "grpo_after"),
        "Requests come in bursts: send the overflow to the API.",
    ),
)
