"""`offapi eval` as a user runs it: scored, sampled and compared models, and mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import tiny_llama
from recipe_folder import TASK, Done, apart, environment, offapi, told, write_jsonl

from offapi.chat.chat import Chat
from offapi.task import load_task

RECIPE = """
recipe = "sft"
task = "task.py"
data = "val.jsonl"
model = "model"
out = "runs"
epochs = 1.0
[lora]
rank = 4
"""
SHOPS = ("Ash", "Birch", "Cedar", "Elm", "Fir", "Oak")


def documents(count: int, wrong: int = 0) -> list[dict[str, Any]]:
    """Return documents with gold; the first `wrong` recorded labels differ from it."""
    golds = [{"shop": shop} for shop in SHOPS[:count]]
    labels = [{"shop": "Nowhere"}] * wrong + golds[wrong:]
    return [
        {"id": f"d{i}", "document": f"from {gold['shop']}", "gold": gold, "recorded_label": label}
        for i, (gold, label) in enumerate(zip(golds, labels, strict=True))
    ]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny trained run, with everything it was made from."""
    folder = tmp_path_factory.mktemp("bench")
    tiny_llama.write_chat(folder / "model")
    (folder / "task.py").write_text(TASK)
    (folder / "sft.toml").write_text(RECIPE)
    write_jsonl(folder / "val.jsonl", documents(4))
    done = offapi("train", "sft.toml", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def on(bench: Path, *words: str) -> Done:
    """Run `offapi eval` on the tiny model and its documents, with `words`."""
    return offapi("eval", "--task=task.py", "--data=val.jsonl", "--model=model", *words, cwd=bench)


def predictions(path: Path, wrong: set[int], ids: range = range(40), **more: Any) -> Path:
    """Write a predictions file with one shop per document, wrong in some."""
    rows = [
        {
            "id": f"d{i}",
            "output": "{}",
            "value": {},
            "correct": {"shop": i not in wrong},
            "gold": {"shop": "Ash"},
            **more,
        }
        for i in ids
    ]
    return write_jsonl(path, rows)


def test_scoring_an_adapter_is_counted_in_its_run(bench: Path) -> None:
    first = told(on(bench, "--adapter=runs/sft/adapter", "--json"))
    measured = ["seconds", "prompt_tokens", "completion_tokens"]
    kept = ["n", "mean", "all_fields", "fields", "answers", "nulls"]
    assert list(first) == [*kept, *measured, "scored"]
    again = on(bench, "--adapter=runs/sft/adapter")
    count = first["scored"] + 1
    assert (
        f"This test set has now been scored {count} times for this run. Choose between models"
        in again.stderr
    )
    manifest = orjson.loads((bench / "runs/sft/manifest.json").read_bytes())
    assert manifest["scored"][-1]["n"] == 4
    assert [attempt["outcome"] for attempt in manifest["attempts"]] == ["finished"]
    assert "scored" not in told(on(bench, "--json")), "no run trained the bare model"


def test_the_time_and_tokens_of_all_answers_are_reported(bench: Path) -> None:
    """The tiny tokenizer's tokens are bytes; the end of an answer is one more."""
    one, four = (told(on(bench, f"--limit={n}", f"--out=took{n}.jsonl", "--json")) for n in (1, 4))
    chat, task = Chat.load(bench / "model"), load_task(bench / "task.py")
    asked = [len(chat.prompt(task.messages(row["document"]))) for row in documents(4)]
    assert (one["prompt_tokens"], four["prompt_tokens"]) == (asked[0], sum(asked))
    assert 0 < one["completion_tokens"] <= task.max_answer_tokens
    assert one["completion_tokens"] < four["completion_tokens"] <= 4 * task.max_answer_tokens
    assert 0 < four["seconds"] < 60


def test_sampled_answers_are_scored(bench: Path) -> None:
    found = told(on(bench, "--samples=3", "--limit=2", "--out=s.jsonl", "--json"))
    assert (found["n"], found["samples"], found["temperature"]) == (2, 3, 1.0)
    assert list(found["pass@k"]) == ["1", "2", "3"]
    rows = [orjson.loads(line) for line in (bench / "s.jsonl").read_bytes().splitlines()]
    assert [(row["id"], row["sample"]) for row in rows] == [
        (f"d{i}", k) for i in (0, 1) for k in range(3)
    ]
    assert len({row["output"] for row in rows}) > 1, "they are sampled"
    again = told(on(bench, "--samples=3", "--limit=2", "--out=s2.jsonl", "--json"))
    assert {**again, "seconds": 0} == {**found, "seconds": 0}
    assert (bench / "s2.jsonl").read_bytes() == (bench / "s.jsonl").read_bytes(), (
        "the seed is fixed"
    )


def test_the_last_turn_of_a_trace_is_compared(bench: Path) -> None:
    """The recorded turns are the prompt; `--against recorded` compares with their answer."""
    turns = [
        ("system", "Name the shop."),
        ("user", "from Ash"),
        ("assistant", "{}"),
        ("user", "again"),
    ]
    messages = [{"role": role, "content": text} for role, text in turns]
    rows = [
        {
            "id": f"t{i}",
            "group": f"g{i // 2}",
            "gold": {"shop": "Ash"},
            "messages": [*messages, {"role": "assistant", "content": '{"shop":"Ash"}'}],
        }
        for i in range(4)
    ]
    data = write_jsonl(bench / "traces.jsonl", rows)
    found = told(on(bench, f"--data={data}", "--out=t.jsonl", "--against=recorded", "--json"))
    assert (found["n"], found["against"]["units"], found["against"]["B"]) == (4, 2, "recorded")
    assert found["against"]["all_fields"]["b"]["mean"] == 1.0
    row = orjson.loads((bench / "t.jsonl").read_bytes().splitlines()[0])
    assert row["group"] == "g0"
    assert on(bench, f"--data={data}", "--shots=1").returncode == 2


def test_two_files_are_compared_and_no_model_is_loaded(bench: Path) -> None:
    a, b = predictions(bench / "a.jsonl", {1}), predictions(bench / "b.jsonl", set(range(12)))
    found = told(offapi("eval", str(a), "--against", str(b), "--json", cwd=bench))
    assert (found["A"], found["B"], found["n"], found["margin"]) == (str(a), str(b), 40, 0.05)
    assert found["fields"]["shop"]["verdict"] == "A is better"
    assert (found["all_fields"]["only_a"], found["all_fields"]["only_b"]) == (11, 0)
    people = offapi("eval", str(a), "--against", str(b), "--margin=0.1", cwd=bench)
    assert people.stdout == ""
    assert "Can A replace B, if a loss of up to 10.0 points is acceptable?" in people.stderr


def test_the_installed_command_compares_without_a_backend(bench: Path) -> None:
    a, b = predictions(bench / "a.jsonl", {1}), predictions(bench / "b.jsonl", {2})
    done = apart("eval", a, "--against", b, "--json", env=environment(PYTHONPROFILEIMPORTTIME="1"))
    assert told(done)["all_fields"]["p"] == 1.0
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "scipy.stats" in imported
    assert not imported & {"torch", "mlx.core", "transformers"}


def test_a_file_against_the_recorded_answers(bench: Path) -> None:
    rows = documents(6, wrong=2)
    rows[5]["recorded_label"] = None
    data = write_jsonl(bench / "recorded.jsonl", rows)
    answers = [
        {
            "id": row["id"],
            "output": "",
            "value": None,
            "correct": {"shop": True},
            "gold": row["gold"],
        }
        for row in rows
    ]
    a = write_jsonl(bench / "mine.jsonl", answers)
    words = ["eval", str(a), "--against=recorded", "--task=task.py", f"--data={data}"]
    done = offapi(*words, cwd=bench)
    assert "1 of 6 documents has no recorded answer: counted as wrong" in done.stderr
    found = told(offapi(*words, "--json", cwd=bench))
    assert (found["all_fields"]["b"]["mean"], found["not_recorded"]) == (0.5, 1)
    found = told(offapi(*words, "--common", "--json", cwd=bench))
    assert (found["n"], found["all_fields"]["b"]["mean"]) == (5, 0.6)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "Missing option '--task'"),
        (["--task=task.py"], 2, "Missing option '--data'"),
        (["a.jsonl"], 2, "add --against"),
        (["a.jsonl", "--against=recorded"], 2, "Missing option '--task'"),
        (["a.jsonl", "--against=b.jsonl", "--adapter=x"], 2, "--adapter has no effect"),
        (["a.jsonl", "--against=b.jsonl", "--data=val.jsonl"], 2, "--data has no effect"),
        (["a.jsonl", "--against=b.jsonl", "--margin=5"], 2, "--margin"),
        (["--task=task.py", "--data=val.jsonl", "--common"], 2, "--common has no effect"),
        (
            ["--task=task.py", "--data=val.jsonl", "--samples=2", "--temperature=0"],
            2,
            "all samples are the same",
        ),
        (
            ["--task=task.py", "--data=val.jsonl", "--samples=2", "--against=b.jsonl"],
            2,
            "sampled answers",
        ),
        (
            ["--task=task.py", "--data=val.jsonl", "--out=b.jsonl", "--against=b.jsonl"],
            2,
            "also reads that file",
        ),
        (["--task=task.py", "--data=val.jsonl", "--out=task.py"], 2, "also reads that file"),
        (
            ["--task=task.py", "--data=val.jsonl", "--out=no/p.jsonl"],
            2,
            "the folder does not exist",
        ),
        (
            ["--task=task.py", "--data=val.jsonl", "--model=model", "--against=b.jsonl"],
            1,
            "not the same documents",
        ),
        (["a.jsonl", "--against=none.jsonl"], 1, "No such file"),
        (["a.jsonl", "--against=val.jsonl"], 1, "'correct' is missing"),
        (["a.jsonl", "--against=few.jsonl"], 1, "only in A: 'd1', 'd2', 'd3' and 36 more"),
        (["a.jsonl", "--against=sampled.jsonl"], 1, "B holds sampled answers"),
    ],
)
def test_mistakes_are_reported_and_nothing_is_written(
    bench: Path, words: list[str], code: int, message: str
) -> None:
    predictions(bench / "a.jsonl", {1})
    predictions(bench / "b.jsonl", set())
    predictions(bench / "few.jsonl", set(), range(1))
    predictions(bench / "sampled.jsonl", set(), sample=0)
    before = {path: path.stat().st_mtime_ns for path in bench.iterdir()}
    done = offapi("eval", *words, "--json", cwd=bench)
    assert (done.returncode, done.stdout) == (code, "")
    error = orjson.loads(done.stderr)
    assert message in error["message"]
    assert error["next"]
    assert {path: path.stat().st_mtime_ns for path in bench.iterdir()} == before


def test_a_run_that_cannot_be_written_is_scored_uncounted(bench: Path, tmp_path: Path) -> None:
    from offapi.evaluation import test_set
    from offapi.files.lock import CannotLock
    from offapi.training.run import Run

    run = Run.create(tmp_path, "read", {})
    (run.path / ".lock").mkdir()  # as unwritable as a read-only disk, also to root
    with pytest.raises(CannotLock):
        test_set.count_scoring(run, bench / "val.jsonl", 1)
    (run.path / "adapter").mkdir()
    for file in (bench / "runs/sft/adapter").iterdir():
        (run.path / "adapter" / file.name).write_bytes(file.read_bytes())
    done = on(bench, f"--adapter={run.path / 'adapter'}", "--limit=1", "--json")
    assert "scored" not in told(done)
