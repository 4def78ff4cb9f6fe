"""Label and grade on a local Ray of two workers: as one process does it, also when one is killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import bigram_llama
import pytest
from pages import DOCS
from recipe_folder import apart

if find_spec("ray") is None:
    pytest.skip("ray is not installed: pip install '.[ray]'", allow_module_level=True)

TASK = """
import os, signal, socket, pathlib
import offapi
from offapi import checks

def odd(document, answer, context):
    if document.endswith("7 1"):  # the guard holds in workers
        socket.create_connection(("192.0.2.1", 80), 1)
    while document.endswith("8 1"):  # the time limit holds too
        pass
    return checks.Verdict(float(answer.value["total"] == 1), "not one")

def deadly(document, answer, context):
    killed = pathlib.Path(__file__).with_name("killed")
    if document.endswith("9 1") and not killed.exists():
        killed.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 1.0

task = offapi.Task(
    name="totals",
    instructions="Read the total.",
    schema={"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]},
    checks={"json": (checks.is_json, 1.0), "odd": (odd, 1.0), "deadly": (deadly, 1.0)},
    match={"total": "number"},
    max_answer_tokens=12,
    check_seconds=0.5,
)
"""
ANSWERS = {"1": ['{"total": ', "1.0}"], "2": ['{"total":', "2}"], "3": ["∞"]}
COUNT = 48
WRITTEN = {"Label": "labels", "Grade": "graded", "Predict": "predicted"}


@pytest.fixture(scope="module", autouse=True)
def ray_of_two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One Ray for the module: two CPUs for the workers, and more for reading and writing.

    It has a home of its own, for its token and for the file that keeps it from asking for a cloud.
    """
    import ray

    home = tmp_path_factory.mktemp("ray_home")
    (home / "ray_bootstrap_config.yaml").write_text("provider: {type: local}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        ray.init(
            num_cpus=4,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=100 * 2**20,
        )
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield
        ray.shutdown()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A task, a model, documents and answers to them."""
    (tmp_path / "task.py").write_text(TASK)
    bigram_llama.write(tmp_path / "model", ANSWERS)
    ends = [i % 3 + 1 for i in range(COUNT)]
    rows: list[dict[str, Any]] = [
        {"id": f"row {i}", "document": f"{i} {end}"} for i, end in enumerate(ends)
    ]
    write(tmp_path / "documents.jsonl", rows)
    for row, end in zip(rows, ends, strict=True):
        row["recorded_label"] = {"total": end}
    write(tmp_path / "answers.jsonl", rows)
    return tmp_path


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run_page(heading: str, folder: Path, backend: str = "") -> list[dict[str, Any]]:
    """Run the lines below `heading` of docs/ray.md with `folder` as /data; return what was written."""
    page = (DOCS / "ray.md").read_text("utf-8").partition("# Many machines")[2]
    imports = "".join(line for line in page.splitlines(True) if "import " in line)
    lines = page.partition(f"## {heading}\n")[2].split("```")[1].removeprefix("text")
    lines = lines.replace("/data/run", "/data/model")
    lines = lines.replace('"/data/model"', f'"/data/model", "backend": "{backend}"')
    exec(imports + lines.replace("/data/", f"{folder}/").replace("batch_size=256", "batch_size=8"))
    return read(*(folder / WRITTEN[heading]).glob("*.jsonl"))


def read(*files: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return sorted(rows, key=lambda row: int(row["id"].split()[1]))


@pytest.mark.parametrize("backend", ["torch", "mlx"])
def test_labels_are_those_of_one_process(folder: Path, backend: str) -> None:
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    labels = run_page("Label", folder, backend)
    alone = folder / "alone.jsonl"
    inputs = ("--task", folder / "task.py", "--data", folder / "documents.jsonl", "--out", alone)
    apart("label", *inputs, "--teacher", f"local:{folder / 'model'}", "--backend", backend)
    same = ("id", "output", "status", "teacher", "prompt_sha256", "usage")
    assert [{name: row[name] for name in same} for row in labels] == [
        {name: row[name] for name in same} for row in read(alone)
    ]
    assert len(labels) == COUNT


def test_ray_reports_to_nobody() -> None:
    """Importing offapi, which comes before, switches it off."""
    from ray._common.usage import usage_lib

    assert not usage_lib.usage_stats_enabled()
    assert usage_lib._usage_stats_report_url().startswith("http://127.0.0.1:")


def test_predictions_are_those_of_one_process(folder: Path) -> None:
    predicted = run_page("Predict", folder, "torch")
    alone = folder / "alone.jsonl"
    inputs = (folder / "model", folder / "documents.jsonl", "--task", folder / "task.py")
    apart("predict", *inputs, "--out", alone, "--backend", "torch")
    assert predicted == [
        {name: value for name, value in row.items() if name != "document_hash"}
        for row in read(alone)
    ]
    assert len(predicted) == COUNT
    assert predicted[0]["answer"]


def test_grades_are_those_of_one_process_and_a_killed_worker_loses_and_repeats_nothing(
    folder: Path,
) -> None:
    """One row's check kills its worker, one asks for the network, one never returns."""
    graded = run_page("Grade", folder)
    assert (folder / "killed").exists()
    assert [row["id"] for row in graded] == [f"row {i}" for i in range(COUNT)]
    assert "network guard refused 192.0.2.1:80" in graded[27]["grade"]["error"]
    assert "check_seconds = 0.5" in graded[18]["grade"]["error"]

    alone = folder / "alone.jsonl"
    inputs = ("--task", folder / "task.py", "--traces", folder / "answers.jsonl", "--out", alone)
    apart("grade", *inputs)
    assert graded == read(alone)
