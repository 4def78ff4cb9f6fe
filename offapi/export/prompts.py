"""The fixed prompts on which an exported model is compared with its source.

Chats in several languages and shapes, the run's own question about fixed texts, and the random
tokens of `offapi.models.parity`, whose length shows a wrong rotation of positions. Left out: the
user's documents, so that no export depends on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from offapi.chat.chat import Chat
from offapi.task import Task

Turns = Sequence[Mapping[str, str]]

CHATS: tuple[Turns, ...] = (
    ({"role": "user", "content": "Name three colours."},),
    ({"role": "user", "content": "Write one sentence about the sea, in French."},),
    ({"role": "user", "content": "def mean(numbers):\n    return\nFinish this function."},),
    (
        {"role": "user", "content": "What is 17 + 25?"},
        {"role": "assistant", "content": "42"},
        {"role": "user", "content": "And twice that? Grüße aus Zürich, 東京, 🙂"},
    ),
)
DOCUMENTS = (
    "Received from Alder & Sons, 14 March 2024: two desks at 120.00 and a lamp at 35.50."
    " Total 275.50, paid by card. Reference A-1093.",
    "Dear team, the meeting moves to Thursday at ten, room 4. Please bring the signed forms."
    " Kind regards, Robin",
)
ANSWER_TOKENS = 24  # greedy tokens compared after each prompt


def fixed_prompts(chat: Chat, task: Task | None) -> list[tuple[int, ...]]:
    """Return the tokens of every prompt: the chats, and the task's question about each document."""
    prompts = [chat.prompt(turns) for turns in CHATS]
    if task is not None:
        prompts += [chat.prompt(task.messages(document)) for document in DOCUMENTS]
    return prompts
