"""A loaded model's answers to documents, greedy, as evaluation and teachers' labels want them.

Left out: sampling, tools, and answers from anything but a backend.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from offapi.backend import Backend, Sampling
from offapi.chat import Chat
from offapi.data.documents import Document
from offapi.progress import Progress
from offapi.task import Task


@dataclass(frozen=True)
class Predictions:
    """One raw output a document, in their order, and what they cost."""

    outputs: tuple[str, ...]
    truncated: tuple[bool, ...]  # stopped by the token limit, not by the model
    prompt_tokens: int  # of all prompts, as an endpoint would count them
    completion_tokens: int
    seconds: float

    def cost(self) -> dict[str, float]:
        """Per document: prompt tokens, completion tokens and seconds."""
        count = len(self.outputs)
        return {
            "prompt_tokens": round(self.prompt_tokens / count, 1),
            "completion_tokens": round(self.completion_tokens / count, 1),
            "seconds": round(self.seconds / count, 3),
        }


def predict(
    backend: Backend, chat: Chat, task: Task, documents: Sequence[Document], out: Progress, shots: int = 0
) -> Predictions:
    """Ask the loaded model for every document's answer, `shots` worked examples in the prompt."""
    prompts = [chat.prompt(task.messages(document.text, shots)) for document in documents]
    outputs, truncated = [""] * len(documents), [False] * len(documents)
    sampling = Sampling(max_tokens=task.max_answer_tokens, stop_ids=chat.stop_ids)
    completion_tokens, started = 0, time.perf_counter()
    with out.progress("reading", len(documents)) as advance:
        for done, group in enumerate(backend.rollout(prompts, 1, sampling), start=1):
            completion = group.completions[0]
            outputs[group.prompt] = chat.decode(completion.tokens)
            truncated[group.prompt] = completion.finish == "length"
            completion_tokens += len(completion.tokens)
            advance(done)
    seconds = time.perf_counter() - started
    return Predictions(tuple(outputs), tuple(truncated), sum(map(len, prompts)), completion_tokens, seconds)
