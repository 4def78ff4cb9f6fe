"""The keys of a comparison: what all arms share, and for each recipe a table of its own keys.

A table is checked against the recipe's own keys, so that both accept the same ones. Left out: the
keys that a comparison sets itself (data, names, where a student starts from).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_type_hints

from offapi.config.load import load, load_table, peek, resolved
from offapi.errors import ConfigError
from offapi.model_spec import DType, Limits, LoraSpec
from offapi.teachers.teacher import Price

RecipeName = Literal["sft", "distill", "filtered_sft", "grpo"]
Start = Literal["base", "sft", "distill", "filtered_sft"]
RECIPES: tuple[RecipeName, ...] = get_args(RecipeName)  # in the order they are run
STUDENT = (
    "model",
    "template",
    "lora",
    "max_tokens",
    "dtype",
    "device",
    "quantize",
    "seed",
    "limits",
)  # the same in every arm
SET_HERE = (
    "recipe",
    "task",
    "data",
    "traces",
    "val",
    "name",
    "out",
    "teacher",
    "labels",
    "learn",
    "adapter",
    "rollouts",
)


@dataclass(frozen=True, kw_only=True)
class Keys:
    """The keys of `recipe = "compare"`, which `offapi curve` reads too.

    `load_keys` fills each table with all keys of its recipe, None for those that the file lacks.
    """

    recipe: Literal["compare"] = "compare"
    task: Path
    # with gold, with recorded_label, or neither: what a row has decides which recipes can use it
    documents: Path
    test: Path  # documents or traces with gold, on which every arm is scored
    val: Path | None = None  # documents with gold; grpo picks its best step on them
    traces: Path | None = None  # for filtered_sft; default: the documents' recorded labels
    teacher: str | None = None  # for distill: recorded, or local:NAME
    labels: Path | None = None  # for distill, instead: a file `offapi label` wrote
    recipes: tuple[RecipeName, ...] | None = None  # default: all that the data allow
    roads: tuple[RecipeName, ...] | None = None  # the older name of `recipes`
    out: Path = Path("runs")
    name: str = "compare"
    model: str = "demo"
    template: dict[str, Any] = field(default_factory=dict)  # settings of the chat template
    lora: LoraSpec = LoraSpec()
    max_tokens: int = 2048
    dtype: DType = "auto"
    device: str = "auto"
    quantize: int | None = None
    seed: int = 0
    limits: Limits = Limits()
    minutes: float | None = None  # most machine minutes for an arm, by the estimate
    label_minutes: float = 1.0  # a person's minutes for one gold answer: an assumption
    watts: float = 100.0  # power of the busy machine: an assumption, or your measurement
    price: Price | None = None  # the teacher's, in dollars per million tokens
    margin: float = 0.05  # differences of rates below this do not matter
    sft: dict[str, Any] = field(default_factory=dict)
    distill: dict[str, Any] = field(default_factory=dict)
    filtered_sft: dict[str, Any] = field(default_factory=dict)
    grpo: dict[str, Any] = field(default_factory=dict)  # its `start` is not a key of the recipe

    def __post_init__(self) -> None:
        for name in ("label_minutes", "watts"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 < self.margin < 1:
            raise ValueError(f"margin must lie between 0 and 1, got {self.margin}")
        if Path(self.name).name != self.name or self.name == "arms":
            raise ValueError(
                f"name must be a plain name other than 'arms' (the folder of all arms),"
                f" got {self.name!r}"
            )
        if self.recipes is not None and self.roads is not None:
            raise ValueError("`roads` is the older name of `recipes`: give only one of them")
        for name, given in (("recipes", self.recipes), ("roads", self.roads)):
            if given is not None and len(set(given)) != len(given):
                raise ValueError(f"{name} must name each recipe once, got {', '.join(given)}")

    def table(self, recipe: RecipeName) -> dict[str, Any]:
        """Return the keys given for `recipe`, without `start`."""
        tables = {
            "sft": self.sft,
            "distill": self.distill,
            "filtered_sft": self.filtered_sft,
            "grpo": self.grpo,
        }
        return {
            name: value
            for name, value in tables[recipe].items()
            if value is not None and name != "start"
        }

    @property
    def start(self) -> Start | None:
        """What grpo starts from; None if the file does not say."""
        return self.grpo.get("start")

    def as_dict(self) -> dict[str, Any]:
        """Return the keys as compare.json stores them: `recipes` under its older name, `roads`."""
        given = resolved(self)
        return {
            "roads" if name == "recipes" else name: value
            for name, value in given.items()
            if name != "roads"
        }

    def recipe_config(self, recipe: RecipeName, **more: Any) -> Any:
        """Return the recipe's `Config`. Raise ConfigError for a value that the recipe refuses."""
        student = {name: getattr(self, name) for name in STUDENT}
        # A comparison scores one student for each recipe: a control would be a second one.
        control = {"control": False} if recipe == "filtered_sft" else {}
        try:
            return recipe_module(recipe).Config(
                task=self.task, **student, **{**control, **self.table(recipe)}, **more
            )
        except ValueError as error:
            raise ConfigError(f"{error}.", where=f"[{recipe}]", next_step="Fix that key.") from None


def recipe_module(recipe: RecipeName) -> ModuleType:
    """Import the recipe's module."""
    return import_module(f"offapi.recipes.{recipe}")


def load_keys(path: Path, overrides: Sequence[str] = ()) -> Keys:
    """Read a comparison's TOML. Raise ConfigError as `offapi.config.load.load` does."""
    named = peek(path, "recipe")
    if named != "compare":
        step = 'Write recipe = "compare", or train a single recipe with `offapi train`.'
        what = f'recipe must be "compare", got {named!r}.'
        raise ConfigError(what, where=str(path), next_step=step)
    keys = load(path, Keys, overrides)

    def table(recipe: RecipeName) -> dict[str, Any]:
        return load_table(path, recipe, _kinds(recipe), overrides)

    return replace(
        keys,
        recipes=keys.recipes or keys.roads,
        roads=None,
        sft=table("sft"),
        distill=table("distill"),
        filtered_sft=table("filtered_sft"),
        grpo=table("grpo"),
    )


def _kinds(recipe: RecipeName) -> Mapping[str, Any]:
    """Return the type of each key in the recipe's table. No key is required."""
    config = recipe_module(recipe).Config
    hints: Mapping[str, Any] = get_type_hints(config)
    own = [key.name for key in fields(config) if key.name not in (*STUDENT, *SET_HERE)]
    kinds = {name: hints[name] | None for name in own}
    return kinds | {"start": Start | None} if recipe == "grpo" else kinds
