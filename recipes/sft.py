"""Supervised fine-tuning on answers that are known:
the baseline, and the last step of the other recipes.

Reads documents with their answers, words them with the task, trains a LoRA adapter on the
answers' tokens, and scores it on documents it has not seen. Left out: full fine-tuning.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from offapi.chat.chat import Chat
from offapi.data import documents, traces
from offapi.data.cap import cap_groups
from offapi.episodes import Episode
from offapi.errors import DataError
from offapi.evaluation.accuracy import Report
from offapi.models.store import get
from offapi.progress import Progress
from offapi.task import Task, load_task
from offapi.training.job import Job

from .training import StudentInputs, Training, answer_episode, fit_length, read_val, train_student


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


@dataclass(frozen=True, kw_only=True)
class Inputs(StudentInputs):
    """Everything the recipe reads, read and checked before anything is written."""

    episodes: tuple[Episode, ...]


def prepare(config: Config, progress: Progress) -> Inputs:
    """Read and check the inputs."""
    task, model = load_task(config.task), get(config.model)
    chat = Chat.load(model.path)
    episodes = fit_length(read_episodes(config, task, chat), config, progress)
    return Inputs(task=task, model=model, chat=chat, val=read_val(config, task), episodes=episodes)


def run(job: Job[Config, Inputs]) -> Report | None:
    """Train and score; the report of `val`, None without it."""
    return train_student(job, job.inputs.episodes)


def read_episodes(config: Config, task: Task, chat: Chat) -> list[Episode]:
    """The rows to learn, worded by the task, or chats as they stand."""
    if config.learn == "chats":
        chats = traces.read(config.data)
        return [
            episode for row in chats for episode in chat.episodes(row.id, row.messages, row.tools)
        ]
    rows = documents.read(config.data)
    if config.cap_field is not None:
        rows = cap_groups(rows, config.cap_field, config.cap_rows, config.seed)
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
