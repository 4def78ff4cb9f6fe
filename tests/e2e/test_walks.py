"""Each walk of docs/walks/, run in small: the page's own files and commands, on a tiny model.

The test adds what a reader brings (models, documents, logs) under the names that the page uses.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable
from contextlib import ExitStack, chdir
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import bigram_llama
import pytest
import tiny_llama
from pages import DOCS, Block, blocks
from recipe_folder import TIMEOUT, offapi, write_jsonl
from serving import serving

Row = dict[str, Any]
STUDENT, TEACHER = "Qwen2.5-0.5B-Instruct", "Qwen2.5-7B-Instruct"
NEEDS_A_RUN = "needs a run"  # Python that asks the server of the walk
ADDRESS = "http://127.0.0.1:8080"
MAY_FAIL_A_GATE = "may end with exit code 3"


def walk(page: str, folder: Path, bring: Callable[[Path], None]) -> Path:
    """Run the commands of docs/walks/PAGE in `folder` and return it."""
    tiny_llama.write_chat(folder / STUDENT)
    bring(folder)
    names: dict[str, Any] = {}
    with ExitStack() as servers, chdir(folder):
        for block in blocks(DOCS / "walks" / page):
            if block.title == NEEDS_A_RUN:
                text = block.text.replace(ADDRESS, names.get("url", ADDRESS))
                exec(compile(text, str(block.page), "exec"), names)
            elif block.language in ("python", "toml"):
                (folder / block.title).write_text(block.text, "utf-8")
            elif block.language == "sh":
                names["url"] = run(block, folder, servers)
    return folder


def run(block: Block, folder: Path, servers: ExitStack) -> str:
    """Run a block's lines one by one: `offapi` in this process, anything else in a shell.

    A server runs until the walk ends; return its address.
    """
    allowed = (0, 3) if block.title == MAY_FAIL_A_GATE else (0,)
    address = ""
    for words in block.commands:
        if words[:2] == ["offapi", "serve"]:
            address = servers.enter_context(serving(*words[2:], cwd=folder)).url
            continue
        if words[0] == "offapi":
            done = offapi(*words[1:], cwd=folder)
        else:
            line = shlex.join(words).replace("'>'", ">")
            done = subprocess.run(
                line, shell=True, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT
            )
        assert done.returncode in allowed, f"{words}\n{done.stdout}\n{done.stderr}"
    return address


@pytest.fixture(autouse=True)
def store_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the models in a fresh folder: the walks add them under plain names."""
    monkeypatch.setenv("OFFAPI_HOME", str(tmp_path / "home"))


def needs(library: str) -> None:
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed here")


def accuracy_files(folder: Path, *names: str) -> None:
    """Check that each predictions file of the walk has a row for every document."""
    for name in names:
        assert (folder / name).read_bytes().strip(), name


def test_from_openai_fine_tuning(tmp_path: Path) -> None:
    needs("torch")

    def bring(folder: Path) -> None:
        teams, priorities = ("bill", "ship", "tech"), ("low", "high")
        rows = []
        for i, (team, priority) in enumerate(product(teams, priorities)):
            for n in range(5):
                answer = json.dumps({"team": team, "p": priority})  # short in bytes
                turns = [("system", "Sort."), ("user", f"{team} {priority} {i}{n}")]
                turns.append(("assistant", answer))
                rows.append({"messages": [{"role": r, "content": c} for r, c in turns]})
        write_jsonl(folder / "openai-train.jsonl", rows)

    folder = walk("from-openai-fine-tuning.md", tmp_path, bring)
    accuracy_files(folder, "before.jsonl", "after.jsonl")
    assert (folder / "runs/student/report.html").exists()


def test_from_logs(tmp_path: Path) -> None:
    needs("torch")

    def bring(folder: Path) -> None:
        for name, seed, count in (("agent-log", 1, 12), ("first-week", 2, 40), ("this-week", 3, 8)):
            write_jsonl(folder / f"{name}.jsonl", logged(count, seed))

    folder = walk("from-logs.md", tmp_path, bring)
    accuracy_files(folder, "student.jsonl")
    assert (folder / "runs/filtered-sft/control/adapter").is_dir()
    assert (folder / "drift.json").exists()


def logged(count: int, seed: int) -> list[Row]:
    """Return logged requests and responses for the task that `init` writes."""
    from offapi.demo import generate
    from offapi.demo.task import task

    rows = []
    for document in generate.generate("train", count, seed=seed):
        answer = {"role": "assistant", "content": task.answer_text(document.gold or {})}
        request = {"model": "frontier", "messages": task.messages(document.text)}
        response = {"choices": [{"message": answer, "finish_reason": "stop"}]}
        rows.append({"request": request, "response": response})
    return rows


def test_from_documents(tmp_path: Path) -> None:
    needs("mlx")

    def bring(folder: Path) -> None:
        answers = {"x": ['{"vendor":"Ash Ltd"', ',"total":1.50}'], "y": ["no idea"]}
        bigram_llama.write(folder / TEACHER, answers)
        (folder / "documents").mkdir()
        for i in range(8):
            text = f"Ash Ltd, invoice {i}, total 1.50 {'y' if i % 4 == 3 else 'x'}"
            (folder / "documents" / f"d{i}.txt").write_text(text)
        write_jsonl(folder / "val.jsonl", invoices(4, first=40))

    folder = walk("from-documents.md", tmp_path, bring)
    kept = json.loads((folder / "runs/distill/grading.json").read_bytes())["kept"]
    assert kept == 6, "the teacher's other two labels are not JSON"
    accuracy_files(folder, "teacher.jsonl", "student.jsonl")


def test_grpo_on_a_workstation(tmp_path: Path) -> None:
    needs("torch")

    def bring(folder: Path) -> None:
        for name, first, count in (("labelled", 0, 8), ("val", 20, 4), ("test", 30, 4)):
            write_jsonl(folder / f"{name}.jsonl", invoices(count, first))
        documents = [{**row, "gold": None} for row in invoices(8, first=50)]
        rows = [{key: row[key] for key in ("id", "document")} for row in documents]
        write_jsonl(folder / "documents.jsonl", rows)

    folder = walk("grpo-on-a-workstation.md", tmp_path, bring)
    assert len((folder / "runs/grpo/metrics.jsonl").read_text().splitlines()) >= 2
    accuracy_files(folder, "sft.jsonl", "grpo.jsonl")


def invoices(count: int, first: int) -> list[Row]:
    """Return documents with gold answers for the task on the page."""
    rows = []
    for i in range(first, first + count):
        gold = {"vendor": f"{['Ash', 'Elm', 'Oak', 'Fir'][i % 4]} {i} Ltd", "total": i + 0.5}
        text = f"{gold['vendor']}\ninvoice {i}\ntotal {gold['total']:.2f}"
        rows.append({"id": f"d{i}", "document": text, "gold": gold})
    return rows
