"""The roads, and the first three commands on each. Left out: which one to take (`rules`)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """A road: what it is called, in short too, what
    speaks against it, and the first three commands on it.
    """

    key: str
    name: str
    short: str
    against: str
    commands: tuple[str, str, str]


INIT = "offapi init my-task"
EVAL = "offapi eval --task my-task/task.py --data my-task/val.jsonl"
COST = "offapi cost --example costs.toml"
IMPORT = "offapi traces import openai your-log.jsonl --out my-task/traces.jsonl"
RECIPES = (
    Recipe(
        "no",
        "Do not train",
        "Do not train",
        "the work for a model that only a narrow task repays",
        (INIT, f"{EVAL} --shots 4", IMPORT),
    ),
    Recipe(
        "api",
        "Stay on the API",
        "Stay on the API",
        "a model can be taken away or get worse overnight, and the bill grows with use",
        (INIT, IMPORT, COST),
    ),
    Recipe(
        "collect",
        "Do not train yet: collect first",
        "Collect first",
        "it postpones",
        (
            INIT,
            IMPORT,
            "offapi grade --task my-task/task.py --traces my-task/traces.jsonl --review 30",
        ),
    ),
    Recipe(
        "prompt",
        "Prompt a local model, with worked examples",
        "Prompt a local model",
        "long prompts, and what the model cannot do as it is",
        (INIT, "offapi models add demo", f"{EVAL} --shots 4"),
    ),
    Recipe(
        "sft",
        "Supervised fine-tuning on labels that people checked",
        "Supervised fine-tuning",
        "every further label is a person's work; its ceiling is your labels",
        (INIT, "offapi train my-task/sft.toml", f"{EVAL} --adapter runs/sft/adapter"),
    ),
    Recipe(
        "distill",
        "Distillation: a teacher labels, checks throw the bad labels out",
        "Distillation",
        "the teacher is approached, never beaten, and its mistakes are learned too",
        (
            INIT,
            (
                "offapi label --task my-task/task.py --data my-task/train.jsonl --teacher {teacher}"
                " --out labels.jsonl"
            ),
            "offapi train my-task/distill.toml --set labels=labels.jsonl",
        ),
    ),
    Recipe(
        "graded",
        "Graded fine-tuning on your agent's own traces",
        "Graded fine-tuning",
        "its ceiling is your agent's best behaviour, and the strong traces may be few",
        (INIT, IMPORT, "offapi train my-task/filtered_sft.toml"),
    ),
    Recipe(
        "grpo",
        "GRPO from the base: documents and a score, no answers",
        "GRPO from the base",
        "the dearest to run, and it learns whatever the score rewards, meant or not",
        (INIT, f"{EVAL} --samples 8", "offapi train my-task/grpo.toml"),
    ),
    Recipe(
        "grpo_after",
        "GRPO after fine-tuning: a student first, then documents and a score",
        "GRPO after fine-tuning",
        "two trainings to look after, and the score has to be honest",
        (
            INIT,
            "offapi train my-task/{first}.toml",
            'offapi train my-task/grpo.toml --set adapter="$PWD/runs/{first}/adapter"',
        ),
    ),
)
BY_RECIPE = {recipe.key: recipe for recipe in RECIPES}
