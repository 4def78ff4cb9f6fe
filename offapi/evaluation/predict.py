"""A loaded model's answers to documents or to a trace's last turn, greedy or sampled.

A task with tools is answered in episodes (`agent_answers`); for another, a trace's recorded turns
are used as they are. Left out: answers from anything but a backend.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from offapi.agent.episode import AgentEpisode
from offapi.backend import Backend, Sampling
from offapi.chat.chat import Chat
from offapi.constrain import Constraints
from offapi.data.rows import Row
from offapi.data.traces import Trace
from offapi.errors import ConfigError, DataError
from offapi.evaluation.agent_answers import (
    EPISODE_TOKENS,
    agent_of,
    ask_agent,
    refuse_constraints,
    run_agent,
    tokens_asked,
)
from offapi.progress import Progress
from offapi.task import Task


@dataclass(frozen=True)
class Predictions:
    """Raw outputs, `samples` per row, row by row, and what they cost."""

    outputs: tuple[str, ...]
    truncated: tuple[bool, ...]  # whether the token limit stopped it, not the model
    prompt_tokens: int  # of all prompts, as an endpoint would count them
    completion_tokens: int
    seconds: float
    samples: int = 1
    # of a constraint's bound fields, in how many documents there was nothing to read
    unread: Mapping[str, int] = field(default_factory=dict)
    episodes: tuple[AgentEpisode, ...] = ()  # of a task with tools, one an output

    @property
    def said(self) -> tuple[str, ...]:
        """The last words for each answer, those of a cut off episode included."""
        last = [episode.messages[-1].get("content") for episode in self.episodes]
        return tuple(str(text or "") for text in last) or self.outputs

    def totals(self) -> dict[str, float]:
        """Return seconds, prompt tokens and completion tokens of all documents."""
        tokens = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}
        return {"seconds": self.seconds, **tokens}

    def cost(self) -> dict[str, float]:
        """Return prompt tokens, completion tokens and seconds per document."""
        count = len(self.outputs) // self.samples
        return {
            "prompt_tokens": round(self.prompt_tokens / count, 1),
            "completion_tokens": round(self.completion_tokens / count, 1),
            "seconds": round(self.seconds / count, 3),
        }


def predict(
    backend: Backend,
    chat: Chat,
    task: Task,
    documents: Sequence[Row],
    progress: Progress,
    shots: int = 0,
    *,
    samples: int = 1,
    temperature: float = 0.0,
    constraints: Constraints | None = None,
    max_tokens: int = EPISODE_TOKENS,
) -> Predictions:
    """Ask the loaded model for every row's answer, within `constraints` if there are any.

    `shots` is the number of worked examples in a document's prompt, `max_tokens` bounds a whole
    episode of a task with tools. Raise ConfigError where such a task has constraints.
    """
    if task.is_agent:
        refuse_constraints("off" if constraints is None else constraints.level)
        asks = [ask_agent(task, row, key, shots, samples) for key, row in enumerate(documents)]
        agent, started = agent_of(task, chat, max_tokens), time.perf_counter()
        episodes = run_agent(backend, agent, task, asks, progress, temperature)
        return _of_episodes(episodes, time.perf_counter() - started, samples)
    prompts = [make_prompt(chat, task, row, shots) for row in documents]
    outputs, truncated = [""] * (len(prompts) * samples), [False] * (len(prompts) * samples)
    sampling = Sampling(task.max_answer_tokens, chat.stop_ids, temperature=temperature)
    starts = None if constraints is None else [constraints.start(_text(row)) for row in documents]
    completion_tokens, started = 0, time.perf_counter()
    with progress.progress("reading", len(prompts)) as advance:
        groups = backend.rollout(prompts, samples, sampling, starts=starts)
        for done, group in enumerate(groups, start=1):
            for at, completion in enumerate(group.completions, start=group.prompt * samples):
                outputs[at] = chat.answer_text(prompts[group.prompt], completion.tokens)
                truncated[at] = completion.finish == "length"
                completion_tokens += len(completion.tokens)
            advance(done)
    seconds, prompt_tokens = time.perf_counter() - started, sum(map(len, prompts))
    unread = Counter(path for start in starts or () for path in start.unread)
    return Predictions(
        tuple(outputs), tuple(truncated), prompt_tokens, completion_tokens, seconds, samples, unread
    )


def _of_episodes(episodes: Sequence[AgentEpisode], seconds: float, samples: int) -> Predictions:
    written = [len(turn.tokens) for episode in episodes for turn in episode.turns]
    texts = tuple(episode.text for episode in episodes)
    return Predictions(
        texts,
        tuple(episode.finish == "length" for episode in episodes),
        sum(map(tokens_asked, episodes)),
        sum(written),
        seconds,
        samples,
        episodes=tuple(episodes),
    )


def _text(row: Row) -> str:
    return row.document if isinstance(row, Trace) else row.text


def make_prompt(chat: Chat, task: Task, row: Row, shots: int = 0) -> tuple[int, ...]:
    """Return the tokens that ask for the answer.

    The task words a document's prompt; a trace brings its own turns, all but the last.
    """
    if not isinstance(row, Trace):
        return chat.prompt(task.messages(row.text, shots))
    if shots:
        raise ConfigError(
            "traces bring their own prompts, so worked examples cannot be added.",
            next_step="Remove --shots.",
        )
    if len(row.messages) < 2:
        step = "Remove the row, or add the messages before the answer."
        what = "there is no message before the answer."
        raise DataError(what, where=f"row {row.id!r}", next_step=step)
    return chat.prompt(row.messages[:-1], row.tools, row.id)
