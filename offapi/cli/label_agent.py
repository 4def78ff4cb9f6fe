"""What `offapi label` does for a task with tools: a teacher agent writes traces."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offapi.cli.output import Output
from offapi.errors import ConfigError, TeacherError

if TYPE_CHECKING:
    from offapi.data.documents import Document
    from offapi.task import Task
    from offapi.teachers.agent_teacher import AgentTeacher


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

    teacher = agent_teacher(output, task, spec, task_file, settings)
    tally = label_agent(task, rows, teacher, out, output, retry_failed=retry_failed)
    for line in tally.lines():
        output.say(line)
    if tally.failed and not tally.ok:
        reasons = ", ".join(tally.failed)
        step = f"Read {out}.failed: it has every episode that failed."
        raise TeacherError(f"no document was labelled: {reasons}.", where=str(out), next_step=step)
    output.result(tally.as_dict())


def agent_teacher(
    output: Output, task: Task, spec: str, task_file: Path, settings: Mapping[str, Any]
) -> AgentTeacher:
    """Return the teacher agent. Raise ConfigError for one that cannot call tools."""
    from offapi.teachers.scripted import PREFIX, Scripted

    if spec.startswith(PREFIX):
        return Scripted(Path(spec.removeprefix(PREFIX)), task, task_file)
    what = f"the teacher {spec!r} cannot label a task with tools."
    raise ConfigError(what, next_step="Name a teacher script:FILE.")
