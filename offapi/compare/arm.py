"""An arm of a comparison: a recipe with its keys and inputs, in a run folder named by their hash.

The same arm therefore always has the same folder. A finished arm is not trained again, and an
interrupted one is resumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from offapi.compare.config import Keys, RecipeName
from offapi.compare.data import Rows, write_rows
from offapi.model_spec import LoraSpec
from offapi.training.manifest import describe_arm, name_folder

ARMS, DATA = "arms", "arms/data"  # folders in `out`: the arms of all comparisons, and their data


@dataclass(frozen=True)
class Arm:
    """One trained instance of a recipe. `manifest` holds all that its result depends on."""

    recipe: RecipeName
    config: Any
    manifest: Mapping[str, Any]
    path: Path
    start: Arm | None = None  # the arm whose student is trained further

    @property
    def lora(self) -> LoraSpec:
        """The shape of the adapter, known before the start's adapter exists."""
        shape: LoraSpec = self.config.lora
        return shape


def make_arm(
    keys: Keys,
    recipe: RecipeName,
    rows: Rows,
    backend: str,
    data_folder: Path,
    *,
    start: Arm | None = None,
    **more: Any,
) -> Arm:
    """Return the arm of `recipe` on `rows`, which are written to `data_folder`.

    The keys in `more` override those of the file.
    """
    rows_file = write_rows(data_folder, rows)
    inputs: dict[str, Any] = {
        "traces" if recipe == "filtered_sft" else "data": rows_file,
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
