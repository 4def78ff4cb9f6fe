"""The answers of a task with tools: an episode for each document.

Left out: how sure the model is of a field, which is known of single answers alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from offapi.agent.episode import AgentEpisode
from offapi.agent.episode_host import EpisodeHost
from offapi.agent.run_episodes import run_episodes
from offapi.backend import Backend, Sampling
from offapi.data.documents import Document
from offapi.errors import ConfigError, OffapiError
from offapi.evaluation.agent_answers import EPISODE_TOKENS, agent_of, ask_agent, tokens_asked
from offapi.predict.compose import Readings, compose
from offapi.predict.prediction import DocumentAnswer
from offapi.predict.reading import Reading
from offapi.task import Task

if TYPE_CHECKING:
    from offapi.predict.predict_documents import Asking


def predict_agent_documents(
    backend: Backend, asking: Asking, documents: Sequence[Document]
) -> Iterator[DocumentAnswer]:
    """Yield the answer to every document, as their episodes end.

    An episode that ended without an answer is that document's error. Raise ConfigError where the
    task was not read from a file.
    """
    task = asking.task
    if task.file is None:
        what = "the task has tools, and was not read from a file: other processes run them."
        raise ConfigError(what, next_step="Name its file: offapi.open(run, task='task.py').")
    agent = agent_of(task, asking.chat, min(asking.context or EPISODE_TOKENS, EPISODE_TOKENS))
    asks = [ask_agent(task, document, key) for key, document in enumerate(documents)]
    sampling = Sampling(agent.limits.turn_tokens, asking.chat.stop_ids)
    with EpisodeHost(task.file) as host:
        for episode in run_episodes(backend, agent, host, asks, sampling):
            answer = _answer(task, documents[episode.prompt], episode)
            written = sum(len(turn.tokens) for turn in episode.turns)
            asked = tokens_asked(episode)
            yield replace(answer, prompt_tokens=asked, completion_tokens=written)


def require_single_answers(task: Task, what: str) -> None:
    """Raise ConfigError where `what`, which single answers have, is asked of a task with tools."""
    if task.is_agent:
        step = "Leave it out; an agent's answers have values and their places."
        raise ConfigError(f"{what} cannot be had of a task with tools.", next_step=step)


def _answer(task: Task, document: Document, episode: AgentEpisode) -> DocumentAnswer:
    if episode.finish not in ("stop", "done"):
        why = f"the episode ended at a limit, without an answer: {episode.finish}."
        return DocumentAnswer(document.id, None, error=why)
    reading = Reading(episode.text, task.read_answer(episode.text))
    try:
        return compose(task, document, Readings((reading,)))
    except OffapiError as error:
        return DocumentAnswer(document.id, None, error=str(error))
