"""A disk that fills up during a command: an error with a next step, and no partial file.

A run that came to nothing does not stay, one with steps
does; what a command can go on with stays as well.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import disk_faults
import orjson
import pytest
import recipe_folder
import tiny_llama

from offapi import cli
from offapi.data.importers import pairs
from offapi.errors import RunError
from offapi.files import staged
from offapi.grading.file.reviews import Reviews

RECIPE = """
recipe = "sft"
task = "task.py"
data = "train.jsonl"
model = "model"
out = "runs"
epochs = 1.0
batch_size = 2
[lora]
rank = 4
"""


def full_from(n: int) -> AbstractContextManager[None]:
    """Let every write fail from the n-th on."""
    left = n

    def tick(called: str, args: tuple[Any, ...], _: object) -> None:
        nonlocal left
        if called == "write" and stat.S_ISREG(os.fstat(args[0]).st_mode):
            left -= 1
            if left <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return disk_faults.watching(tick)


def test_eval_checks_the_room_before_it_asks_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "task.py").write_text(recipe_folder.TASK)
    rows = [{"id": f"d{i}", "document": f"from {i}", "gold": {"shop": f"{i}"}} for i in range(40)]
    recipe_folder.write_jsonl(tmp_path / "test.jsonl", rows)
    words = [
        "eval",
        "--task",
        "task.py",
        "--data",
        "test.jsonl",
        "--model",
        "none",
        "--out",
        "said.jsonl",
    ]
    assert cli.run([*words, f"--samples={10**12}"]) == 1  # 40 PB
    err = capsys.readouterr().err
    assert "said.jsonl" in err
    assert "The disk is full" in err
    assert not (tmp_path / "said.jsonl").exists()


def test_a_run_that_failed_at_its_start_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_llama.write_chat(tmp_path / "model")
    (tmp_path / "task.py").write_text(recipe_folder.TASK)
    (tmp_path / "sft.toml").write_text(RECIPE)
    rows = [{"id": f"d{i}", "document": f"from {i}", "gold": {"shop": f"{i}"}} for i in range(4)]
    recipe_folder.write_jsonl(tmp_path / "train.jsonl", rows)
    run = tmp_path / "runs" / "sft"
    n, removed = 0, 0
    while not run.exists():  # until the first step is written
        with full_from(n := n + 1):
            assert cli.run(["train", "sft.toml", "--backend=torch"]) == 1
        err = capsys.readouterr().err
        assert "No space left on device" in err
        assert "Free some space" in err
        removed += not list((tmp_path / "runs").iterdir())
    # the manifest, the attempt in it, the lines of console.log, which may be lost, and the step
    assert removed == n - 1 >= 3
    assert (run / "metrics.jsonl").read_bytes().count(b"\n") == 1
    assert cli.run(["train", "sft.toml", "--backend=torch", "--resume"]) == 0
    assert (run / "adapter").is_dir()


def lay_out(folder: Path, count: int = 6) -> None:
    """Write a task, documents, traces, a fine-tuning file and Batch files into `folder`."""
    (folder / "task.py").write_text(recipe_folder.TASK)
    documents = recipe_folder.rows(count) if count < 26 else []
    chats = [
        [
            {"role": "user", "content": f"from Ash no {i}, {'many thanks ' * 9}"},
            {"role": "assistant", "content": '{"shop":"Ash"}'},
        ]
        for i in range(count)
    ]
    asked = [
        {"custom_id": f"c{i}", "body": {"model": "m", "messages": chat[:1]}}
        for i, chat in enumerate(chats)
    ]
    said = [
        {
            "custom_id": f"c{i}",
            "response": {
                "status_code": 200,
                "body": {"choices": [{"message": chat[1], "finish_reason": "stop"}]},
            },
        }
        for i, chat in enumerate(chats)
    ]
    files = {
        "docs": documents,
        "traces": [{"id": f"t{i}", "messages": chat} for i, chat in enumerate(chats)],
        "ft": [{"messages": chat} for chat in chats],
        "asked": [{**row, "method": "POST", "url": "/v1/chat/completions"} for row in asked],
        "said": said,
    }
    for name, rows in files.items():
        recipe_folder.write_jsonl(folder / f"{name}.jsonl", rows)
    (folder / "made").mkdir()


GRADE = [
    "grade",
    "--task=task.py",
    "--traces=traces.jsonl",
    "--out=made/graded.jsonl",
    "--kept=made/kept.jsonl",
]
IMPORT = ["traces", "import", "openai-ft", "ft.jsonl", "--out=made/traces.jsonl"]
BATCH = ["traces", "import", "openai", "asked.jsonl", "said.jsonl", "--out=made/traces.jsonl"]
LABEL = [
    "label",
    "--task=task.py",
    "--data=docs.jsonl",
    "--teacher=recorded",
    "--out=made/labels.jsonl",
]
EVAL = [
    "eval",
    "--task=task.py",
    "--data=docs.jsonl",
    "--model=model",
    "--out=made/answers.jsonl",
    "--backend=torch",
]


@pytest.mark.parametrize(
    (
        "words",
        "writes",
    ),  # how many a command makes, and what is left when each is the first that fails
    [
        (GRADE, [[], [], ["graded.jsonl"]]),  # table, rows; then the kept rows
        (IMPORT, [[]]),
        (BATCH, [[]]),
        (LABEL, [[], *[["labels.jsonl"]] * 5]),
        (EVAL, [[]]),
    ],
    ids=["grade", "import", "import of Batch files", "label", "eval"],
)
def test_a_full_disk_is_reported_and_can_be_resumed(
    words: list[str],
    writes: list[list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(staged, "SECONDS_BETWEEN_JOURNALS", 1e9)  # as many writes on a slow machine
    lay_out(tmp_path)
    if words == EVAL:
        tiny_llama.write_chat(tmp_path / "model")
    made = tmp_path / "made"
    for n, left in enumerate(writes, start=1):
        with full_from(n):
            assert cli.run(words) == 1
        err = capsys.readouterr().err
        assert "No space left on device" in err
        assert "  where: made/" in err
        assert "next: Free some space" in err
        assert sorted(path.name for path in made.iterdir()) == left, n
        for path in made.iterdir():
            assert all(map(orjson.loads, path.read_bytes().splitlines()))
            path.unlink()
    with full_from(len(writes) + 1):
        assert cli.run(words) == 0, "more writes than were tried"
    assert not list(made.glob("*.part*"))


def test_a_full_disk_while_joining_batch_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path, count=200)
    monkeypatch.setattr(pairs, "TABLES", f"PRAGMA max_page_count = 4; {pairs.TABLES}")
    assert cli.run(BATCH) == 1
    err = capsys.readouterr().err
    assert "database or disk is full" in err
    assert "next: Free some space" in err
    assert not list((tmp_path / "made").iterdir())


def test_an_unwritable_review_keeps_the_earlier_ones(tmp_path: Path) -> None:
    path = tmp_path / "reviews.jsonl"
    first = Reviews.read(path).add("a", 1, True)
    with full_from(1), pytest.raises(RunError, match="Free some space") as caught:
        first.add("b", 2, False)
    assert caught.value.where == str(path)
    assert Reviews.read(path).answers == {1: True}


@pytest.mark.parametrize("words", [GRADE, IMPORT], ids=["grade", "import"])
def test_a_small_disk_leaves_only_resumable_files(words: list[str], tmp_path: Path) -> None:
    lay_out(tmp_path, count=2000)
    moved = [word.replace("made/", "/mnt/there/") for word in words]
    script = f"import os; os.chdir({str(tmp_path)!r})\nfrom offapi import cli\n"
    script += f"code = cli.run({moved!r})\nprint(code, *sorted(os.listdir('/mnt/there')))"
    done = disk_faults.on_small_disk(script, size="160k")
    code, *left = done.stdout.split()
    assert code == "1", done.stderr
    assert "Free some space" in done.stderr
    assert all(".part" in name for name in left), left
    assert [name.endswith(".part.json") for name in left].count(True) == bool(left)
