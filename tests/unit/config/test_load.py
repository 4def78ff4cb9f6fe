"""Loading a recipe: its values, and mistakes with file, line, field and next step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson
import pytest

from offapi.config import load
from offapi.errors import ConfigError


@dataclass(frozen=True)
class Lora:
    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = ("q_proj",)

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank must be at least 1, not {self.rank}")


@dataclass(frozen=True)
class Recipe:
    train: Path
    backend: Literal["torch", "mlx"] = "torch"
    lr: float = 1e-4
    steps: int = 10
    name: str = "x"
    lora: Lora = Lora()
    more: tuple[Path, ...] = ()
    validation: Path | None = None


def read(folder: Path, text: str, *overrides: str) -> Recipe:
    path = folder / "recipe.toml"
    path.write_text(text)
    return load.load(path, Recipe, overrides)


def refused(folder: Path, text: str, *overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read(folder, text, *overrides)
    assert caught.value.exit_code == 2
    assert caught.value.next_step
    return caught.value


def test_values_defaults_and_paths_relative_to_the_file(tmp_path: Path) -> None:
    text = 'train = "a.jsonl"\nlr = 1\nmore = ["b", "/c"]\nvalidation = "~/v"\n[lora]\nrank = 4\n'
    found = read(tmp_path, text)
    assert found == Recipe(
        train=tmp_path / "a.jsonl",
        lr=1.0,
        more=(tmp_path / "b", Path("/c")),
        validation=Path.home() / "v",
        lora=Lora(rank=4),
    )
    assert isinstance(found.lr, float)


def test_overrides_win_with_paths_from_the_working_folder(tmp_path: Path) -> None:
    overrides = (
        "lr=5e-4",
        "lora.rank=8",
        'lora.targets=["v_proj"]',
        "name=plain text",
        "train=b.jsonl",
        "backend=mlx",
    )
    found = read(tmp_path, 'train = "a"\nlr = 1e-3\n', *overrides)
    lora = Lora(rank=8, targets=("v_proj",))
    assert found == Recipe(
        train=Path("b.jsonl"), lr=5e-4, name="plain text", backend="mlx", lora=lora
    )


def test_a_value_cannot_smuggle_in_another_key(tmp_path: Path) -> None:
    assert read(tmp_path, 'train = "a"', 'name="x"\nsteps = 3').steps == 10


def test_text_that_looks_like_a_date_stays_text(tmp_path: Path) -> None:
    assert read(tmp_path, 'train = "a"', "name=2026-04-02").name == "2026-04-02"


def test_resolved_is_json_with_every_default(tmp_path: Path) -> None:
    found = orjson.loads(orjson.dumps(load.resolved(read(tmp_path, 'train = "a"'))))
    assert found == {
        "train": str(tmp_path / "a"),
        "backend": "torch",
        "lr": 1e-4,
        "steps": 10,
        "name": "x",
        "lora": {"rank": 16, "alpha": 32.0, "targets": ["q_proj"]},
        "more": [],
        "validation": None,
    }


@pytest.mark.parametrize(
    ("text", "line", "field", "what", "next_step"),
    [
        (
            'train = "a"\n\n# why\nstep = 3\n',
            4,
            "step",
            "unknown key 'step'",
            "Did you mean 'steps'?",
        ),
        (
            'train = "a"\n[lora]\nrnk = 3\n',
            3,
            "lora.rnk",
            "unknown key 'rnk'",
            "Did you mean 'rank'?",
        ),
        ('train = "a"\nlora = { rnk = 3 }\n', 2, "lora.rnk", "unknown key", "Did you mean 'rank'?"),
        ('train = "a"\nlora.rnk = 3\n', 2, "lora.rnk", "unknown key", "Did you mean 'rank'?"),
        ('train = "a"\nlearning = 3\n', 2, "learning", "unknown key", "Known: backend, lora, lr"),
        ('train = "a"\nlr = "x"\n', 2, "lr", "must be a number, got a text: 'x'", "value"),
        (
            'train = "a"\nsteps = 1.5\n',
            2,
            "steps",
            "must be a whole number, got a number: 1.5",
            "value",
        ),
        (
            'train = "a"\nsteps = true\n',
            2,
            "steps",
            "must be a whole number, got true or false",
            "value",
        ),
        ('train = "a"\nbackend = "trch"\n', 2, "backend", "'trch'", "Did you mean 'torch'?"),
        (
            'train = "a"\n[lora]\ntargets = [\n  "a",\n  3,\n]\n',
            3,
            "lora.targets.1",
            "must be a text",
            "value",
        ),
        ('train = "a"\nname = """\nlr = 1\n"""\nlr = "x"\n', 5, "lr", "must be a number", "value"),
        (
            'train = "a"\n[lora]\nrank = 0\n',
            3,
            "lora.rank",
            "rank must be at least 1, not 0",
            "value",
        ),
        ("train = 3\n", 1, "train", "must be a path, got a whole number: 3", "value"),
        ('train = "a"\nlora = 3\n', 2, "lora", "must be a table", "value"),
    ],
)
def test_mistakes_name_line_field_and_next_step(
    tmp_path: Path, text: str, line: int, field: str, what: str, next_step: str
) -> None:
    error = refused(tmp_path, text)
    assert error.where == f"{tmp_path}/recipe.toml, line {line}, field {field!r}"
    assert what in error.what
    assert next_step in error.next_step


@pytest.mark.parametrize(
    ("override", "what", "next_step"),
    [
        ("lr=x", "must be a number, got a text: 'x'", "value"),
        ("lora.rnk=3", "unknown key 'rnk'", "Did you mean 'rank'?"),
        ("lr", "must have the form key=value", "--set lr=5e-4"),
        ("=3", "must have the form key=value", "--set lr=5e-4"),
        ("lr.x=3", "must be a number", "value"),
        ("train.x=3", "'train' is not a table", "recipe file"),
        ("name=5", "must be a text, got a whole number: 5", "--set 'name="),
        ("lora.rank=0", "rank must be at least 1", "value"),
    ],
)
def test_mistaken_overrides_are_named_as_given(
    tmp_path: Path, override: str, what: str, next_step: str
) -> None:
    error = refused(tmp_path, 'train = "a"\n', override)
    assert error.where == f"--set {override}"
    assert what in error.what
    assert next_step in error.next_step


def test_a_missing_key_says_how_to_give_it(tmp_path: Path) -> None:
    error = refused(tmp_path, "lr = 3\n")
    assert error.where == f"{tmp_path}/recipe.toml"
    assert "'train' is missing" in error.what
    assert "--set train=" in error.next_step


def test_broken_toml_names_its_line(tmp_path: Path) -> None:
    error = refused(tmp_path, 'train = "a"\nlr = = 3\n')
    assert error.where == f"{tmp_path}/recipe.toml, line 2"
    assert "TOML" in error.what


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "distill.toml").write_text("")
    with pytest.raises(ConfigError, match="Did you mean 'distill"):
        load.load(tmp_path / "distil.toml", Recipe)
    with pytest.raises(ConfigError, match="Check the path"):
        load.load(tmp_path / "none" / "distil.toml", Recipe)


def test_a_file_in_another_encoding_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_bytes(b'train = "\xff"')
    with pytest.raises(ConfigError, match="UTF-8"):
        load.load(tmp_path / "recipe.toml", Recipe)
