"""Questions of a served model's task: the document that is asked about, and its answer.

They are answered as `offapi predict` answers them, with fields, confidence and places in the
document. Any other request is a plain chat. Left out: chats (`offapi.serve.plan`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from offapi.completions import Completion
from offapi.constrain.keywords import ANNOTATIONS
from offapi.data.documents import Document
from offapi.engine import RowRequest
from offapi.errors import DataError, OffapiError
from offapi.predict.predict_documents import AskedDocument
from offapi.predict.prediction import DocumentAnswer
from offapi.predict.predictor import AskedHow
from offapi.serve.acceptance import why_unaccepted
from offapi.serve.chat_request import ChatRequest, ResponseFormat
from offapi.serve.errors import ApiError, wrong
from offapi.serve.escalation import Escalated
from offapi.serve.exchange import Exchange, Finished
from offapi.serve.served_models import ServedModel
from offapi.serve.server import Server
from offapi.task import Task

PLAIN = "Answered as a plain chat, without confidence"
_PROSE = ANNOTATIONS - {"$defs", "definitions"}
_NAMED = ("properties", "$defs", "definitions")  # keywords whose members have names of their own


@dataclass(frozen=True)
class NoQuestion:
    """A request of another kind; `note`, if not empty, says to the client why."""

    note: str = ""


def read_question(task: Task | None, asked: ChatRequest) -> Document | NoQuestion:
    """Return the document that a request asks the task about, or why it asks something else.

    Its messages are the task's own for the document, or the document alone.
    """
    if task is None:
        return NoQuestion()
    if task.is_agent:
        return NoQuestion(f"{PLAIN}: task {task.name!r} has tools, which the client runs.")
    last = asked.messages[-1]
    text = last["content"]
    alone = len(asked.messages) == 1 and last["role"] == "user"
    if not alone and not _same_messages(task.messages(text), asked.messages):
        return NoQuestion(f"{PLAIN}: the messages are not those of task {task.name!r}.")
    if not text.strip():
        return NoQuestion(f"{PLAIN}: the document is empty.")
    why = _other_parameter(task, asked)
    return NoQuestion(f"{PLAIN}: {why}.") if why else Document("", text)


def plan_question(
    server: Server, model: ServedModel, asked: ChatRequest, document: Document
) -> Exchange:
    """Return the exchange that answers a question of the task.

    Raise ApiError where the document does not fit into the model's context.
    """
    how, asking = model.calibration.now()
    try:
        question = AskedDocument.of(asking, document)
    except DataError:
        message = "The document and its answer do not fit into the model's context."
        raise ApiError(400, message, param="messages", code="context_length_exceeded") from None
    except OffapiError:
        message = "The model's chat template cannot render the document."
        raise wrong("messages", message, "invalid_value") from None
    sampling = replace(
        asking.sampling,
        signals=asking.signals or asked.logprobs,
        top_logprobs=asked.top_logprobs,
    )
    row = RowRequest(question.prompt, sampling, adapter=model.adapter, start=question.start)
    rows = tuple(replace(row, sample=sample) for sample in range(asking.readings))
    answering = TaskAnswer(server, model, question, how)
    held = server.escalation is not None
    return Exchange(model, asked, rows, answering.finish, held=held)


@dataclass(frozen=True)
class TaskAnswer:
    """What is done with the readings of one document."""

    server: Server
    model: ServedModel
    question: AskedDocument
    how: AskedHow

    async def finish(self, completions: Sequence[Completion]) -> Finished:
        """Return the answer's member, and the text of a stronger endpoint if it was asked."""
        answer = self.question.answer(completions)
        why = why_unaccepted(answer, self.how, self.server.below)
        known = answer.as_row()
        del known["id"]
        member: dict[str, Any] = {**self.model.identity, "answer": known}
        notes = [f"No confidence: {self.how.no_promise}"] if self.how.no_promise else []
        self._count(answer)
        if not why:
            return Finished(noted(member, *notes))
        notes += await self._ask_person(answer, why)
        escalated = await self._escalate(why)
        if escalated is None:
            return Finished(noted(member, *notes))
        member = {**noted(member, *notes), "escalated": escalated.member}
        reasons = {} if escalated.text is None else {0: "stop"}
        return Finished(member, escalated.text, reasons)

    async def _ask_person(self, answer: DocumentAnswer, why: str) -> list[str]:
        """Put the document into the review queue, if there is one, and say so."""
        queue = self.server.review_queue
        if queue is None:
            return []
        text = self.question.document.text
        try:
            added = await asyncio.to_thread(queue.add, text, answer, why, self.model.name)
        except OffapiError:
            return ["The review queue cannot be written."]
        return ["Put into the review queue." if added else "It is in the review queue already."]

    async def _escalate(self, why: str) -> Escalated | None:
        escalation = self.server.escalation
        if escalation is None:
            return None
        asking = self.question
        escalated = await escalation.ask(
            self.model.name, asking.asking.task, asking.document.text, why
        )
        result = "failed" if escalated.text is None else "answered"
        self.server.metrics.escalated.labels(escalation.to, result).inc()
        return escalated

    def _count(self, answer: DocumentAnswer) -> None:
        results = {True: "accepted", False: "not accepted", None: "no confidence"}
        result = "no answer" if answer.error is not None else results[answer.accepted]
        self.server.metrics.answers.labels(result).inc()


def same_schema(one: object, other: object) -> bool:
    """Return whether two schemas ask for the same, apart from prose and closed objects."""
    return _bare(one) == _bare(other)


def noted(member: Mapping[str, Any], *notes: str) -> dict[str, Any]:
    """Return `member` with the notes that say something."""
    said = " ".join(filter(None, notes))
    return {**member, "note": said} if said else dict(member)


def _same_messages(own: Sequence[Mapping[str, Any]], given: Sequence[Mapping[str, str]]) -> bool:
    return list(map(_plain, own)) == list(map(_plain, given))


def _plain(message: Mapping[str, Any]) -> tuple[str, str]:
    role = message["role"]
    return "system" if role == "developer" else role, message["content"]


def _other_parameter(task: Task, asked: ChatRequest) -> str:
    """Return which parameter asks for something else than the task's answer; "" if none does."""
    if asked.temperature != 0:
        return "'temperature' is not 0"
    if asked.n != 1:
        return "'n' is not 1"
    if asked.stop:
        return "'stop' is set"
    if asked.max_tokens is not None and asked.max_tokens < task.max_answer_tokens:
        return f"'max_tokens' is below the task's {task.max_answer_tokens}"
    return "" if _fits(task, asked.format) else "'response_format' is not the task's"


def _fits(task: Task, format: ResponseFormat) -> bool:
    """Return whether every answer of the task is of that format."""
    if format.type == "text":
        return True
    if task.schema is None:
        return False
    if format.type == "json_object":
        return True
    return same_schema((format.json_schema or {}).get("schema"), task.schema)


def _bare(schema: object) -> object:
    if isinstance(schema, list | tuple):
        return [_bare(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    kept = {key: part for key, part in schema.items() if not _says_nothing(key, part)}
    return {key: _members(part) if key in _NAMED else _bare(part) for key, part in kept.items()}


def _members(part: object) -> object:
    if not isinstance(part, Mapping):
        return part
    return {name: _bare(each) for name, each in part.items()}


def _says_nothing(key: str, part: object) -> bool:
    return key in _PROSE or key.startswith("x-") or (key == "additionalProperties" and not part)
