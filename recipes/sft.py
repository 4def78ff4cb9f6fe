"""Supervised fine-tuning on known answers: the baseline, and the last step of other recipes.

Documents are worded by the task, and their answers are written in the one form that the task gives
them; or chats are learned as they are (`learn`). A LoRA adapter (Hu et al., arXiv 2106.09685) is
trained by cross-entropy on the answers' tokens alone, with AdamW (Loshchilov and Hutter, arXiv
1711.05101) and a learning rate that warms up and decays linearly. The result is scored on the
documents of `val`.

Deviations from the papers:

- The adapter is on all linear layers of attention and MLP (`lora.targets`), without dropout; Hu et
  al. adapt attention alone.
- The loss is averaged over the answers' tokens of a step, not first within each row.
- Gradients are clipped to a norm of 1, and there is no weight decay by default.

With `full`, every weight is trained in place of an adapter. Left out: dropout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from offapi.chat.chat import Chat
from offapi.data import documents, traces
from offapi.data.cap import cap_groups
from offapi.data.documents import Document
from offapi.data.rows import Row
from offapi.episodes import Episode
from offapi.errors import ConfigError, DataError
from offapi.evaluation.accuracy import Report
from offapi.models.store import get
from offapi.progress import Progress
from offapi.task import Task, load_task
from offapi.task.learned_answer import check_learned_answers
from offapi.training.job import Job

from .training import (
    StudentInputs,
    Training,
    answer_episode,
    fit_length,
    leave_out_scored,
    leave_out_unlearnable,
    read_val,
    train_student,
)


@dataclass(frozen=True, kw_only=True)
class Config(Training):
    """Keys of `recipe = "sft"`."""

    recipe: Literal["sft"] = "sft"
    data: Path  # documents with answers, or chats to learn whole
    learn: Literal["gold", "recorded_label", "chats"] = "gold"
    escalated: bool = False  # learn a server's kept answers of another model too
    cap_field: str | None = None  # at most `cap_rows` documents for each value of this field
    cap_rows: int = 8
    name: str = "sft"

    def reads(self) -> dict[str, Path]:
        """Return the files that the result depends on."""
        paths = {"task": self.task, "data": self.data, "val": self.val}
        return {name: path for name, path in paths.items() if path}


@dataclass(frozen=True, kw_only=True)
class Inputs(StudentInputs):
    """Everything the recipe reads, read and checked before anything is written."""

    episodes: tuple[Episode, ...]


def prepare(config: Config, progress: Progress) -> Inputs:
    """Read and check the inputs."""
    task, model = load_task(config.task), get(config.model)
    val = read_val(config, task)
    chat = Chat.load(
        model.path, config.template
    )  # takes seconds: what is read without it comes first
    episodes = fit_length(read_episodes(config, task, chat, val, progress), config, progress)
    return Inputs(task=task, model=model, chat=chat, val=val, episodes=episodes)


def run(job: Job[Config, Inputs]) -> Report | None:
    """Train and score; return the report of `val`, or None without it."""
    return train_student(job, job.inputs.episodes)


def read_episodes(
    config: Config, task: Task, chat: Chat, val: Sequence[Row], progress: Progress
) -> list[Episode]:
    """Return the rows to learn, worded by the task, or chats as they are; none is scored."""
    if config.learn == "chats":
        chats = leave_out_unlearnable(
            traces.read(config.data), config.data, progress, escalated=config.escalated
        )
        asked = [row.document for row in chats]
        chats = leave_out_scored(chats, asked, val, config, config.data, progress)
        return [
            episode for row in chats for episode in chat.episodes(row.id, row.messages, row.tools)
        ]
    rows = documents.read(config.data)
    answers = read_answers(config, task, rows)
    texts = [row.text for row in rows]
    rows = leave_out_scored(rows, texts, val, config, config.data, progress)
    if config.cap_field is not None:
        rows = cap_groups(rows, config.cap_field, config.cap_rows, config.seed)
    return [answer_episode(chat, task, row.id, row.text, answers[row.id]) for row in rows]


def read_answers(config: Config, task: Task, rows: Sequence[Document]) -> dict[str, str]:
    """Return the text to learn for each document; raise DataError for an answer that is wrong."""
    if config.cap_field is not None and task.free_text:
        raise ConfigError(
            f"cap_field = {config.cap_field!r} names a field, but the task answers with text.",
            next_step="Leave cap_field out.",
        )
    answers = {}
    for row in rows:
        answer = row.gold if config.learn == "gold" else row.recorded_label
        if answer is None:
            step = (
                f"Add {config.learn!r} to the row, remove the row, or choose another `learn` in the"
                " recipe."
            )
            raise DataError(
                f"document {row.id!r} has no {config.learn}.",
                where=str(config.data),
                next_step=step,
            )
        answers[row.id] = answer
    check_learned_answers(task, answers.items(), config.data, config.learn)
    return {id: task.answer_text(answer, row=id) for id, answer in answers.items()}
