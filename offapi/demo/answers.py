"""The answers of the demo's three arms (base, teacher, student) to the test documents.

    predictions-NAME.jsonl  the arm's answers
    predictions-NAME.json   what they depend on, and what they cost

Answers in the run's folder are reused while model, task, worked examples and documents stay the
same. Left out: resuming in the middle of an arm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offapi.backend import Backend
from offapi.chat.chat import Chat
from offapi.evaluation.evaluate import AnswersFile, Questions, Scored
from offapi.evaluation.predict import predict
from offapi.progress import Progress
from offapi.text.display import plural


@dataclass(frozen=True)
class Exam:
    """The test documents, and the run folder that keeps the answers.

    `key`: what the answers of all arms depend on.
    """

    folder: Path
    questions: Questions
    key: Mapping[str, Any]

    def sit(
        self,
        backend: Backend,
        chat: Chat,
        name: str,
        shots: int,
        progress: Progress,
        *,
        adapter: str | None = None,
    ) -> Scored:
        """Return the scored answers of the arm `name`; ask the model unless they are kept.

        `shots`: worked examples in the prompt. `adapter`: the hash of the backend's adapter.
        """
        file, task, rows = self.file(name, shots, adapter), self.questions.task, self.questions.rows
        kept = file.read()
        if kept is not None:
            progress.say(f"{name}: {plural(len(rows), 'test document')}, already answered")
            return kept
        progress.say(
            f"{name}: {plural(len(rows), 'test document')}, {plural(shots, 'worked example')}"
            " in the prompt"
        )
        return file.write(self.questions, predict(backend, chat, task, rows, progress, shots))

    def file(self, name: str, shots: int, adapter: str | None = None) -> AnswersFile:
        """Return the file that keeps the arm's answers."""
        key = {**self.key, "shots": shots, "adapter": adapter}
        return AnswersFile(self.folder / f"predictions-{name}.jsonl", key)
