"""What `offapi label` does for a task with tools: a teacher agent writes traces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offapi.cli.endpoint_teacher import FOR_ENDPOINTS, endpoint_of
from offapi.cli.output import Output
from offapi.errors import ConfigError, TeacherError
from offapi.text.display import plural

if TYPE_CHECKING:
    from offapi.data.documents import Document
    from offapi.task import Task
    from offapi.teachers.agent_teacher import AgentTeacher
    from offapi.teachers.teacher import Price


def label_with_agent(
    output: Output,
    task: Task,
    rows: list[Document],
    spec: str,
    out: Path,
    *,
    task_file: Path,
    retry_failed: bool,
    settings: Mapping[str, Any],
) -> None:
    """Let the teacher that `spec` names write a trace for each document, and show the tally."""
    from offapi.teachers.agent_labelling import label_agent
    from offapi.teachers.scripted import PREFIX

    teacher = agent_teacher(output, task, spec, out, task_file, settings)
    asks_model = not spec.startswith(PREFIX)
    plan = (lambda todo: plan_of(task, todo, teacher.price)) if asks_model else None
    tally = label_agent(task, rows, teacher, out, output, retry_failed=retry_failed, plan=plan)
    for line in tally.lines():
        output.say(line)
    if tally.failed and not tally.ok:
        reasons = ", ".join(tally.failed)
        step = f"Read {out}.failed: it has every episode that failed."
        raise TeacherError(f"no document was labelled: {reasons}.", where=str(out), next_step=step)
    output.result(tally.as_dict())


def agent_teacher(
    output: Output, task: Task, spec: str, out: Path, task_file: Path, settings: Mapping[str, Any]
) -> AgentTeacher:
    """Return the teacher agent that `spec` names. Raise ConfigError for options it does not have."""
    from offapi.teachers.scripted import PREFIX, Scripted
    from offapi.teachers.teacher import parse_teacher

    if spec.startswith(PREFIX):
        _refuse_options(settings, "a script", (*FOR_ENDPOINTS, "template", "backend"))
        return Scripted(Path(spec.removeprefix(PREFIX)), task, task_file)
    named = parse_teacher(spec)
    if named.kind == "local":
        _refuse_options(settings, "a local teacher", FOR_ENDPOINTS)
        return _local(output, task, named.target, task_file, settings)
    if named.kind == "endpoint":
        _refuse_options(settings, "an endpoint", ("template", "backend"))
        return _endpoint(output, task, named.target, out, task_file, settings)
    what = "recorded labels are single answers, and the task has tools."
    step = "Name a teacher local:NAME, http://HOST:PORT/v1 or script:FILE."
    raise ConfigError(what, where="--teacher recorded", next_step=step)


def _refuse_options(
    settings: Mapping[str, Any], teacher: str, not_its_own: tuple[str, ...]
) -> None:
    """Raise ConfigError for options that were given and do nothing."""
    given = {**settings, "constrain": settings["constrain"] != "off" or None}
    given["shots"] = settings["shots"] or None
    for names, why in (
        (("shots", "constrain"), "is for single answers, and the task has tools."),
        (not_its_own, f"does not apply to {teacher}."),
    ):
        unused = [name for name in names if given[name] is not None and given[name] != {}]
        if unused:
            named = ", ".join("--" + name.replace("_", "-") for name in unused)
            raise ConfigError(f"{named} {why}", next_step="Leave it out.")


def _local(
    output: Output, task: Task, model: str, task_file: Path, settings: Mapping[str, Any]
) -> AgentTeacher:
    from offapi.backend import default_backend
    from offapi.models import store
    from offapi.teachers.local_agent import LocalAgent

    backend = settings["backend"] or default_backend()
    found = store.get(model)
    template = settings["template"]
    return LocalAgent(found, backend, task, task_file, say=output.say, template=template)


def _endpoint(
    output: Output,
    task: Task,
    url: str,
    out: Path,
    task_file: Path,
    settings: Mapping[str, Any],
) -> AgentTeacher:
    from offapi.teachers.agent_log import usage_of
    from offapi.teachers.endpoint_agent import EndpointAgent

    endpoint = endpoint_of(url, task, output, settings)
    if endpoint.price and endpoint.max_cost is not None:
        paid = endpoint.price.of(usage_of(out, endpoint.name))
        endpoint = replace(endpoint, paid=paid)
    return EndpointAgent(endpoint, task, task_file)


def plan_of(task: Task, documents: Sequence[Document], price: Price | None) -> str:
    """Return what the documents' first turns take, and what all turns cost without tools' results.

    Each turn reads the whole episode again. Answers are counted at their full length.
    """
    from offapi.teachers.client_episode import ClientEpisode
    from offapi.teachers.labelling import BYTES_PER_TOKEN
    from offapi.teachers.teacher import Usage

    asked = [ClientEpisode(task, each).request().prompt_bytes for each in documents]
    tokens, turns = sum(asked) // BYTES_PER_TOKEN, task.max_turns
    line = f"At least {plural(tokens, 'prompt token')}, for one turn each"
    if price is None:
        return f"{line}; there are up to {turns}."
    written = len(documents) * task.max_answer_tokens
    once = price.of(Usage(tokens, written))
    again = Usage(turns * tokens + written * turns * (turns - 1) // 2, turns * written)
    if not once:
        return f"{line}, free."
    return (
        f"{line}: about ${once:.4f}; up to ${price.of(again):.4f} in {turns} turns, and what the"
        " tools' results add."
    )
