"""What the recipes train on, from which prompt, at which rate, with which optimizer and loss."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import bigram_llama
import grpo_signal
import numpy as np
import orjson
import pytest
import recipe_folder
from recipe_folder import offapi
from watched_backend import Noted, watch_backends

from offapi import Example, Task
from offapi.backend import load
from offapi.chat.chat import Chat
from offapi.checks import is_json
from offapi.cli.output import Output
from offapi.data.documents import Document
from offapi.episodes import Episode
from offapi.evaluation.predict import predict
from offapi.model_spec import LoraSpec, ModelSpec
from offapi.optimizer import AdamW
from offapi.task import load_task
from offapi.teachers.labels_file import Label, read_labels
from offapi.teachers.teacher import Request, Usage

OPTIMIZER = "\n[optimizer]\nweight_decay = 0.125\nbeta1 = 0.75\nmax_grad_norm = 0.5\n"
ADAMW = AdamW(weight_decay=0.125, beta1=0.75, max_grad_norm=0.5)
EXAMPLES = 'examples=(offapi.Example("an example text", {"shop": "Sample"}),) * 2,\n    max_answer'


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> Noted:
    return watch_backends(monkeypatch)


def lay_out(folder: Path, name: str, **keys: Any) -> Path:
    """Lay out a run with an optimizer of its own, and a task with worked examples."""
    recipe = recipe_folder.lay_out(folder, name, **keys)
    recipe.write_text(recipe.read_text() + OPTIMIZER)
    task = folder / "task.py"
    task.write_text(task.read_text().replace("max_answer", EXAMPLES))
    return recipe


def train(recipe: Path, *words: str) -> None:
    done = offapi("train", str(recipe), *words)
    assert done.returncode == 0, done.stderr


def ids(batches: list[list[Episode]]) -> list[str]:
    return [episode.id for batch in batches for episode in batch]


def decoded(folder: Path, episode: Episode) -> tuple[str, str]:
    """Return what an episode gives, and what it learns."""
    chat = Chat.load(folder / "model")
    given = [
        token for token, learned in zip(episode.tokens, episode.mask, strict=True) if not learned
    ]
    learned = [token for token, kept in zip(episode.tokens, episode.mask, strict=True) if kept]
    return chat.decode(given), chat.decode(learned)


def triangle(lr: float, warmup: int, steps: int) -> list[float]:
    """Return a rate that warms up over `warmup` steps while it falls to 0 over all of them."""
    return [lr * min(1.0, (i + 1) / (warmup + 1)) * (1 - i / steps) for i in range(steps)]


def test_each_epoch_learns_every_row_once_in_an_order_of_its_own(
    tmp_path: Path, noted: Noted
) -> None:
    train(lay_out(tmp_path, "sft", epochs=3.0))
    rows = [f"d{i}" for i in range(10)]
    assert [len(batch) for batch in noted.batches] == [2] * 15
    epochs = [ids(noted.batches[at : at + 5]) for at in (0, 5, 10)]
    assert [sorted(epoch) for epoch in epochs] == [rows] * 3
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    first = ids(noted.batches)
    noted.batches.clear()
    train(tmp_path / "sft.toml", "--set", "seed=1", "--set", "name=other")
    assert sorted(ids(noted.batches)) == sorted(first)
    assert ids(noted.batches) != first


def test_the_rate_warms_up_and_falls_and_the_optimizer_is_the_recipes(
    tmp_path: Path, noted: Noted
) -> None:
    train(lay_out(tmp_path, "sft", warmup_steps=2, lr=0.03))
    assert noted.rates == pytest.approx(triangle(0.03, 2, 10))
    assert {optimizer for _, optimizer in noted.steps} == {ADAMW}
    logged = [line["lr"] for line in recipe_folder.metrics(tmp_path / "runs" / "sft")]
    assert logged == noted.rates


def test_the_student_is_loaded_as_the_recipe_says(tmp_path: Path, noted: Noted) -> None:
    recipe = lay_out(tmp_path, "sft", epochs=0.5, seed=7, dtype="bfloat16", device="cpu")
    train(recipe, "--set", "limits.train_tokens=300")
    (spec,) = noted.specs
    assert spec.path == tmp_path / "model"
    assert spec.lora == LoraSpec(rank=4, alpha=8.0)
    assert (spec.seed, spec.dtype, spec.device, spec.adapter) == (7, "bfloat16", "cpu", None)
    assert spec.limits.train_tokens == 300


@pytest.mark.parametrize("name", ["sft", "distill", "filtered_sft"])
def test_a_student_learns_the_answer_alone_from_a_prompt_without_examples(
    tmp_path: Path, noted: Noted, name: str
) -> None:
    keys = {"teacher": "recorded"} if name == "distill" else {}
    recipe = lay_out(tmp_path, name, epochs=1.0, **keys)
    if name == "filtered_sft":
        text = recipe.read_text().replace('data = "train.jsonl"', 'traces = "train.jsonl"')
        recipe.write_text(text.replace("lr =", "control = false\nlr ="))
    train(recipe)
    assert sorted(ids(noted.batches)) == [f"d{i}" for i in range(10)]
    by_id = {episode.id: episode for batch in noted.batches for episode in batch}
    for row in recipe_folder.rows(10):
        given, learned = decoded(tmp_path, by_id[row["id"]])
        assert learned == orjson.dumps(row["gold"]).decode()
        assert "Name the shop." in given
        assert row["document"] in given
        assert "an example text" not in given
        assert given.count("from ") == 1


def test_scoring_asks_without_examples_too(tmp_path: Path, noted: Noted) -> None:
    train(lay_out(tmp_path, "sft", epochs=0.5))
    ((prompts, n, sampling),) = noted.rollouts
    assert (len(prompts), n, sampling.temperature, sampling.max_tokens) == (4, 1, 0.0, 20)
    chat = Chat.load(tmp_path / "model")
    texts = [chat.decode(prompt) for prompt in prompts]
    assert all("an example text" not in text for text in texts)
    documents = [row["document"] for row in recipe_folder.rows(24)[20:]]
    assert all(document in text for document, text in zip(documents, texts, strict=True))


def test_what_is_too_long_is_dropped_where_the_recipe_says_so(tmp_path: Path, noted: Noted) -> None:
    recipe = lay_out(tmp_path, "sft", epochs=1.0, on_long="drop", max_tokens=120)
    rows = recipe_folder.rows(10)
    rows[3]["document"] += " and so on" * 20
    recipe_folder.write_jsonl(tmp_path / "train.jsonl", rows)
    train(recipe)
    assert sorted(ids(noted.batches)) == [f"d{i}" for i in range(10) if i != 3]


def test_checkpoints_come_as_often_as_asked(tmp_path: Path) -> None:
    train(lay_out(tmp_path, "sft", epochs=1.0, checkpoint_every=3))
    names = [path.name for path in (tmp_path / "runs/sft/checkpoints").iterdir()]
    assert sorted(names) == ["step-000003", "step-000005"]


def test_a_failed_label_is_not_learned(tmp_path: Path, noted: Noted) -> None:
    recipe = lay_out(tmp_path, "distill", epochs=1.0, labels="labels.jsonl")
    lines = []
    for row in recipe_folder.rows(10):
        output = orjson.dumps(row["recorded_label"]).decode()
        reason = "truncated" if row["id"] in ("d2", "d7") else ""
        status = "failed" if reason else "ok"
        lines.append(Label(row["id"], output, status, Usage(), 0.0, "t", "p", reason).line())  # type: ignore[arg-type]
    (tmp_path / "labels.jsonl").write_bytes(b"".join(lines))
    train(recipe)
    assert sorted(ids(noted.batches)) == [f"d{i}" for i in range(10) if i not in (2, 7)]


@pytest.mark.parametrize("shots", [None, 0, 1])
def test_a_teacher_sees_as_many_examples_as_asked(tmp_path: Path, shots: int | None) -> None:
    keys = {} if shots is None else {"shots": shots}
    recipe = lay_out(tmp_path, "distill", count=2, teacher="recorded", **keys)
    model = orjson.loads(recipe.read_text().split("model = ")[1].split("\n")[0])
    recipe.write_text(recipe.read_text().replace('"recorded"', f'"local:{model}"'))
    offapi("train", str(recipe))  # the random model answers nothing that is kept
    task = load_task(tmp_path / "task.py")
    hashes = {
        Request(
            "", tuple(task.messages(row["document"], 2 if shots is None else shots))
        ).prompt_sha256
        for row in recipe_folder.rows(2)
    }
    labels = read_labels(tmp_path / "runs/distill/labels.jsonl").labels
    assert {label.prompt_sha256 for label in labels} == hashes


def logged_chats(folder: Path, **keys: Any) -> Path:
    """Lay out filtered_sft on chats with thinking, learned as they are; d0 and d1 are wrong."""
    recipe = lay_out(folder, "filtered_sft", epochs=1.0, prompt="trace", **keys)
    recipe.write_text(recipe.read_text().replace('data = "train.jsonl"', 'traces = "train.jsonl"'))
    chats = []
    for row in recipe_folder.rows(10, wrong=2):
        answer = orjson.dumps(row["recorded_label"]).decode()
        messages = [
            {"role": "user", "content": row["document"]},
            {"role": "assistant", "content": f"<think>Look: {row['id']}.</think>\n{answer}"},
        ]
        chats.append({"id": row["id"], "messages": messages})
    recipe_folder.write_jsonl(folder / "train.jsonl", chats)
    return recipe


@pytest.mark.parametrize("thinking", ["keep", "drop"])
def test_thinking_is_learned_where_the_recipe_keeps_it(
    tmp_path: Path, noted: Noted, thinking: str
) -> None:
    train(logged_chats(tmp_path, thinking=thinking, control=False))
    learned = [decoded(tmp_path, episode) for batch in noted.batches for episode in batch]
    assert len(learned) == 8
    assert {"<think>" in text for _, text in learned} == {thinking == "keep"}
    assert {"Name the shop." in given for given, _ in learned} == {False}


def test_the_control_learns_as_many_rows_whatever_their_grades(
    tmp_path: Path, noted: Noted
) -> None:
    chosen = []
    for seed in range(4):
        noted.batches.clear()
        train(logged_chats(tmp_path / str(seed), seed=seed))
        graded, control = ids(noted.batches[:4]), ids(noted.batches[4:])
        assert sorted(graded) == [f"d{i}" for i in range(2, 10)]
        assert len(set(control)) == len(control) == 8
        chosen.append(frozenset(control))
    assert len(set(chosen)) > 1
    assert any(rows & {"d0", "d1"} for rows in chosen)


@pytest.mark.parametrize(("piece", "cut"), [("done", False), ("∞", True)])
def test_an_answer_at_the_token_limit_is_counted_as_cut(
    tmp_path: Path, backend_name: str, piece: str, cut: bool
) -> None:
    folder = bigram_llama.write(tmp_path / "model", {"x": ["so ", piece]})
    task = Task(
        name="t",
        instructions="Answer.",
        schema={"type": "object", "properties": {"a": {"type": "string"}}},
        checks={"json": (is_json, 1.0)},
        match={"a": "text"},
        examples=(Example("x", {"a": "x"}),),
        max_answer_tokens=6,
    )
    student = load(backend_name, ModelSpec(path=folder, device="cpu"))
    rows = [Document("a", "ax"), Document("b", "bx")]
    answers = predict(student, Chat.load(folder), task, rows, Output(json=True))
    student.close()
    assert answers.truncated == (cut, cut)
    assert answers.completion_tokens == (12 if cut else 6)


GRPO = {
    "allow": ["cut", "learned", "hacking", "signal"],
    "num_iterations": 3,
    "max_resamples": 0,
    "temperature": 0.75,
    "top_k": 60,
    "top_p": 0.95,
    "min_p": 0.001,
    "seed": 5,
    "warmup_steps": 2,
    "epochs": 2.0,
    "loss": {"rule": "grpo", "beta": 0.01, "epsilon": 0.15},
}


@pytest.fixture(scope="module")
def grpo_noted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Noted]:
    """Return a GRPO run's folder, and what it asked of its backend."""
    folder = tmp_path_factory.mktemp("grpo")
    loss = "\n".join(
        f"{key} = {orjson.dumps(value).decode()}" for key, value in GRPO["loss"].items()
    )  # type: ignore[attr-defined]
    keys = {key: value for key, value in GRPO.items() if key != "loss"}
    recipe = grpo_signal.lay_out(folder, **keys)
    recipe.write_text(f"{recipe.read_text()}{OPTIMIZER}\n[loss]\n{loss}\n")
    with pytest.MonkeyPatch.context() as patch:
        noted = watch_backends(patch)
        train(recipe)
    return folder, noted


def test_grpo_steps_at_the_recipes_rate_with_its_optimizer(
    grpo_noted: tuple[Path, Noted],
) -> None:
    folder, noted = grpo_noted
    steps = [line for line in recipe_folder.metrics(folder / "runs/grpo") if "lr" in line]
    rates = {line["step"]: line["lr"] for line in steps}
    expected = dict(enumerate(triangle(0.02, 2, 10), start=1))
    assert len(rates) >= 5
    assert rates == pytest.approx({step: expected[step] for step in rates})
    assert noted.rates == [lr for lr in rates.values() for _ in range(3)]
    assert {optimizer for _, optimizer in noted.steps} == {ADAMW}


def test_grpo_samples_and_scores_as_the_recipe_says(grpo_noted: tuple[Path, Noted]) -> None:
    folder, noted = grpo_noted
    sampled = [call for call in noted.rollouts if (len(call[0]), call[1]) == (2, 4)]
    assert len(sampled) == 10
    for _, _, sampling in sampled:
        drawn = (sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p)
        assert drawn == (0.75, 60, 0.95, 0.001)
        assert (sampling.max_tokens, sampling.seed) == (12, 5)
    assert [sampling.step for _, _, sampling in sampled] == list(range(10))
    chat = Chat.load(folder / "model")
    asked = [chat.decode(prompt) for prompts, _, _ in sampled for prompt in prompts]
    rows = [orjson.loads(line) for line in (folder / "train.jsonl").read_bytes().splitlines()]
    times = Counter(row["document"] for text in asked for row in rows if row["document"] in text)
    assert times == {row["document"]: 2 for row in rows}  # two epochs
    assert noted.scores.count(("reference", 0.75)) == 10


def test_grpo_learns_by_the_recipes_loss(grpo_noted: tuple[Path, Noted]) -> None:
    _, noted = grpo_noted
    losses = {loss for _, loss, _ in noted.updates}
    assert len(losses) == 1
    (loss,) = losses
    assert (loss.rule, loss.beta, loss.epsilon) == ("grpo", 0.01, 0.15)
    assert (loss.temperature, loss.max_tokens) == (0.75, 12)


def test_grpo_carries_the_first_updates_logprobs_to_the_next_ones(
    grpo_noted: tuple[Path, Noted],
) -> None:
    _, noted = grpo_noted
    assert len(noted.updates) >= 15
    compared = 0
    for at in range(0, len(noted.updates), 3):
        first, second, third = noted.updates[at : at + 3]
        assert all(experience.old is None for experience in first[0])
        for later in (second, third):
            assert [one.episode for one in later[0]] == [one.episode for one in first[0]]
            for experience, own in zip(later[0], first[2].logprobs, strict=True):
                if own is not None:
                    np.testing.assert_array_equal(experience.old, own)
                    compared += 1
    assert compared >= 40
