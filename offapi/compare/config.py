"""The keys of a comparison: what all roads share,
and for each road a table with keys of its recipe.

The tables are made from the recipes' own keys, so that both know the same ones. Left out: the
keys that a comparison sets itself (data, names, where a student starts from).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_type_hints

from offapi.backend import DType, Limits, LoraSpec
from offapi.config import load as configs
from offapi.errors import ConfigError
from offapi.teachers.teacher import Price

Road = Literal["sft", "distill", "filtered_sft", "grpo"]
Start = Literal["base", "sft", "distill", "filtered_sft"]
ROADS: tuple[Road, ...] = get_args(Road)  # in the order they are run
STUDENT = (
    "model",
    "lora",
    "max_tokens",
    "dtype",
    "device",
    "quantize",
    "seed",
    "limits",
)  # the same in every road
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
    """Keys of `recipe = "compare"`, which `offapi curve` reads too.

    `load` adds a table for each road.
    """

    recipe: Literal["compare"] = "compare"
    task: Path
    # with gold, with recorded_label, or neither: what a row has decides which road can use it
    documents: Path
    test: Path  # documents or traces with gold, on which every road is scored
    val: Path | None = None  # documents with gold; grpo picks its best step on them
    traces: Path | None = None  # for filtered_sft; without, the documents' recorded labels
    teacher: str | None = None  # for distill: recorded, or local:NAME
    labels: Path | None = None  # for distill, instead: a file `offapi label` wrote
    roads: tuple[Road, ...] | None = None  # default: every one that the data allow
    out: Path = Path("runs")
    name: str = "compare"
    model: str = "demo"
    lora: LoraSpec = LoraSpec()
    max_tokens: int = 2048
    dtype: DType = "float32"
    device: str = "auto"
    quantize: int | None = None
    seed: int = 0
    limits: Limits = Limits()
    minutes: float | None = None  # machine minutes that a road may take, by the estimate
    label_minutes: float = 1.0  # a person's, for one gold answer: an assumption
    watts: float = 100.0  # of the machine while it works: an assumption, or what you measured
    price: Price | None = None  # the teacher's, in dollars per million tokens
    margin: float = 0.05  # difference of rates below which nothing is made of it

    def __post_init__(self) -> None:
        for name in ("label_minutes", "watts"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} may not be negative")
        if not 0 < self.margin < 1:
            raise ValueError("margin must lie between 0 and 1")
        if Path(self.name).name != self.name or self.name == "arms":
            raise ValueError(
                "name must be a plain name, and not 'arms', where all comparisons keep theirs"
            )
        if self.roads is not None and len(set(self.roads)) != len(self.roads):
            raise ValueError("roads names one twice")

    def table(self, road: Road) -> dict[str, Any]:
        """The keys given for `road`, `start` aside."""
        table = getattr(self, road)
        given = {each.name: getattr(table, each.name) for each in fields(table)}
        return {
            name: value for name, value in given.items() if value is not None and name != "start"
        }

    @property
    def start(self) -> Start | None:
        """What grpo starts from; None where it is not said."""
        start: Start | None = getattr(self, "grpo").start  # noqa: B009 -- a field that `kind` adds
        return start

    def recipe_config(self, road: Road, **more: Any) -> Any:
        """The `Config` of the road's recipe. ConfigError for a value that the recipe refuses."""
        student = {name: getattr(self, name) for name in STUDENT}
        control = (
            {"control": False} if road == "filtered_sft" else {}
        )  # a second student is no part of the road
        try:
            return recipe(road).Config(
                task=self.task, **student, **{**control, **self.table(road)}, **more
            )
        except ValueError as error:
            raise ConfigError(f"{error}.", where=f"[{road}]", next_step="Mend that key.") from None


def recipe(road: Road) -> ModuleType:
    """The road's recipe."""
    return import_module(f"offapi.recipes.{road}")


def load(path: Path, overrides: Sequence[str] = ()) -> Keys:
    """Read a comparison's TOML; ConfigError as `offapi.config.load.load`."""
    found = configs.peek(path, "recipe")
    if found != "compare":
        step = 'Write recipe = "compare"; the recipes are run by `offapi train`.'
        raise ConfigError(f"recipe = {found!r} is no comparison.", where=str(path), next_step=step)
    keys: Keys = configs.load(path, kind(), overrides)
    return keys


@cache
def kind() -> type[Keys]:
    """`Keys` with a field for each road."""
    tables = [(road, _table(road)) for road in ROADS]
    made = [(name, table, field(default_factory=table)) for name, table in tables]
    return make_dataclass("Comparison", made, bases=(Keys,), frozen=True, kw_only=True)


def _table(road: Road) -> type[Any]:
    """The recipe's keys, all optional; None where not given."""
    config = recipe(road).Config
    hints: Mapping[str, Any] = get_type_hints(config)
    own = [each.name for each in fields(config) if each.name not in (*STUDENT, *SET_HERE)]
    made = [(name, hints[name] | None, field(default=None)) for name in own]
    if road == "grpo":
        made.append(("start", Start | None, field(default=None)))
    return make_dataclass(f"{road}_keys", made, frozen=True, kw_only=True)
