"""One of the demo's three arms: base, teacher or student, asked about the test documents.

    predictions-NAME.jsonl  its answers      predictions-NAME.json
    what they came from, and what they cost

Answers in the run's folder are reused where model, task, worked examples and documents are still
the same. Left out: going on in the middle of an arm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from offapi.backend import Backend
from offapi.chat.chat import Chat
from offapi.data.documents import Document
from offapi.evaluation import accuracy
from offapi.evaluation.accuracy import Report, score_predictions
from offapi.evaluation.predict import predict
from offapi.files.hashing import sha256_file
from offapi.progress import Progress
from offapi.task import Task
from offapi.training.run import Run


@dataclass(frozen=True)
class Arm:
    """How it scored, and what a document cost it."""

    report: Report
    cost: Mapping[str, float]  # per document: prompt_tokens, completion_tokens, seconds


@dataclass(frozen=True)
class Exam:
    """The test documents, and a run's folder to keep the answers in.

    `key`: what all arms' answers depend on.
    """

    folder: Run
    task: Task
    rows: Sequence[Document]
    key: Mapping[str, Any]

    def sit(
        self,
        backend: Backend,
        chat: Chat,
        name: str,
        shots: int,
        out: Progress,
        *,
        adapter: str | None = None,
    ) -> Arm:
        """The arm `name` with `shots` worked examples in its prompt, as it was kept or asked now.

        `adapter`: the hash of the backend's.
        """
        found = self.kept(name, shots, adapter)
        if found is not None:
            out.say(f"{name}: {len(self.rows)} test documents, answered before")
            return found
        out.say(f"{name}: {len(self.rows)} test documents, {shots} worked examples in the prompt")
        answers = predict(backend, chat, self.task, self.rows, out, shots)
        arm = Arm(score_predictions(self.task, self.rows, answers.outputs), answers.cost())
        digest = sha256_file(self.folder.write(f"predictions-{name}.jsonl", arm.report.jsonl()))
        note = {"key": self._key(shots, adapter), "answers": digest, "cost": arm.cost}
        self.folder.write(f"predictions-{name}.json", orjson.dumps(note))
        return arm

    def kept(self, name: str, shots: int, adapter: str | None = None) -> Arm | None:
        """What `sit` wrote before; None where it depended on something else, or is not whole."""
        answers = self.folder.path / f"predictions-{name}.jsonl"
        try:
            note = orjson.loads(answers.with_suffix(".json").read_bytes())
            whole = note["key"] == self._key(shots, adapter) and note["answers"] == sha256_file(
                answers
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if not whole:
            return None
        outputs = [one.output for one in accuracy.read(answers)]
        return Arm(score_predictions(self.task, self.rows, outputs), note["cost"])

    def _key(self, shots: int, adapter: str | None) -> dict[str, Any]:
        return {**self.key, "shots": shots, "adapter": adapter}
