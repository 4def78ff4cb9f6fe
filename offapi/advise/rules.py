"""The advice, as data: the gates of the flowchart, and the road each leads to.

A gate's rows are tried in order, gates in order; the first row whose conditions all hold
decides. A condition is `QUESTION OP VALUE`: VALUE is a choice, a threshold's name, or
`@QUESTION` for another answer. An answer that is not known makes `is-not` and `not-below`
true and everything else false. Left out: how it is evaluated (`engine`) and drawn (`flowchart`).
"""

from __future__ import annotations

from dataclasses import dataclass

from offapi.advise.recipes import BY_RECIPE


@dataclass(frozen=True)
class AdviceRule:
    """If all of `when`, take `road`, because."""

    when: tuple[str, ...]
    recipe: str
    because: str


@dataclass(frozen=True)
class Gate:
    """A question of the flowchart: `exit` is the
    answer that leaves it, `on` the one that goes on.
    """

    key: str
    asks: str
    exit: str
    on: str
    rows: tuple[AdviceRule, ...]


@dataclass(frozen=True)
class RuleNote:
    """Something to be said on some roads, if all of `when`."""

    when: tuple[str, ...]
    recipes: tuple[str, ...]
    text: str


NARROW = "A small model replaces a large one on a narrow task alone."
NOBODY = (
    "A trained model goes stale from the day its training stops; nobody would notice and"
    " retrain it."
)
SHORT = "The work once done is not earned back in so short a life."
FEW = "At this volume the people's hours cost more than the API."
BEATS = (
    "What you need lies above what any answer you could copy reaches; only a score goes further,"
    " from a student on."
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
                ("narrow is no",),
                "no",
                f"{NARROW} Cut a narrow part off it, or stay with a large one.",
            ),
        ),
    ),
    Gate(
        "maintainer",
        "Will somebody look after a model?",
        "no",
        "yes",
        (
            AdviceRule(
                ("maintainer is nobody", "privacy is stays"),
                "prompt",
                f"{NOBODY} A prompted one asks for less.",
            ),
            AdviceRule(("maintainer is nobody",), "api", NOBODY),
        ),
    ),
    Gate(
        "lifetime",
        "Will the task live long enough?",
        "no",
        "yes",
        (
            AdviceRule(("lifetime below life", "privacy is stays"), "prompt", SHORT),
            AdviceRule(("lifetime below life",), "api", SHORT),
        ),
    ),
    Gate(
        "volume",
        "Is there volume enough, or must the data stay?",
        "no",
        "yes",
        (
            AdviceRule(("volume below volume", "privacy is-not stays"), "api", FEW),
            AdviceRule(
                ("swings is bursts", "volume below burst_volume", "privacy is-not stays"),
                "api",
                f"{FEW} Bursts leave it idle.",
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
                "It already is as good as you need, without any training.",
            ),
            AdviceRule(
                ("tried is no",),
                "prompt",
                "It costs an afternoon, and tells what training would have to add.",
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
                "Your own comparison says so: no road is worth its hours.",
            ),
            *(
                AdviceRule((f"measured is {recipe}",), recipe, "Your own comparison says so.")
                for recipe in ("sft", "distill", "graded", "grpo", "grpo_after")
            ),
        ),
    ),
    Gate(
        "beyond",
        "Must it beat every answer it could copy?",
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
        "Are there enough labels that people checked?",
        "yes",
        "no",
        (
            AdviceRule(
                ("labels at-least answers",),
                "sft",
                "They are there, and nothing has a higher ceiling than good labels.",
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
                "The data are nearly free: grade, keep the best.",
            ),
            AdviceRule(
                ("traces at-least answers", "scorable is partly", TERMS),
                "graded",
                "The data are nearly free; a partial score still throws out the worst.",
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
                LOCAL, "distill", "A teacher on your own machines labels what people would have to."
            ),
            AdviceRule(
                ELSEWHERE,
                "distill",
                "A teacher labels what people would have to, and is paid once.",
            ),
        ),
    ),
    Gate(
        "start",
        "Is the base never right, with labels to start it?",
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
                "A base that is never right learns nothing from a score; your labels bring it to"
                " where it can.",
            ),
        ),
    ),
    Gate(
        "score",
        "Is there a score, and a base right at times?",
        "yes",
        "no",
        (
            AdviceRule(
                ("scorable is yes", "inputs at-least prompts", "prompted not-below signal"),
                "grpo",
                "There are no answers to learn from, but documents, and a function that scores.",
            ),
        ),
    ),
    Gate(
        "few",
        "Are there labels enough to check with?",
        "yes",
        "no",
        (
            AdviceRule(
                ("labels at-least check",),
                "sft",
                "Few labels, and nothing else to learn from: learn them; `offapi curve` tells how"
                " many more it takes.",
            ),
        ),
    ),
)
LAST = AdviceRule(
    (),
    "collect",
    "Nothing is known that a model could learn from: too few labels and traces, no teacher, no"
    " score.",
)

COPIES = ("sft", "distill", "graded")
NOTES = (
    RuleNote(
        ("terms is unchecked",),
        ("distill", "graded", "grpo_after"),
        "Read the terms first: most forbid training on answers.",
    ),
    RuleNote(
        ("terms is forbidden",),
        tuple(BY_RECIPE),
        "Answers whose terms forbid training are left out of this advice.",
    ),
    RuleNote(
        ("target above @teacher_quality",),
        ("distill", "graded"),
        "What you need lies above the teacher's own level: this road ends below it.",
    ),
    RuleNote(
        ("scorable is yes",),
        COPIES,
        "Afterwards `offapi train my-task/grpo.toml` can go on from this student.",
    ),
    RuleNote(
        ("scorable is no",),
        COPIES,
        "Without a score you cannot grade what is served: keep a checked sample.",
    ),
    RuleNote(
        ("maintainer is somebody",),
        ("grpo", "grpo_after"),
        "GRPO has real footguns: keep an audit it is not rewarded for.",
    ),
    RuleNote(
        ("labels below check",),
        ("distill", "graded", "grpo"),
        "Check 50 answers yourself first: without them nothing is known.",
    ),
    RuleNote(
        ("swings is bursts",),
        ("sft", "distill", "graded", "grpo", "grpo_after"),
        "Bursts: let the overflow go to the API.",
    ),
)
