"""What a run gives the chat template stays with it; and thinking is read alike everywhere."""

from __future__ import annotations

from concurrent.futures import Future
from datetime import date, datetime
from pathlib import Path
from typing import Any

import bigram_llama
import orjson
import pytest
import recipe_folder

import offapi
from offapi import adapter
from offapi.backend import Sampling, load
from offapi.chat.chat import Chat
from offapi.chat.template_options import CLOCK
from offapi.checks import is_json
from offapi.cli.output import Output
from offapi.data.documents import Document
from offapi.evaluation import evaluate
from offapi.evaluation.accuracy import score_predictions
from offapi.evaluation.predict import predict
from offapi.model_spec import ModelSpec
from offapi.models.store import Model
from offapi.predict.predict_documents import Asking, predict_documents
from offapi.rl import rollout_files
from offapi.rl.reward import Asked, Judged
from offapi.rl.rollouts import Prompt, Sampler
from offapi.serve.chat_request import ChatRequest
from offapi.serve.plan import prompt_of
from offapi.serve.served_models import read_models
from offapi.teachers.local import Local
from offapi.teachers.teacher import Request
from offapi.training import prompt_settings
from offapi.training.run import Run

DATED = (
    "{{ strftime_now('%d %B') }}{% if shouts %}!{% endif %}{% for m in messages %}<|turn|>"
    "{{ m.role }}\n{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|turn|>"
    "assistant\n{% endif %}"
)


def with_template(folder: Path, template: str) -> Path:
    path = folder / "tokenizer_config.json"
    path.write_bytes(orjson.dumps({**orjson.loads(path.read_bytes()), "chat_template": template}))
    return folder


class _Day(date):
    now = ""

    @classmethod
    def today(cls) -> _Day:
        return cls.fromisoformat(cls.now)


class _Clock:
    @staticmethod
    def now() -> datetime:
        return datetime.fromisoformat(_Day.now)


@pytest.fixture
def days(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what sets the day of the clock, transformers' too."""
    monkeypatch.setattr(prompt_settings, "date", _Day)
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", _Clock)
    return lambda day: monkeypatch.setattr(_Day, "now", day)


def test_a_run_resumed_on_another_day_ends_with_the_same_bytes(
    tmp_path: Path, backend_name: str, days: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_folder.lay_out(tmp_path, count=4, checkpoint_every=1, epochs=1.0)
    recipe_folder.write_jsonl(tmp_path / "val.jsonl", recipe_folder.rows(24)[23:])
    with_template(tmp_path / "model", DATED)

    def trained(name: str, *words: str) -> bytes:
        command = ("train", str(recipe), "--backend", backend_name, "--set", f"name={name}")
        done = recipe_folder.offapi(*command, *words)
        assert done.returncode == 0, done.stderr
        return (tmp_path / "runs" / name / "adapter" / adapter.WEIGHTS).read_bytes()

    days("2026-11-01")
    whole = trained("whole")
    logged, log = [], Run.log

    def interrupted(self: Run, step: int, *more: Any) -> None:
        logged.append(step)
        log(self, step, *more)
        if step == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", interrupted)
        with pytest.raises(AssertionError, match="Resume with"):
            trained("broken")
    assert logged == [1]
    days("2026-11-02")
    assert trained("broken", "--resume") == whole
    manifest = Run.open(tmp_path / "runs" / "broken").manifest
    assert manifest["date"] == "2026-11-01"

    answering = offapi.open(tmp_path / "runs" / "broken", backend=backend_name)
    assert "01 November<|turn|>" in _text(answering.chat_format)
    asked: list[Chat] = []

    def only_chat(name: str, spec: ModelSpec, chat: Chat, *more: Any, **others: Any) -> None:
        asked.append(chat)
        raise offapi.DataError("enough")

    monkeypatch.setattr(evaluate, "ask_model", only_chat)
    files = ("--task", str(tmp_path / "task.py"), "--data", str(tmp_path / "val.jsonl"))
    run = tmp_path / "runs" / "broken" / "adapter"
    model = ("--model", str(tmp_path / "model"))
    out = ("--out", str(tmp_path / "predictions.jsonl"))
    for told in ((), ("--template", "shouts=true", "--template", "date=2026-12-24")):
        recipe_folder.offapi("eval", *model, "--adapter", str(run), *files, *out, *told)
    assert [_text(chat)[:12] for chat in asked] == ["01 November<", "24 December!"]


def _text(chat: Chat) -> str:
    return chat.text_of(chat.prompt([{"role": "user", "content": "a"}]))


def test_settings_are_kept_with_the_run_and_unknown_ones_refused(
    tmp_path: Path, backend_name: str
) -> None:
    recipe = recipe_folder.lay_out(tmp_path, count=2, epochs=1.0)
    recipe_folder.write_jsonl(tmp_path / "val.jsonl", recipe_folder.rows(24)[23:])
    with_template(tmp_path / "model", DATED)
    command = ("train", str(recipe), "--backend", backend_name)
    wrong = recipe_folder.offapi(*command, "--set", "template.shout=true")
    assert wrong.returncode == 2
    assert "the chat template never reads 'shout'; it reads date, shouts." in wrong.stderr
    assert not (tmp_path / "runs").exists()
    done = recipe_folder.offapi(*command, "--set", "template.shouts=true")
    assert done.returncode == 0, done.stderr
    run = Run.open(tmp_path / "runs" / "sft")
    assert run.manifest["config"]["template"] == {"shouts": True}
    told = prompt_settings.options_of(run)
    assert told == {"shouts": True, CLOCK: run.manifest["date"]}
    served = read_models([str(run.path)], None, backend_name)
    served += read_models([f"calm={run.path}"], None, backend_name, template={"shouts": False})
    question: Any = ChatRequest("sft", ({"role": "user", "content": "a"},))
    begins = [each.predictor.chat_format.text_of(prompt_of(each, question)) for each in served]
    assert ["!" in text for text in begins] == [True, False]
    label = ("label", "--task", str(tmp_path / "task.py"), "--data", str(tmp_path / "val.jsonl"))
    teacher = ("--teacher", f"local:{tmp_path / 'model'}", "--out", str(tmp_path / "labels.jsonl"))
    settings = ("--template", "shout=1")
    refused = recipe_folder.offapi(*label, *teacher, "--backend", backend_name, *settings)
    assert "never reads 'shout'" in refused.stderr
    endpoint = ("--teacher", "recorded", "--out", str(tmp_path / "labels.jsonl"))
    assert "needs a local teacher" in recipe_folder.offapi(*label, *endpoint, *settings).stderr


def test_eval_says_why_every_answer_was_cut_off(tmp_path: Path, backend_name: str) -> None:
    recipe_folder.lay_out(tmp_path, count=2)
    folder = bigram_llama.write(tmp_path / "model", {"\n": ["<think>It", "∞"]})
    with_template(folder, CHATML)
    files = ("--task", "task.py", "--data", "val.jsonl", "--model", "model", "--limit", "2")
    done = recipe_folder.offapi("eval", *files, "--backend", backend_name, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 answers were cut off" in done.stderr
    assert "Most were still thinking. Raise the task's max_answer_tokens." in done.stderr


ANSWER = '{"vendor":"ACME"}'
TASK = offapi.Task(
    name="vendor",
    instructions="Answer with JSON.",
    schema={"type": "object", "properties": {"vendor": {"type": "string"}}},
    match={"vendor": "text"},
    checks={"json": (is_json, 1.0)},
    max_answer_tokens=8,
)
CHATML = bigram_llama.TEMPLATE + "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
THINKERS = {
    "begins itself": (CHATML, ["<think>\n\n</think>\n\n", ANSWER]),
    "begun by the prompt": (
        CHATML.replace("assistant\n{% endif", "assistant<think>\n{% endif"),
        ['{"vendor":"Bob"} or ACME?</think> ', ANSWER],
    ),
}


class _Here:
    """Judges in this process what the rewarding processes would."""

    def submit(self, asked: list[Asked]) -> Future[list[Judged]]:
        done: Future[list[Judged]] = Future()
        grades = [TASK.grade(each.document, each.text, each.gold) for each in asked]
        done.set_result([Judged(each.score, {}, {}) for each in grades])
        return done


@pytest.mark.parametrize("thinker", THINKERS)
def test_thinking_is_read_alike_by_all_that_ask(
    tmp_path: Path, backend_name: str, thinker: str
) -> None:
    """Scored, rewarded, labelled, answered, and read back from the rollouts."""
    template, pieces = THINKERS[thinker]
    folder = with_template(bigram_llama.write(tmp_path / "model", {"\n": pieces}), template)
    chat = Chat.load(folder)
    row = Document("a", "from ACME", {"vendor": "ACME"})
    prompt = chat.prompt(TASK.messages(row.text))
    backend = load(backend_name, ModelSpec(path=folder))
    said = predict(backend, chat, TASK, [row], Output(json=True))
    report = score_predictions(TASK, [row], said.outputs)
    assert report.all_fields.mean == 1.0
    sampler = Sampler(backend, chat, _Here(), 2, Sampling(8, chat.stop_ids))  # type: ignore[arg-type]
    (group,) = sampler.groups([Prompt(row, prompt)], 0)
    assert group.rewards_G == (1.0, 1.0)
    assert {rollout.text for rollout in group.rollouts} == set(said.outputs)
    rollouts = tmp_path / "rollouts.jsonl"
    rollouts.write_bytes(rollout_files.encode([group], TASK, 0))
    (read,) = rollout_files.read(rollouts, TASK, chat)
    assert [each.completion for each in read.rollouts] == [r.completion for r in group.rollouts]
    (answer,) = predict_documents(backend, Asking(TASK, chat, None), [row])
    assert answer.answer == {"vendor": "ACME"}
    backend.close()
    teacher = Local(Model("m", folder), backend_name, 8)
    (label,) = teacher.answers([Request("a", tuple(TASK.messages(row.text)))])
    assert TASK.read_answer(label.output).value == {"vendor": "ACME"}
    cut = chat.answer_text(prompt, chat.encode("It says"))
    assert TASK.read_answer(cut).forms[-1] == (
        "text without JSON" if pieces[0][0] == "<" else "thinking without an end"
    )
