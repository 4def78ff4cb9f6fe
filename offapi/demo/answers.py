"""One of the demo's three arms: base, teacher or student, asked about the test documents.

    predictions-NAME.jsonl  its answers      predictions-NAME.json
    what they came from, and what they cost

Answers in the run's folder are reused where model, task, worked examples and documents are still
the same. Left out: going on in the middle of an arm.
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


@dataclass(frozen=True)
class Exam:
    """The test documents, and a run's folder to keep the answers in.

    `key`: what all arms' answers depend on.
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
        """The arm `name` with `shots` worked examples in its prompt, as it was kept or asked now.

        `adapter`: the hash of the backend's.
        """
        file, task, rows = self.file(name, shots, adapter), self.questions.task, self.questions.rows
        found = file.read()
        if found is not None:
            progress.say(f"{name}: {len(rows)} test documents, answered before")
            return found
        progress.say(f"{name}: {len(rows)} test documents, {shots} worked examples in the prompt")
        return file.write(self.questions, predict(backend, chat, task, rows, progress, shots))

    def file(self, name: str, shots: int, adapter: str | None = None) -> AnswersFile:
        """Where the arm's answers are kept."""
        key = {**self.key, "shots": shots, "adapter": adapter}
        return AnswersFile(self.folder / f"predictions-{name}.jsonl", key)
