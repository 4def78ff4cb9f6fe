"""What recipes that train on answers share: keys, and training and scoring a student.

Cross-entropy on the answers' tokens, into a LoRA adapter, with a checkpoint every few steps. Left
out: where the answers come from, in which the recipes differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import orjson

from offapi.backend import Backend
from offapi.chat.chat import Chat
from offapi.chat.fit import OnLong, fit_episodes
from offapi.config.bounds import AT_LEAST_0, AT_LEAST_1, EPOCHS, SEED, require
from offapi.data.rows import Row, row_text
from offapi.data.traces import Trace
from offapi.episodes import Episode
from offapi.errors import DataError
from offapi.evaluation import test_set
from offapi.evaluation.accuracy import Report, score_predictions
from offapi.evaluation.agent_answers import agent_of
from offapi.evaluation.predict import predict
from offapi.files.hashing import sha256_path
from offapi.grading.similarity.contamination import near_or_same
from offapi.model_spec import DType, Limits, LoraSpec, ModelSpec
from offapi.models.store import Model
from offapi.optimizer import AdamW
from offapi.progress import LOADING, Progress
from offapi.task import Grade, Task
from offapi.task.learned_answer import answer_error
from offapi.text.display import plural, share
from offapi.training import forecast_text, train_state
from offapi.training.job import Job
from offapi.training.run import PLAN
from offapi.training.schedule import Schedule
from offapi.training.trained import Trained

WhenRecomputed = Literal["auto", "always", "never"]
RECOMPUTED: Mapping[WhenRecomputed, bool | None] = {"auto": None, "always": True, "never": False}


@dataclass(frozen=True, kw_only=True)
class Training:
    """How to train. Every recipe has these keys."""

    task: Path  # the task file
    val: Path | None = None  # documents with gold answers, scored at the end
    # settings of the chat template, such as enable_thinking = false
    template: Mapping[str, Any] = field(default_factory=dict)
    name: str  # the run's folder, inside `out`
    out: Path = Path("runs")
    model: str = "demo"
    lora: LoraSpec = LoraSpec()
    full: bool = False  # train every weight in place of an adapter
    lr: float = 5e-4  # 0 changes nothing, as a control
    epochs: float = 2.0
    batch_size: int = 4  # rows
    warmup_steps: int = 10
    max_tokens: int = 2048  # tokens of a row, prompt and answer
    on_long: OnLong = "refuse"
    optimizer: AdamW = AdamW()
    limits: Limits = Limits()
    dtype: DType = "auto"  # auto: bfloat16 on a GPU, float32 on the CPU
    device: str = "auto"
    quantize: int | None = None  # bits of the base: torch 4 and 8, MLX 2 to 8
    shard: bool = False  # each rank of a launch holds a part of the base
    checkpointing: WhenRecomputed = "auto"  # auto: where memory would not hold a row otherwise
    seed: int = 0
    checkpoint_every: int = 20  # steps

    def __post_init__(self) -> None:
        counts = dict.fromkeys(("batch_size", "max_tokens", "checkpoint_every"), AT_LEAST_1)
        rates = {"lr": AT_LEAST_0, "epochs": EPOCHS, "warmup_steps": AT_LEAST_0}
        require(self, {**counts, **rates, "seed": SEED})

    def schedule(self, rows: int) -> Schedule:
        """Return the steps over `rows` rows."""
        return Schedule(
            rows, self.batch_size, self.epochs, self.lr, self.warmup_steps, seed=self.seed
        )

    @property
    def shape(self) -> LoraSpec | None:
        """The shape of the adapter that is trained; None where every weight is."""
        return None if self.full else self.lora

    def spec(self, model: Model) -> ModelSpec:
        """Return what the backend loads to train."""
        return ModelSpec(
            path=model.path,
            lora=self.shape,
            full=self.full,
            dtype=self.dtype,
            device=self.device,
            quantize=self.quantize,
            shard=self.shard,
            checkpointing=RECOMPUTED[self.checkpointing],
            seed=self.seed,
            limits=self.limits,
        )


@dataclass(frozen=True, kw_only=True)
class StudentInputs:
    """What every such recipe reads."""

    task: Task
    model: Model
    chat: Chat
    val: tuple[Row, ...]

    def __post_init__(self) -> None:
        if self.task.is_agent and self.val:
            agent_of(self.task, self.chat)  # raises before training, not at its end


ScoredT = TypeVar("ScoredT", bound=Row)
NAMED = 3  # rows whose ids are in a message
StudentJob = Job[Training, StudentInputs]


def read_val(config: Training, task: Task) -> tuple[Row, ...]:
    """Return the rows to score the result on, each with gold that the task can compare."""
    return tuple(test_set.read(config.val, task)) if config.val else ()


def leave_out_scored(
    rows: Sequence[ScoredT],
    texts: Sequence[str],
    val: Sequence[Row],
    config: Training,
    path: Path,
    progress: Progress,
) -> list[ScoredT]:
    """Return the rows whose text neither is nor nearly repeats a document of `val`; report others.

    Raise DataError where nothing is left: the score would show memory, not skill.
    """
    spoiled = near_or_same(texts, [row_text(row) for row in val])
    if not spoiled:
        return list(rows)
    if len(spoiled) == len(rows):
        raise all_scored(config, path)
    named = ", ".join(rows[i].id for i in sorted(spoiled)[:NAMED])
    more = " ..." if len(spoiled) > NAMED else ""
    progress.say(
        f"Dropped {len(spoiled):,} of {plural(len(rows), 'row')} that repeat, or nearly repeat, a"
        f" document of val: {named}{more}."
    )
    return [row for i, row in enumerate(rows) if i not in spoiled]


def leave_out_unlearnable(
    chats: Sequence[Trace], path: Path, progress: Progress, *, escalated: bool
) -> list[Trace]:
    """Return a server's kept answers without those that were cut off; report others.

    Without `escalated`, leave out those of another model too, as its terms may forbid learning
    them. Raise DataError where nothing is left.
    """
    cut = [row for row in chats if row.cut_off]
    others = [row for row in chats if row.escalated_to and not escalated and not row.cut_off]
    if cut:
        progress.say(f"Left out {plural(len(cut), 'answer')} that the token limit cut off.")
    if others:
        names = ", ".join(sorted({row.escalated_to for row in others}))
        progress.say(
            f"Left out {plural(len(others), 'answer')} of another model ({names}): most providers'"
            " terms forbid training other models on them. If these do not: escalated = true."
        )
    left_out = {row.id for row in (*cut, *others)}
    rest = [row for row in chats if row.id not in left_out]
    if chats and not rest:
        what = "no answer is left to learn: all are another model's, or were cut off."
        raise DataError(what, where=str(path), next_step="Collect answers of the served model.")
    return rest


def all_scored(config: Training, path: Path) -> DataError:
    """Return the error for a file to learn from whose rows are all documents of `val`."""
    same = config.val is not None and sha256_path(path) == sha256_path(config.val)
    why = "is the same file as" if same else "holds nothing but documents of"
    what = f"it {why} val ({config.val}): the score would show memory, not skill."
    step = "Score on documents that are not learned: move a tenth of the rows to a file for val."
    return DataError(what, where=str(path), next_step=step)


def say_misfits(task: Task, kept: Sequence[tuple[Trace, Grade]], progress: Progress) -> None:
    """Say how many of the answers to learn the checks let through though they do not fit."""
    found = [
        (trace.id, error)
        for trace, grade in kept
        if grade.value is not None
        and (error := answer_error(task, grade.value, trace.id, "answer"))
    ]
    if found:
        id, error = found[0]
        count = share(len(found), len(kept), "kept answer", ("does", "do"))
        progress.say(
            f"{count} not fit the task and will be learned all the same; the first,"
            f" {id!r}: {error.what} The check fits_schema drops such answers."
        )


def answer_episode(chat: Chat, task: Task, id: str, document: str, answer: str) -> Episode:
    """Return a document and the answer to learn for it, without worked examples."""
    return chat.episode(id, [*task.messages(document), {"role": "assistant", "content": answer}])


def trace_episode(chat: Chat, task: Task, trace: Trace, grade: Grade) -> Episode:
    """Return a graded trace's question and its answer to learn.

    The task spells the answer; an answer that is not a JSON object stays as it is.
    """
    answer = trace.answer if grade.value is None else task.answer_text(grade.value)
    return answer_episode(chat, task, trace.id, trace.document, answer)


def fit_length(
    episodes: Sequence[Episode], config: Training, progress: Progress
) -> tuple[Episode, ...]:
    """Return the episodes within `max_tokens`; report the ones dropped."""
    fitted = fit_episodes(episodes, config.max_tokens, config.on_long)
    if fitted.dropped:
        examples = ", ".join(fitted.dropped[:3])
        progress.say(
            f"Dropped {len(fitted.dropped)} of {plural(len(episodes), 'row')} longer than"
            f" {plural(config.max_tokens, 'token')}: {examples} ..."
        )
    return fitted.episodes


def train_student(job: StudentJob, episodes: Sequence[Episode]) -> Report | None:
    """Train one student on `episodes` and score it; return None without `val`."""
    job.progress.say(LOADING)
    backend = job.load(job.backend_name, job.config.spec(job.inputs.model))
    train(job, backend, episodes)
    report = score(job, backend)
    backend.close()
    return report


def train(job: StudentJob, backend: Backend, episodes: Sequence[Episode]) -> None:
    """Train on the episodes' masked tokens from the last checkpoint on, and write the adapter."""
    config, folder, progress = job.config, job.folder, job.progress
    schedule, model = config.schedule(len(episodes)), job.inputs.model
    checkpoint = folder.latest() if job.resume else None
    if checkpoint is not None:
        backend.restore(train_state.read(checkpoint.path))
        progress.say(checkpoint.resumed(schedule.steps))
    first = checkpoint.step if checkpoint else 0
    spec, trained = config.spec(model), Trained.of(config.shape, model, config.quantize)
    if checkpoint is None:
        trained.check(backend)
    progress.say(forecast_text.training(backend, episodes, schedule, first, spec))
    tokens = sum(len(episode.tokens) for episode in episodes)
    plan = {"rows": len(episodes), "tokens": tokens, "steps": schedule.steps}
    folder.write(PLAN, orjson.dumps(plan))
    with progress.progress("training", schedule.steps) as advance:
        for step in range(first, schedule.steps):
            metrics = backend.forward_backward(schedule.batch_at(step, episodes))
            lr = schedule.lr_at(step)
            metrics = {**metrics, **backend.optim_step(lr, config.optimizer)}
            folder.log(step + 1, {**metrics, "lr": lr})
            if (step + 1) % config.checkpoint_every == 0 or step + 1 == schedule.steps:
                files = train_state.encode(backend.state(), trained.shape, trained.base)
                folder.checkpoint(step + 1, files, {})
            advance(step + 1, f"loss {metrics['loss']:.3f}")
    trained.write_result(folder, backend.state().adapter, backend, spec)


def score(job: StudentJob, backend: Backend) -> Report | None:
    """Answer the rows of `val` and compare with their gold; return None without `val`.

    The run stores the report and counts the scoring.
    """
    inputs, folder, path = job.inputs, job.folder, job.config.val
    if path is None:
        return None
    task, val, limit = inputs.task, inputs.val, job.config.max_tokens
    answers = predict(backend, inputs.chat, task, val, job.progress, max_tokens=limit)
    report = score_predictions(task, val, answers.outputs, answers.episodes)
    folder.write("predictions.jsonl", report.jsonl())
    folder.write("report.json", orjson.dumps(report.as_dict()))
    test_set.count_scoring(folder, path, len(inputs.val))
    return report
