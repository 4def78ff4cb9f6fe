"""The recipes to recommend, with three commands each. Left out: the choice (`rules`)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """A recipe to recommend: long and short name, the case against it, the first three commands.

    Not to train is one of them.
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
        "only a narrow task repays the work for a model",
        (INIT, f"{EVAL} --shots 4", IMPORT),
    ),
    Recipe(
        "api",
        "Stay on the API",
        "Stay on the API",
        "the API's model can change or disappear, and the bill grows with use",
        (INIT, IMPORT, COST),
    ),
    Recipe(
        "collect",
        "Do not train yet: collect first",
        "Collect first",
        "it delays the start",
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
        "prompts are long, and the model cannot learn what it does not know yet",
        (INIT, "offapi models add demo", f"{EVAL} --shots 4"),
    ),
    Recipe(
        "sft",
        "Supervised fine-tuning on labels that people checked",
        "Supervised fine-tuning",
        "every label is a person's work, and it gets no better than your labels",
        (INIT, "offapi train my-task/sft.toml", f"{EVAL} --adapter runs/sft/adapter"),
    ),
    Recipe(
        "distill",
        "Distillation: a teacher labels, checks remove the bad labels",
        "Distillation",
        "it gets no better than the teacher, and learns its mistakes too",
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
        "it gets no better than your agent's best answers, and good traces may be few",
        (INIT, IMPORT, "offapi train my-task/filtered_sft.toml"),
    ),
    Recipe(
        "grpo",
        "GRPO from the base: documents and a score, no answers",
        "GRPO from the base",
        "it takes the most machine time, and learns whatever the score rewards, intended or not",
        (INIT, f"{EVAL} --samples 8", "offapi train my-task/grpo.toml"),
    ),
    Recipe(
        "grpo_after",
        "GRPO after fine-tuning: a student first, then documents and a score",
        "GRPO after fine-tuning",
        "two trainings to maintain, and the score must reward only what you want",
        (
            INIT,
            "offapi train my-task/{first}.toml",
            'offapi train my-task/grpo.toml --set adapter="$PWD/runs/{first}/adapter"',
        ),
    ),
)
BY_RECIPE = {recipe.key: recipe for recipe in RECIPES}
