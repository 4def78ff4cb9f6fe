"""An arm of a comparison: one road with all its keys
and inputs, in a run folder named by their hash.

So the same arm is the same folder: done before, it
is not done again; under way, it is gone on with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from offapi.backend import LoraSpec
from offapi.compare.config import Keys, RecipeName
from offapi.compare.data import Rows, write_rows
from offapi.training.manifest import describe_arm, name_folder

ARMS, DATA = "arms", "arms/data"  # folders in `out`: the arms of all comparisons, what they read


@dataclass(frozen=True)
class Arm:
    """A road to take. `manifest` is all its result depends on; `config` its recipe's."""

    recipe: RecipeName
    config: Any
    manifest: Mapping[str, Any]
    path: Path
    start: Arm | None = None  # the arm whose student it goes on from

    @property
    def lora(self) -> LoraSpec:
        """The shape of the adapter, also before the start's is there."""
        shape: LoraSpec = self.config.lora
        return shape


def make_arm(
    keys: Keys,
    recipe: RecipeName,
    rows: Rows,
    backend: str,
    data: Path,
    *,
    start: Arm | None = None,
    **more: Any,
) -> Arm:
    """The arm of `road` on `rows`, which are written to
    the folder `data`; `more` keys go over the file's.
    """
    file = write_rows(data, rows)
    inputs: dict[str, Any] = {
        "traces" if recipe == "filtered_sft" else "data": file,
        "val": keys.val,
    }
    if recipe == "distill":
        inputs |= {"labels": keys.labels} if keys.labels else {"teacher": keys.teacher}
    config = keys.recipe_config(recipe, **inputs)
    config = replace(config, out=keys.out / ARMS, **more)
    manifest = describe_arm(recipe, config, backend, start.path.name if start else None)
    name = name_folder(recipe, manifest)
    if start is not None:
        config = replace(config, adapter=start.path / "adapter")
    return Arm(
        recipe, replace(config, name=name), manifest, (keys.out / ARMS / name).absolute(), start
    )
