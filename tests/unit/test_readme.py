"""The README's examples run, and what it names exists."""

import re
from pathlib import Path

import pytest

from offapi.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", CODE)
def test_python_runs_as_written(code: str) -> None:
    exec(compile(code, "README.md", "exec"), {})


def test_there_is_python_to_run() -> None:
    assert CODE


def test_commands_exist() -> None:
    named = set(re.findall(r"\boffapi ([a-z]+)\b", README))
    assert named & set(COMMANDS) >= {"init", "train", "eval", "label", "doctor", "models"}


def test_files_exist() -> None:
    paths = re.findall(r"`((?:recipes|tests|scripts)/[\w./]+\.(?:py|toml))", README)
    paths += re.findall(r"python (scripts/bench/\w+\.py)", README)
    assert len(paths) > 4
    assert [path for path in paths if not (ROOT / path).is_file()] == []
