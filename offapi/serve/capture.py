"""Keep answers as traces before their last byte is sent, where the server was asked to.

Only a question and its answer are kept, not who asked: OpenAI's `user`, `metadata` and the like are
left out, and a request with `store: false` is not kept at all, nor is one whose client went away.
Left out: the file (`offapi.data.captured`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any

from offapi.data.captured import CaptureStore
from offapi.data.captured_answer import CapturedAnswer
from offapi.progress import Progress
from offapi.serve.chat_request import ChatRequest
from offapi.serve.completion_objects import ChoiceText, CompletionObjects
from offapi.serve.exchange import Finished
from offapi.serve.metrics import ServerMetrics

LOG = logging.getLogger("offapi.serve")
SECONDS_HELD = 0.25  # the longest that an answer waits for the disk
MIB = 1 << 20
SETTINGS = ("temperature", "top_p", "top_k", "min_p", "n", "max_tokens", "stop", "seed")


@dataclass(frozen=True)
class CaptureOptions:
    """Where answers are kept, how many bytes they may take, and for how long they stay."""

    folder: Path
    max_bytes: int = 1024 * MIB
    days: float = 30.0


class Capture:
    """Keeps the answers of a server. Nothing that goes wrong here reaches an answer."""

    def __init__(self, store: CaptureStore) -> None:
        self.store = store

    async def keep(
        self,
        objects: CompletionObjects,
        choices: Sequence[ChoiceText],
        finished: Finished,
        metrics: ServerMetrics,
    ) -> None:
        """Return when the answer is kept, or the disk has had its time."""

        def count(kept: Future[bool]) -> None:
            metrics.lost_traces.inc(not kept.result())

        if not objects.exchange.asked.store:
            return
        try:
            answers = list(captured_answers(objects, choices, finished))
        except Exception as error:  # the answer goes out whatever happens here
            LOG.error("an answer was not kept: %s", type(error).__name__)
            metrics.lost_traces.inc()
            return
        kept = [self.store.keep(each) for each in answers]
        for each in kept:
            each.add_done_callback(count)
        if self.store.behind:
            return
        _, late = await asyncio.wait(map(asyncio.wrap_future, kept), timeout=SECONDS_HELD)
        self.store.behind = self.store.behind or bool(late)

    def close(self) -> None:
        """Write what is waiting, and close the file."""
        self.store.close()


def open_capture(options: CaptureOptions | None, progress: Progress) -> Capture | None:
    """Open the file that is asked for, and say where it is. Raise what CaptureStore raises."""
    if options is None:
        return None
    folder, size = options.folder, options.max_bytes
    store = CaptureStore(folder, max_bytes=size, keep_days=options.days, say=progress.say)
    progress.say(
        f"Questions and answers are kept in {folder} for {options.days:g} days, in at most"
        f" {size // MIB:,} MiB. `offapi traces purge` removes them."
    )
    return Capture(store)


def captured_answers(
    objects: CompletionObjects, choices: Sequence[ChoiceText], finished: Finished
) -> Iterator[CapturedAnswer]:
    """Yield the choices of an answer as they are kept."""
    exchange, member = objects.exchange, finished.member
    now, usage = time(), objects.usage(choices)
    answer = member.get("answer") or {}
    for index, choice in enumerate(choices):
        replaced = index == 0 and finished.text is not None
        turn = finished.turns.get(index)
        called = {} if turn is None else turn.message()
        yield CapturedAnswer(
            id=f"{objects.id}-{index}" if index else objects.id,
            response=objects.id,
            group=objects.id if len(choices) > 1 else None,
            time=now,
            model=exchange.model.name,
            messages=exchange.asked.messages,
            answer=str(finished.text) if replaced else called.get("content", choice.text),
            finish=choice.reason or "stop",
            base=member["base"],
            adapter=member.get("adapter"),
            usage=usage,
            params=settings_of(exchange.asked),
            fields=answer.get("fields"),
            escalated=member.get("escalated"),
            tools=exchange.asked.tools,
            calls=called.get("tool_calls", ()),
        )


def settings_of(asked: ChatRequest) -> Mapping[str, Any]:
    """Return the settings of a request that are not the server's own."""
    usual = ChatRequest("", ())
    given = {name: getattr(asked, name) for name in SETTINGS}
    changed = {name: value for name, value in given.items() if value != getattr(usual, name)}
    form = {} if asked.format.type == "text" else {"response_format": asked.format.type}
    return {**changed, **form}
