"""Limit the rows of each group: real logs are skewed, and a model memorises the few big senders.

Left out: splitting into training, validation and test sets, which the owner decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from offapi.data.documents import Document, fields_of
from offapi.errors import ConfigError
from offapi.randomness import order
from offapi.text.normalise import bare


def cap_groups(
    documents: Sequence[Document], field: str, limit: int, seed: int = 0
) -> list[Document]:
    """Return at most `limit` documents for each value of the answer's `field`, in their old order.

    They are drawn by `seed`. The field is the gold answer's, else the recorded label's, compared as
    text; documents without either are all kept. Raise ConfigError when `limit` is below 1.
    """
    if limit < 1:
        raise ConfigError(
            f"the rows per group must be at least 1, got {limit}.",
            next_step="Give a limit of 1 or more.",
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
        if fields_of(answer).get(field) is not None:
            return bare(str(fields_of(answer)[field]))
    return None
