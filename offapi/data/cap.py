"""Fewer rows of what is frequent: real logs are skewed,
and a model learns the few big senders by heart.

Left out: making train, validation and test sets; that is the owner's to decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from offapi.data.documents import Document
from offapi.errors import ConfigError
from offapi.randomness import order
from offapi.text.normalise import bare


def cap_groups(
    documents: Sequence[Document], field: str, limit: int, seed: int = 0
) -> list[Document]:
    """At most `limit` documents for each value of the
    answer's `field`, drawn by `seed`, in their old order.

    The field is the gold answer's, else the recorded label's, compared as text; documents
    that have neither are all kept. ConfigError when `limit` is below 1.
    """
    if limit < 1:
        raise ConfigError(
            f"at most {limit} rows a group leaves nothing.", next_step="Give a limit of 1 or more."
        )
    kept: list[int] = []
    used: Counter[str] = Counter()
    for i in order(seed, 0, len(documents)):
        group = _group(documents[i], field)
        if group is None or used[group] < limit:
            kept.append(i)
            used.update(() if group is None else (group,))
    return [documents[i] for i in sorted(kept)]


def _group(document: Document, field: str) -> str | None:
    for answer in (document.gold, document.recorded_label):
        if answer is not None and answer.get(field) is not None:
            return bare(str(answer[field]))
    return None
