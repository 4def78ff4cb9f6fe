"""The documents GRPO trains on and those it holds out, as prompts.

Gold is optional, and audits alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from offapi.chat.chat import Chat, OnLong, fit_episodes
from offapi.data import documents
from offapi.data.documents import Document
from offapi.data.hold_out import hold_out
from offapi.episodes import Episode, Segment
from offapi.errors import DataError
from offapi.progress import Progress
from offapi.rl.learned_documents import known
from offapi.rl.rollouts import Prompt
from offapi.task import Task

TEACHES = "Give it more documents, or hold out a file of their own (`val`)."


def read(
    data: Path, val: Path | None, task: Task, seed: int, adapter: Path | None = None
) -> tuple[list[Document], list[Document]]:
    """Documents to train on and documents held out:
    those in `val`, or a tenth of `data` drawn by `seed`.

    DataError for a document in both, for one held out that `adapter` has learned, for gold the task
    cannot compare, and where too few are left.
    """
    rows, learned = documents.read(data), known(adapter)
    rows, held = (rows, documents.read(val)) if val else hold_out(rows, seed, learned)
    known_by_heart = [row.id for row in held if row.text in learned]
    if known_by_heart:
        what = (
            f"document {known_by_heart[0]!r} is held out, and the adapter has learned it"
            f" ({len(known_by_heart)} are)"
        )
        step = "Hold out documents that it has not seen: name their file as `val`."
        raise DataError(f"{what}: it would show memory.", where=str(val or data), next_step=step)
    texts = {row.text for row in held}
    both = [row.id for row in rows if row.text in texts]
    if both:
        what = (
            f"document {both[0]!r} is also held out ({len(both)} are): it would be trained on and"
            " scored."
        )
        raise DataError(what, where=str(data), next_step="Take it out of one of the files.")
    if not rows:
        raise DataError("no document is left to train on.", where=str(data), next_step=TEACHES)
    for row in (*rows, *held):
        if row.gold is not None:
            task.check_gold(row.gold, row=row.id)
    return rows, held


def prompts(
    rows: Sequence[Document],
    task: Task,
    chat: Chat,
    max_tokens: int,
    on_long: OnLong,
    out: Progress,
) -> tuple[Prompt, ...]:
    """What asks for each document's answer; at most `max_tokens`
    with the answer, longer ones refused or dropped.
    """
    asked = [
        Episode(row.id, (Segment(chat.prompt(task.messages(row.text)), sampled=False),))
        for row in rows
    ]
    fitted = fit_episodes(asked, max_tokens - task.max_answer_tokens, on_long)
    if fitted.dropped:
        out.say(
            f"Dropped {len(fitted.dropped)} of {len(rows)} documents over {max_tokens} tokens with"
            " their answer."
        )
    known = {row.id: row for row in rows}
    return tuple(Prompt(known[episode.id], episode.tokens) for episode in fitted.episodes)
