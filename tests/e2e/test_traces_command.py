"""`offapi traces import` as a user runs it: its output, resuming, and --strict."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from recipe_folder import Done, apart, start, until

SAMPLES = Path(__file__).parents[1] / "samples" / "traces"
TIMEOUT = 60  # seconds


def imported(*words: object) -> Done:
    return apart("traces", "import", *words)


def test_every_row_is_accounted_for(tmp_path: Path) -> None:
    source, out = SAMPLES / "openai_ft.jsonl", tmp_path / "traces.jsonl"
    done = imported("openai-ft", source, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["read"] == len(source.read_text().splitlines())
    assert result["usable"] == len(out.read_text().splitlines()) > 0
    assert result["read"] == result["usable"] + sum(result["dropped"].values())


def test_a_batch_says_how_its_requests_and_results_make_rows(tmp_path: Path) -> None:
    names = [SAMPLES / f"openai_batch_{name}.jsonl" for name in ("input", "output")]
    done = imported("openai", *names, "--out", tmp_path / "traces.jsonl")
    assert done.returncode == 0, done.stderr
    assert "5 rows read, 2 usable, 3 dropped." in done.stderr
    assert "2 requests are stored apart from the results: 7 requests and results" in done.stderr


def test_known_answers_become_documents_and_are_said_to_be(tmp_path: Path) -> None:
    source, out = tmp_path / "rft.jsonl", tmp_path / "out.jsonl"
    row = {"messages": [{"role": "user", "content": "Foo Ltd"}], "reference_answer": {"total": 1.5}}
    source.write_text(json.dumps(row))
    done = imported("openai-ft", source, "--out", out)
    assert "Documents with a known answer (gold) and no model's answer: 1." in done.stderr
    assert json.loads(out.read_text())["gold"] == {"total": 1.5}
    again = imported("openai-ft", source, "--out", tmp_path / "again.jsonl", "--json")
    assert json.loads(again.stdout)["documents"] == 1


def test_no_escape_in_a_file_name_or_a_key_reaches_the_terminal(tmp_path: Path) -> None:
    source, out = tmp_path / "a\x1b[2Jb.jsonl", tmp_path / "out.jsonl"
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    source.write_text(json.dumps({"messages": chat}) + "\n" + json.dumps({"x\x1b[2Jy": 1}))
    done = imported("openai-ft", source, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "a [2Jb.jsonl:2" in done.stderr
    assert "x [2Jy" in done.stderr
    assert "\x1b" not in done.stderr


def rows(path: Path, count: int) -> Path:
    with path.open("w") as file:
        for i in range(count):
            asked = {"role": "user", "content": f"document {i} " + "word " * 60}
            file.write(
                json.dumps({"messages": [asked, {"role": "assistant", "content": f'{{"n": {i}}}'}]})
                + "\n"
            )
    return path


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_it_resumes_to_the_same_bytes(tmp_path: Path, number: signal.Signals) -> None:
    source = rows(tmp_path / "log.jsonl", 100_000)
    straight, broken = tmp_path / "straight.jsonl", tmp_path / "broken.jsonl"
    assert imported("openai-ft", source, "--out", straight).returncode == 0
    words = start("traces", "import", "openai-ft", source, "--out", broken)
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    journal = tmp_path / "broken.jsonl.part.json"
    until(lambda: process.poll() is not None or journal.exists())
    if number == signal.SIGKILL:
        os.killpg(process.pid, number)
    process.send_signal(
        number
    )  # a scheduler ends the command alone; its workers are its own affair
    _, errors = process.communicate(timeout=TIMEOUT)
    wanted = -number if number == signal.SIGKILL else 130
    assert process.returncode == wanted, "it was over before it could be ended"
    assert ("interrupted" in errors) == (number == signal.SIGTERM)
    assert not broken.exists(), "half a file under its name"
    again = imported("openai-ft", source, "--out", broken, "--json")
    assert again.returncode == 0, again.stderr
    assert broken.read_bytes() == straight.read_bytes()
    assert json.loads(again.stdout)["read"] == 100_000
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "broken.jsonl",
        "log.jsonl",
        "straight.jsonl",
    ]


@pytest.mark.parametrize("format", ["openai-ft", "anthropic"])
def test_strict_names_the_row_and_writes_nothing(tmp_path: Path, format: str) -> None:
    source = tmp_path / "log.jsonl"
    source.write_text(
        '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content":'
        ' "a"}]}\n{"mess\n'
    )
    done = imported(format, source, "--out", tmp_path / "out.jsonl", "--strict", "--json")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "log.jsonl, line" in json.loads(done.stderr)["message"]
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]
