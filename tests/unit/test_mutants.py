"""The lists of planted bugs fit the code: each line is there once, and its tests exist."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest
from run_mutants import LISTS, ROOT, Mutant, checkout_copy, read_mutants, try_mutant

FEWEST = 150
ALL = [mutant for mutants in read_mutants().values() for mutant in mutants]


def test_there_are_enough_and_none_twice() -> None:
    assert len(ALL) >= FEWEST
    assert len({(each.file, each.line, each.becomes) for each in ALL}) == len(ALL)


def test_every_package_has_some() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    folders = {name.replace("offapi.backends", "backends") for name in settings["packages"]}
    folders = {name.replace("offapi.recipes", "recipes").replace(".", "/") for name in folders}
    holds_no_code = {"backends"}
    have = {str(Path(mutant.file).parent) for mutant in ALL}
    assert sorted(folders - have - holds_no_code) == []


@pytest.mark.parametrize("name", sorted(read_mutants()))
def test_each_line_is_there_once_and_the_bug_is_python(name: str) -> None:
    problems = []
    for mutant in read_mutants()[name]:
        try:
            ast.parse(mutant.apply((ROOT / mutant.file).read_text("utf-8")))
        except (OSError, ValueError, SyntaxError) as error:
            problems.append(f"{LISTS.name}/{name}.toml: {error}")
        gone = [test for test in mutant.tests if not (ROOT / test.partition("::")[0]).exists()]
        problems += [f"{mutant.file}: there is no {test}" for test in gone]
    assert problems == []


@pytest.mark.parametrize(
    ("line", "becomes", "outcome"),
    [
        ("return float(answer == gold)", "return float(answer != gold)", "caught"),
        ("return float(answer == gold)", "return float(gold == answer)", "survived"),
    ],
)
def test_runner_tells_a_caught_bug_from_one_that_survives(
    line: str, becomes: str, outcome: str
) -> None:
    with checkout_copy() as copy:
        (copy / "offapi/sample.py").write_text(f"def same(answer, gold):\n    {line}\n")
        test = (
            "from offapi.sample import same\n\n\ndef test_same():\n    assert same(1, 1) == 1.0\n"
        )
        (copy / "tests/unit/test_sample.py").write_text(test)
        mutant = Mutant("offapi/sample.py", line, becomes, ("tests/unit/test_sample.py",))
        assert try_mutant(copy, mutant) == outcome
        assert (copy / "offapi/sample.py").read_text().count(line) == 1
