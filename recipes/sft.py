"""Supervised fine-tuning on answers that are known:
the baseline, and the last step of the other recipes.

Reads documents with their answers, words them with the task, trains a LoRA adapter on the
answers' tokens, and scores it on documents it has not seen. Left out: full fine-tuning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson

from offapi import adapter
from offapi.backend import AdamW, Backend, DType, Limits, LoraSpec, ModelSpec, load
from offapi.chat.chat import Chat, OnLong, fit
from offapi.config.bounds import ABOVE_0, AT_LEAST_0, AT_LEAST_1, require
from offapi.data import documents, traces
from offapi.data.cap import cap
from offapi.episodes import Episode
from offapi.errors import DataError
from offapi.evaluation import test_set
from offapi.evaluation.accuracy import Report, score_predictions
from offapi.evaluation.predict import predict
from offapi.evaluation.test_set import Row
from offapi.models.store import Model, get
from offapi.progress import Progress
from offapi.task.task import Task
from offapi.task.task import load as load_task
from offapi.training import forecast_text, train_state
from offapi.training.run import Run
from offapi.training.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class Training:
    """How to train. Every recipe has these keys."""

    task: Path  # the task file
    val: Path | None = None  # documents with gold answers, scored at the end
    name: str  # the run's folder, inside `out`
    out: Path = Path("runs")
    model: str = "demo"
    lora: LoraSpec = LoraSpec()
    lr: float = 5e-4  # 0: a control, which changes nothing
    epochs: float = 2.0
    batch_size: int = 4  # rows
    warmup_steps: int = 10
    max_tokens: int = 2048  # of a row, prompt and answer
    on_long: OnLong = "refuse"
    optimizer: AdamW = AdamW()
    limits: Limits = Limits()
    dtype: DType = "float32"
    device: str = "auto"
    quantize: int | None = None  # bits of the base; MLX only
    seed: int = 0
    checkpoint_every: int = 20  # steps

    def __post_init__(self) -> None:
        counts = dict.fromkeys(("batch_size", "max_tokens", "checkpoint_every"), AT_LEAST_1)
        require(self, {**counts, "lr": AT_LEAST_0, "epochs": ABOVE_0, "warmup_steps": AT_LEAST_0})

    def schedule(self, rows: int) -> Schedule:
        """The steps over so many rows."""
        return Schedule(
            rows, self.batch_size, self.epochs, self.lr, self.warmup_steps, seed=self.seed
        )

    def spec(self, model: Model) -> ModelSpec:
        """What the backend loads to train."""
        return ModelSpec(
            path=model.path,
            lora=self.lora,
            dtype=self.dtype,
            device=self.device,
            quantize=self.quantize,
            seed=self.seed,
            limits=self.limits,
        )


@dataclass(frozen=True, kw_only=True)
class Config(Training):
    """Keys of `recipe = "sft"`."""

    recipe: Literal["sft"] = "sft"
    data: Path  # documents with answers, or chats to learn whole
    learn: Literal["gold", "recorded_label", "chats"] = "gold"
    cap_field: str | None = None  # at most `cap_rows` documents for each value of this field
    cap_rows: int = 8
    name: str = "sft"

    def reads(self) -> dict[str, Path]:
        """The files the result depends on."""
        return {"task": self.task, "data": self.data, **({"val": self.val} if self.val else {})}


@dataclass(frozen=True)
class Inputs:
    """Everything the recipe reads, read and checked before anything is written."""

    task: Task
    model: Model
    chat: Chat
    episodes: tuple[Episode, ...]
    val: tuple[Row, ...]


def prepare(config: Config, out: Progress) -> Inputs:
    """Read and check the inputs."""
    task, model = load_task(config.task), get(config.model)
    chat = Chat.load(model.path)
    episodes = fit_length(read_episodes(config, task, chat), config, out)
    return Inputs(task, model, chat, episodes, read_val(config, task))


def run(
    config: Config, inputs: Inputs, backend_name: str, folder: Run, out: Progress, resume: bool
) -> Report | None:
    """Train and score; the report of `val`, None without it."""
    backend = load(backend_name, config.spec(inputs.model))
    train(backend, inputs.episodes, config, inputs.model, folder, out, resume)
    report = score(backend, inputs.chat, inputs.task, inputs.val, folder, out, config.val)
    backend.close()
    return report


def read_val(config: Training, task: Task) -> tuple[Row, ...]:
    """The rows to score the result on, documents or
    traces, each with the gold the task compares.
    """
    return tuple(test_set.read(config.val, task)) if config.val else ()


def read_episodes(config: Config, task: Task, chat: Chat) -> list[Episode]:
    """The rows to learn, worded by the task, or chats as they stand."""
    if config.learn == "chats":
        chats = traces.read(config.data)
        return [
            episode for row in chats for episode in chat.episodes(row.id, row.messages, row.tools)
        ]
    rows = documents.read(config.data)
    if config.cap_field is not None:
        rows = cap(rows, config.cap_field, config.cap_rows, config.seed)
    episodes = []
    for row in rows:
        answer = row.gold if config.learn == "gold" else row.recorded_label
        if answer is None:
            step = (
                f"Add {config.learn!r} to the row, remove it, or learn something else with `learn`."
            )
            raise DataError(
                f"document {row.id!r} has no {config.learn}.",
                where=str(config.data),
                next_step=step,
            )
        episodes.append(answer_episode(chat, task, row.id, row.text, task.answer_text(answer)))
    return episodes


def answer_episode(chat: Chat, task: Task, id: str, document: str, answer: str) -> Episode:
    """A document and the answer to learn for it, without worked examples."""
    return chat.episode(id, [*task.messages(document), {"role": "assistant", "content": answer}])


def fit_length(episodes: Sequence[Episode], config: Training, out: Progress) -> tuple[Episode, ...]:
    """The episodes within `max_tokens`; what was dropped is said."""
    fitted = fit(episodes, config.max_tokens, config.on_long)
    if fitted.dropped:
        some = ", ".join(fitted.dropped[:3])
        out.say(
            f"Dropped {len(fitted.dropped)} of {len(episodes)} rows over {config.max_tokens}"
            f" tokens: {some} ..."
        )
    return fitted.episodes


def train(
    backend: Backend,
    episodes: Sequence[Episode],
    config: Training,
    model: Model,
    folder: Run,
    out: Progress,
    resume: bool,
) -> None:
    """Cross-entropy on the episodes' masked tokens, from
    the last checkpoint if there is one to `resume`.
    """
    schedule = config.schedule(len(episodes))
    checkpoint = folder.latest() if resume else None
    if checkpoint is not None:
        backend.restore(train_state.read(checkpoint.path))
        out.say(checkpoint.resumed(schedule.steps))
    first = checkpoint.step if checkpoint else 0
    out.say(forecast_text.training(backend, episodes, schedule, first, config.spec(model)))
    with out.progress("training", schedule.steps) as advance:
        for step in range(first, schedule.steps):
            metrics = backend.forward_backward(schedule.batch_at(step, episodes))
            lr = schedule.lr_at(step)
            metrics = {**metrics, **backend.optim_step(lr, config.optimizer)}
            folder.log(step + 1, {**metrics, "lr": lr})
            if (step + 1) % config.checkpoint_every == 0 or step + 1 == schedule.steps:
                folder.checkpoint(
                    step + 1, train_state.encode(backend.state(), config.lora, model.name), {}
                )
            advance(step + 1, f"loss {metrics['loss']:.3f}")
    folder.write_folder("adapter", adapter.encode(backend.state().adapter, config.lora, model.name))


def score(
    backend: Backend,
    chat: Chat,
    task: Task,
    rows: Sequence[Row],
    folder: Run,
    out: Progress,
    data: Path | None,
) -> Report | None:
    """Answer `rows`, those in the file `data`, and compare
    with their gold; kept in the run, and counted there.
    """
    if data is None:
        return None
    report = score_predictions(task, rows, predict(backend, chat, task, rows, out).outputs)
    folder.write("predictions.jsonl", report.jsonl())
    folder.write("report.json", orjson.dumps(report.as_dict()))
    test_set.count_scoring(folder, data, len(rows))
    return report
