"""What a row is that is not of the kind a reader wants: a document, a trace, or a label."""

from __future__ import annotations

from typing import Literal

from offapi.files.jsonl import JsonRow

LABEL = {"output", "teacher", "prompt_sha256"}
IS_LABEL = "the row is a label, as `offapi label` writes them: an answer without its document."
GRADE_LABELS = (
    "Grade them with `offapi grade --traces LABELS --documents DOCUMENTS`; the recipe distill takes"
    " them as `labels`."
)
OTHERS = {
    "document": ("messages", "the row is a trace (messages), not a document."),
    "messages": ("document", "the row is a document, not a trace (messages)."),
}
STEPS = {
    "document": "Traces are for `offapi grade --traces` and the recipe filtered_sft.",
    "messages": "Documents are for `offapi label`, and for the recipes as `data`.",
}


def is_label(row: JsonRow) -> bool:
    """Return whether `row` is of a labels file."""
    return row.value.keys() >= LABEL


def refuse_other_kind(row: JsonRow, wanted: Literal["document", "messages"]) -> None:
    """Raise DataError where a row without the field `wanted` is known to be something else."""
    if is_label(row):
        raise row.error(IS_LABEL, next_step=GRADE_LABELS)
    other, what = OTHERS[wanted]
    if other in row.value:
        raise row.error(what, next_step=STEPS[wanted])
