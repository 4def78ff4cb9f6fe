"""The documents GRPO trains on and those it holds out, as prompts.

Gold is optional and used for the audit alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from offapi.chat.chat import Chat
from offapi.chat.fit import OnLong, fit_episodes
from offapi.chat.tool_format import ToolFormat
from offapi.data import documents
from offapi.data.documents import Document
from offapi.data.hold_out import hold_out
from offapi.episodes import Episode, Segment
from offapi.errors import DataError
from offapi.progress import Progress
from offapi.rl.learned_documents import known
from offapi.rl.rollouts import Prompt
from offapi.task import Task
from offapi.text.display import plural

MORE = "Add documents, or hold out a separate file (`val`)."


def read(
    data: Path, val: Path | None, task: Task, seed: int, adapter: Path | None = None
) -> tuple[list[Document], list[Document]]:
    """Read the documents to train on and those held out: `val`, or a tenth of `data` by `seed`.

    Raises DataError for a document in both, for a held-out one that `adapter` has learned, for gold
    the task cannot compare, and where too few are left.
    """
    rows, learned = documents.read(data), known(adapter)
    rows, held = (rows, documents.read(val)) if val else hold_out(rows, seed, learned)
    memorised = [row.id for row in held if row.text in learned]
    if memorised:
        what = (
            f"document {memorised[0]!r} is held out, but the adapter has learned it"
            f" ({plural(len(memorised), 'such document')}): its score would show memory, not skill."
        )
        step = "Hold out documents that the adapter has not seen: name their file as `val`."
        raise DataError(what, where=str(val or data), next_step=step)
    texts = {row.text for row in held}
    both = [row.id for row in rows if row.text in texts]
    if both:
        what = (
            f"document {both[0]!r} is also held out ({plural(len(both), 'such document')}): the run"
            " would train on it and score it."
        )
        raise DataError(what, where=str(data), next_step="Remove it from one of the files.")
    if not rows:
        raise DataError("no document is left to train on.", where=str(data), next_step=MORE)
    for row in (*rows, *held):
        if row.gold is not None:
            task.check_gold(row.gold, row=row.id)
    return rows, held


def require_gold(rows: Sequence[Document]) -> None:
    """Raise DataError for a document without gold, where right answers are rewarded."""
    without = [row.id for row in rows if row.gold is None]
    if without:
        count = plural(len(without), "such document")
        what = f'document {without[0]!r} has no gold ({count}), and gold = "reward" needs it.'
        raise DataError(what, next_step='Add its answer, leave it out, or use gold = "audit".')


def prompts(
    rows: Sequence[Document],
    task: Task,
    writer: Chat | ToolFormat,
    max_tokens: int,
    on_long: OnLong,
    progress: Progress,
) -> tuple[Prompt, ...]:
    """Return the prompts that ask for the documents' answers, an agent's with its tools.

    Prompt and answer have at most `max_tokens`; longer ones are refused or dropped.
    """
    messages = {row.id: tuple(task.messages(row.text)) for row in rows}
    asked = [
        Episode(row.id, (Segment(writer.prompt(messages[row.id]), sampled=False),)) for row in rows
    ]
    fitted = fit_episodes(asked, max_tokens - task.max_answer_tokens, on_long)
    if fitted.dropped:
        progress.say(
            f"Dropped {len(fitted.dropped)} of {plural(len(rows), 'document')}: longer than"
            f" {plural(max_tokens, 'token')} with their answer."
        )
    by_id = {row.id: row for row in rows}
    return tuple(
        Prompt(by_id[episode.id], episode.tokens, messages[episode.id])
        for episode in fitted.episodes
    )
