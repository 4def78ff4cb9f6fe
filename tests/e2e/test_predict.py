"""`offapi predict` as a user runs it, and from Python: documents in, answers out."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import tiny_llama
from pages import DOCS, blocks
from recipe_folder import TASK, Done, environment, offapi, start, told, write_jsonl

import offapi as package
from offapi.confidence import promise
from offapi.confidence.promise import AcceptedFrom, AnswersFrom, ConfidenceModel, FieldPromise
from offapi.confidence.signals import FEATURES
from offapi.data.documents import Document
from offapi.files.hashing import sha256_file
from offapi.models.store import Model
from offapi.predict.prediction import DocumentAnswer
from offapi.training.run import Run

RECIPE = """
recipe = "sft"
task = "task.py"
data = "train.jsonl"
model = "model"
out = "runs"
epochs = 1.0
[lora]
rank = 4
"""
SHOPS = ("Ash", "Birch", "Cedar", "Elm", "Fir", "Oak")


def documents(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [
        {"id": f"d{i}", "document": f"from {SHOPS[i % len(SHOPS)]}, no {i}"}
        for i in range(first, first + count)
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny trained run, with everything it was made from."""
    folder = tmp_path_factory.mktemp("trained")
    tiny_llama.write_chat(folder / "model")
    (folder / "task.py").write_text(TASK)
    (folder / "sft.toml").write_text(RECIPE)
    gold = [{**row, "gold": {"shop": row["document"].split()[1]}} for row in documents(4)]
    write_jsonl(folder / "train.jsonl", gold)
    done = offapi("train", "sft.toml", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def bench(trained: Path, tmp_path: Path) -> Path:
    """Return a folder with the run and its model, where nothing was answered yet."""
    folder = tmp_path / "bench"
    shutil.copytree(trained, folder)
    manifest = folder / "runs/sft/manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(os.fsencode(trained), os.fsencode(folder)))
    return folder


def predict(bench: Path, *words: str) -> Done:
    return offapi("predict", *words, cwd=bench)


def rows(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_documents_in_answers_out(bench: Path, backend_name: str) -> None:
    write_jsonl(bench / "docs.jsonl", documents(5))
    (bench / "inbox").mkdir()
    (bench / "inbox/a.txt").write_text("from Zoo")
    (bench / "inbox/b.pdf").write_bytes(b"%PDF-1.7")
    words = ("runs/sft", "docs.jsonl", "inbox", "--out=a.jsonl", "--csv=a.csv")
    totals = told(predict(bench, *words, "--json", f"--backend={backend_name}"))
    answers = rows(bench / "a.jsonl")
    assert [row["id"] for row in answers] == ["d0", "d1", "d2", "d3", "d4", "a.txt"]
    for row in answers:
        assert list(row)[:5] == ["id", "answer", "fields", "accepted", "error"]
        assert row["answer"] == {"shop": row["fields"]["shop"]["value"]}
        assert [row["accepted"], row["error"]] == [None, None]
        assert list(row["fields"]["shop"]) == ["value", "confidence", "evidence", "accepted"]
    assert [totals["documents"], totals["answered"], totals["asked"]] == [6, 6, 6]
    assert totals["adapter"]["sha256"] == sha256_file(
        bench / "runs/sft/adapter/adapter_model.safetensors"
    )
    assert totals["base"]["name"] == "model"
    assert len((bench / "a.csv").read_text().splitlines()) == 7
    again = predict(bench, *words, f"--backend={backend_name}")
    assert "6 documents, 0 to answer (6 answered before)." in again.stderr
    assert "1 file in inbox is not read: 1 .pdf." in again.stderr
    assert rows(bench / "a.jsonl") == answers


def test_both_backends_answer_alike(bench: Path) -> None:
    pytest.importorskip("mlx")
    pytest.importorskip("torch")
    write_jsonl(bench / "docs.jsonl", documents(6))
    for name in ("torch", "mlx"):
        done = predict(
            bench, "runs/sft", "docs.jsonl", f"--out={name}.jsonl", f"--backend={name}", "--signals"
        )
        assert done.returncode == 0, done.stderr
    torch, mlx = rows(bench / "torch.jsonl"), rows(bench / "mlx.jsonl")
    assert [row["answer"] for row in torch] == [row["answer"] for row in mlx]
    for one, other in zip(torch, mlx, strict=True):
        signals = [row["fields"]["shop"]["signals"] for row in (one, other)]
        for name in ("sum_logprob", "mean_logprob", "least_logprob", "margin"):
            assert signals[0][name] == pytest.approx(signals[1][name], abs=1e-3)
        assert signals[0]["agreement"] == signals[1]["agreement"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_call_loses_and_repeats_nothing(bench: Path, how: signal.Signals) -> None:
    write_jsonl(bench / "docs.jsonl", documents(300))
    words = ("predict", "runs/sft", "docs.jsonl", "--out=a.jsonl")
    part = bench / "a.jsonl.part"
    process = subprocess.Popen(start(*words), cwd=bench, env=environment(), stderr=subprocess.PIPE)
    try:
        wait_for_lines(part, 20, process)
    finally:
        process.send_signal(how)
        _, said = process.communicate()
    assert how == signal.SIGKILL or b"run the same command again to resume." in said
    assert not (bench / "a.jsonl").exists()
    kept = part.read_bytes().splitlines()
    assert 20 <= len(kept) < 300
    totals = told(offapi(*words, "--json", cwd=bench))
    assert totals["asked"] == 300 - len(kept)
    finished = (bench / "a.jsonl").read_bytes().splitlines()
    assert [orjson.loads(line)["id"] for line in finished] == [f"d{i}" for i in range(300)]
    assert set(kept) <= set(finished)
    assert not part.exists()


def wait_for_lines(path: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.01)
    raise AssertionError(f"{path} has no {count} lines (exit code {process.poll()})")


def test_shards_are_together_the_whole(bench: Path) -> None:
    write_jsonl(bench / "docs.jsonl", documents(20))
    words = ("runs/sft", "docs.jsonl", "--out=a.jsonl", "--limit=18")
    assert predict(bench, *words).returncode == 0
    for number in (1, 2, 3):
        done = predict(bench, *words, f"--shard={number}/3")
        assert done.returncode == 0, done.stderr
    parts = [line for i in (1, 2, 3) for line in rows(bench / f"a-{i}-of-3.jsonl")]
    whole = {row["id"]: row for row in rows(bench / "a.jsonl")}
    assert len(parts) == 18
    assert {row["id"]: row for row in parts} == whole


def test_what_answers_depend_on_must_stay(bench: Path) -> None:
    write_jsonl(bench / "docs.jsonl", documents(2))
    words = ("runs/sft", "docs.jsonl", "--out=a.jsonl")
    assert predict(bench, *words).returncode == 0
    refused = predict(bench, *words, "--constrain=off")
    assert refused.returncode == 2
    assert 'constrain = "schema", and it is "off" now' in refused.stderr
    (bench / "task.py").write_text(TASK.replace("Name the shop.", "Name it."))
    refused = predict(bench, *words)
    assert refused.returncode == 2
    assert "sha256.task" in refused.stderr
    assert "has changed since the run" in refused.stderr


def test_ids_are_unique_over_all_files(bench: Path) -> None:
    write_jsonl(bench / "one.jsonl", documents(3))
    write_jsonl(bench / "two.jsonl", documents(3, first=2))
    done = predict(bench, "runs/sft", "one.jsonl", "two.jsonl", "--out=a.jsonl")
    assert done.returncode == 1
    assert "id 'd2' was already used in one.jsonl, line 3." in done.stderr
    assert "where: two.jsonl, line 1" in done.stderr


def test_a_document_too_long_is_an_error_of_its_own(bench: Path) -> None:
    write_jsonl(bench / "docs.jsonl", [*documents(2), {"id": "long", "document": "x " * 3000}])
    done = predict(bench, "runs/sft", "docs.jsonl", "--out=a.jsonl", "--json")
    assert told(done)["errors"] == {"too long for the model": 1}
    last = rows(bench / "a.jsonl")[-1]
    assert [last["id"], last["answer"], last["fields"]] == ["long", None, {}]
    assert last["error"].startswith("too long for the model: ")
    shown = predict(bench, "runs/sft", "docs.jsonl", "--out=a.jsonl").stderr
    assert "1 error: too long for the model. Split those documents" in shown


def test_an_answer_that_is_cut_off_is_an_error(bench: Path) -> None:
    write_jsonl(bench / "docs.jsonl", documents(2))
    done = predict(bench, "runs/sft", "docs.jsonl", "--out=a.jsonl", "--constrain=off", "--json")
    assert told(done)["answered"] == 0
    assert [row["answer"] for row in rows(bench / "a.jsonl")] == [None, None]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("nothing", "docs.jsonl"), 2, "there is no run and no model 'nothing'."),
        (("model", "docs.jsonl"), 2, "Missing option '--task'"),
        (("runs/sft", "docs.jsonl", "--adapter=runs/sft/adapter"), 2, "with its own adapter"),
        (("runs/sft", "docs.jsonl", "--shard=3/2"), 2, "--shard must be I/N"),
        (("runs/sft", "docs.jsonl", "--csv=a.jsonl"), 2, "--csv and --out are one file."),
        (("runs/sft", "a.jsonl"), 2, "this command also reads that file."),
        (
            ("runs/sft", "docs.jsonl", "--constrain=off", "--candidates=2"),
            2,
            "several candidates need bound answers",
        ),
    ],
)
def test_mistakes_are_explained(bench: Path, words: tuple[str, ...], code: int, said: str) -> None:
    write_jsonl(bench / "docs.jsonl", documents(1))
    write_jsonl(bench / "a.jsonl", documents(1))
    if "a.jsonl" not in words:
        (bench / "a.jsonl").unlink()
    done = predict(bench, *words, "--out=a.jsonl")
    assert done.returncode == code, done.stderr
    assert said in done.stderr


def test_a_run_that_is_being_written_or_has_no_adapter_is_refused(bench: Path) -> None:
    write_jsonl(bench / "docs.jsonl", documents(1))
    words = ("runs/sft", "docs.jsonl", "--out=a.jsonl")
    holder = "import sys, time; from pathlib import Path; from offapi.training.run import Run\n"
    holder += "with Run(Path(sys.argv[1]).absolute()).alone():\n print('held', flush=True)\n"
    holder += " sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", holder, "runs/sft"],
        cwd=bench,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout
        process.stdout.readline()
        done = predict(bench, *words)
    finally:
        process.communicate()
    assert done.returncode == 1
    assert "is being written by process" in done.stderr
    shutil.rmtree(bench / "runs/sft/adapter")
    assert "the run has no adapter yet." in predict(bench, *words).stderr


def calibrate(bench: Path, *, constrain: str = "schema") -> None:
    """Write a calibration that is sure of what the model is sure of."""
    zeros = tuple(0.0 for _ in FEATURES)
    weights = tuple(float(name == "log_odds") for name in FEATURES)
    model = ConfidenceModel(FEATURES, zeros, tuple(1.0 for _ in FEATURES), weights, 3.0)
    accepts = AcceptedFrom(at=0.0, documents=100, accepted=80, wrong=0)
    never = replace(accepts, at=None, why_not="too few")
    made_for = AnswersFrom.of(
        bench / "model", bench / "runs/sft/adapter", bench / "task.py", constrain
    )
    given = promise.Promise(
        made_for=made_for,
        error=0.01,
        delta=0.05,
        fields={"shop": FieldPromise(model, accepts, never)},
        whole=never,
        made=promise.now(),
        data={},
    )
    promise.write(bench / "runs/sft" / promise.FILE, given)


def test_a_calibrated_run_says_how_sure_it_is(bench: Path) -> None:
    write_jsonl(bench / "docs.jsonl", documents(4))
    calibrate(bench)
    done = predict(bench, "runs/sft", "docs.jsonl", "--out=a.jsonl", "--json")
    totals = told(done)
    assert [totals["accepted"], totals["accepted_fields"]] == [0, {"shop": 4}]
    for row in rows(bench / "a.jsonl"):
        shop = row["fields"]["shop"]
        assert 0 < shop["confidence"] < 1
        assert [shop["accepted"], row["accepted"]] == [True, False]
        assert "signals" not in shop


def test_a_withdrawn_promise_accepts_nothing_aloud(bench: Path) -> None:
    write_jsonl(bench / "docs.jsonl", documents(1))
    calibrate(bench)
    promise.withdraw(bench / "runs/sft" / promise.FILE, "9 of 10 were wrong.")
    done = predict(bench, "runs/sft", "docs.jsonl", "--out=a.jsonl")
    assert "9 of 10 were wrong. Nothing is accepted." in done.stderr
    shop = rows(bench / "a.jsonl")[0]["fields"]["shop"]
    assert [shop["accepted"], shop["confidence"] is None] == [False, False]


def test_a_calibration_for_other_answers_gives_no_confidence(bench: Path) -> None:
    write_jsonl(bench / "docs.jsonl", documents(1))
    calibrate(bench)
    done = predict(bench, "runs/sft", "docs.jsonl", "--out=a.jsonl", "--constrain=off")
    assert "No confidence: " in done.stderr
    assert "constraint (constrain = 'schema', and now 'off')" in done.stderr
    assert rows(bench / "a.jsonl")[0]["accepted"] is None
    quotes = 'match={"shop": "text"}, bind=offapi.quote("shop")'
    (bench / "task.py").write_text(TASK.replace('match={"shop": "text"}', quotes))
    done = predict(bench, "runs/sft", "docs.jsonl", "--out=b.jsonl", "--candidates=2")
    assert done.returncode == 0, done.stderr
    assert "constrain = schema, as the run was calibrated. Every" in done.stderr
    assert "No confidence: The run was calibrated with one candidate." in done.stderr


def test_from_python(bench: Path, backend_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bench)  # where the run's base model is
    with package.open(bench / "runs/sft", backend=backend_name) as predictor:
        given: list[Any] = [
            "from Ash",
            Document("x", "from Elm"),
            {"id": 7, "document": "from Oak"},
        ]
        answers = predictor.predict(iter(given))
        first = next(answers)
        assert isinstance(first, DocumentAnswer)
        assert isinstance(first["shop"].value, str)
        assert [each.id for each in (first, *answers)] == ["1", "x", "7"]
        assert [each.answer for each in predictor.predict("from Ash")] == [first.answer]
        assert isinstance(predictor.chat("Hello", max_tokens=4), str)
        assert repr(predictor) == (
            f"<offapi predictor: 'sft', task 'letters', {backend_name}, loaded>"
        )
        html = replace(first, id="<b>")._repr_html_()
        assert "&lt;b&gt;" in html
        assert "<b>" not in html


def test_a_checkpoints_adapter_and_a_model_answer_too(bench: Path) -> None:
    write_jsonl(bench / "docs.jsonl", documents(1))
    run = Run.open(bench / "runs/sft")
    checkpoint = run.latest()
    assert checkpoint is not None
    done = predict(bench, "runs/sft/adapter", "docs.jsonl", "--out=a.jsonl")
    assert done.returncode == 0, done.stderr
    done = predict(
        bench,
        "model",
        "docs.jsonl",
        "--task=task.py",
        "--out=b.jsonl",
        "--adapter=runs/sft/adapter",
    )
    assert done.returncode == 0, done.stderr
    assert rows(bench / "a.jsonl") == rows(bench / "b.jsonl")
    done = predict(bench, "model", "docs.jsonl", "--task=task.py", "--out=c.jsonl", "--json")
    assert told(done)["adapter"] is None


FEWER = {"train.jsonl": 40, "val.jsonl": 4, "test.jsonl": 12}  # documents, to save time


def test_the_pages_walk_on_the_demo_model(
    demo_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run docs/predict.md as it stands, with one epoch for two and fewer documents."""
    monkeypatch.chdir(tmp_path)
    page = list(blocks(DOCS / "predict.md"))
    walk = next(block for block in page if block.language == "sh")
    for words in walk.commands:
        shorter = ("--set", "epochs=1") if words[1] == "train" else ()
        done = offapi(*words[1:], *shorter)
        assert done.returncode == 0, done.stderr
        if words[1] == "init":
            for name, count in FEWER.items():
                lines = (tmp_path / "my-task" / name).read_bytes().splitlines(keepends=True)
                (tmp_path / "my-task" / name).write_bytes(b"".join(lines[:count]))
    tests = rows(tmp_path / "my-task/test.jsonl")
    answers = rows(tmp_path / "answers.jsonl")
    assert [row["id"] for row in answers] == [row["id"] for row in tests]
    for row, given in zip(answers, tests, strict=True):
        for name, field in row["fields"].items():
            start, end = field["evidence"] or (0, 0)
            printed = given["document"][start:end]
            assert field["evidence"] is None or printed.strip() == printed != "", name
    right = sum(row["answer"] == given["gold"] for row, given in zip(answers, tests, strict=True))
    assert right > 0
    snippet = next(block for block in page if block.language == "python")
    shown = io.StringIO()
    with redirect_stdout(shown):
        exec(compile(snippet.text, "predict.md", "exec"), {})
    assert "(" in shown.getvalue()  # a place in the document
