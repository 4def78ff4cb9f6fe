"""Serve, keep the answers, grade them, train on the best, evaluate, serve again."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from recipe_folder import lay_out, offapi, rows, told, until
from serving import Served, serving

from offapi.data import traces
from offapi.files.capture_file import NAME
from offapi.files.jsonl import read as read_rows

QUESTION: Any = [{"role": "user", "content": "from Gone"}]
KNOWN = 6  # documents that the first student answers right


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a student that knows a few documents by heart, and no others."""
    folder = tmp_path_factory.mktemp("loop") / "work"
    recipe = lay_out(folder, count=KNOWN, epochs=40.0, lr=2e-2, checkpoint_every=1000)
    done = offapi("train", str(recipe), "--set", "name=student")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of it to work in."""
    folder = tmp_path / "work"
    shutil.copytree(trained, folder)
    manifest = folder / "runs/student/manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(os.fsencode(trained), os.fsencode(folder)))
    monkeypatch.chdir(folder)
    return folder


def ask(server: Served, document: str, model: str = "student", **options: Any) -> str:
    """Ask for a document's answer, as an application that knows the task's instructions does."""
    messages: Any = [
        {"role": "system", "content": "Name the shop."},
        {"role": "user", "content": document},
    ]
    ask = server.client().chat.completions.create
    answer: Any = ask(model=model, messages=messages, **options)
    if not options.get("stream"):
        return str(answer.choices[0].message.content)
    return "".join(each.choices[0].delta.content or "" for each in answer if each.choices)


def test_from_served_answers_to_a_served_student(folder: Path, backend_name: str) -> None:
    backend, documents = f"--backend={backend_name}", rows(12)
    with serving("runs/student", "--traces", "kept", backend) as server:
        said = [
            ask(server, each["document"], stream=i % 2 == 1) for i, each in enumerate(documents)
        ]
        assert ask(server, "from nobody", store=False, max_tokens=4)
        assert len(traces.read(folder / "kept")) == 12  # committed before it is sent
        server.end(signal.SIGKILL)
    kept = traces.read(folder / "kept")
    assert [each.answer for each in kept] == said
    assert all("shop" in (each.source or {})["fields"] for each in kept)
    assert [each.document for each in kept] == [each["document"] for each in documents]

    grading = told(
        offapi("grade", "--task=task.py", "--traces=kept", "--kept=best.jsonl", "--json")
    )
    recipe = (folder / "sft.toml").read_text().replace('recipe = "sft"', 'recipe = "filtered_sft"')
    recipe = recipe.replace('data = "train.jsonl"', 'traces = "kept"\ncontrol = false')
    (folder / "loop.toml").write_text(recipe.replace('val = "val.jsonl"\n', ""))
    done = offapi("train", "loop.toml", backend, "--set", "name=second")
    assert done.returncode == 0, done.stderr
    learned = [row.id for row in kept if row.document in {d["document"] for d in documents[:KNOWN]}]
    assert {row.id for row in read_rows(folder / "best.jsonl")} >= set(learned)
    assert KNOWN <= grading["kept"] < 12
    scored = told(
        offapi("eval", "--adapter=runs/second/adapter", "--model=model", "--task=task.py",
               "--data=train.jsonl", backend, "--json")
    )  # fmt: skip
    assert (scored["n"], scored["mean"]) == (KNOWN, 1.0)
    with serving("runs/second", "--traces", "kept", backend) as server:
        assert [ask(server, each["document"], "second") for each in documents[:KNOWN]] == said[
            :KNOWN
        ]
        assert server.end(signal.SIGTERM) == 0
    assert len(traces.read(folder / "kept")) == 12 + KNOWN


def test_what_is_kept_and_what_is_not(folder: Path) -> None:
    kept = folder / "kept"
    with serving("runs/student", "--traces", "kept") as server:
        options: dict[str, Any] = {"n": 2, "temperature": 1.0, "max_tokens": 9, "seed": 1}
        ask(server, "from Both", user="Jane-Doe", metadata={"customer": "Jane-Doe"}, **options)
        ask(server, "from Cut", max_tokens=2)
        half = server.client().chat.completions.create(
            model="student", messages=QUESTION, stream=True, max_tokens=2000
        )
        next(iter(half))
        half.close()
        with closing(sqlite3.connect(kept / NAME, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            said = [ask(server, f"from Locked{i}", max_tokens=9) for i in range(8)]
            assert time.monotonic() - began < 4
            other.execute("ROLLBACK")
        until(lambda: len(traces.read(kept)) >= 11)
        rows = traces.read(kept)
        assert [row.answer for row in rows[3:]] == said
        assert rows[0].group == rows[1].group != rows[2].group
        assert (rows[1].id, rows[1].cut_off, rows[2].cut_off) == (f"{rows[0].id}-1", True, True)
        source = rows[0].source
        assert source is not None
        assert source["params"] == {**options}
        assert source["adapter"]["name"] == "student"
        assert not [path for path in kept.iterdir() if b"Jane" in path.read_bytes()]
        assert [path for path in kept.iterdir() if b"from Both" in path.read_bytes()]
        done = offapi("traces", "purge", "kept", "--id", rows[0].id)
        assert "Removed 2 answers; 9 left." in done.stderr
        assert not [path for path in kept.iterdir() if b"from Both" in path.read_bytes()]
        ask(server, "from Last", max_tokens=4)
        assert server.metric("offapi_lost_traces") == 0
        assert server.end(signal.SIGTERM) == 0
    assert len(traces.read(kept)) == 10
    assert server.log.count("kept in kept for 30 days") == 1
