"""What the benches work on: documents with known
answers, real ones or generated ones of like length.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import safe_open

from offapi.chat.chat import Chat
from offapi.data import documents
from offapi.data.documents import Document
from offapi.demo import generate as generator
from offapi.demo import task as demo
from offapi.errors import DataError
from offapi.task import Task, load_task

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SHORTEST, TYPICAL, LONGEST, SPREAD = (
    300,
    500,
    1000,
    0.25,
)  # tokens of a row; the spread is of their logarithm


def task(path: Path | None) -> Task:
    """The task file, or the demo's task."""
    return demo.task if path is None else load_task(path)


def read(path: Path | None, count: int, chat: Chat) -> list[Document]:
    """The first `count` documents with a gold answer in `path`; without it, generated receipts."""
    if path is None:
        return receipts(count, chat)
    found = [row for row in documents.read(path) if row.gold is not None][:count]
    if len(found) < count:
        what = f"{count} documents with gold are needed, {len(found)} are there."
        raise DataError(what, where=str(path), next_step="Take fewer steps or documents.")
    return found


def receipts(count: int, chat: Chat) -> list[Document]:
    """Generated documents, each with lines of others
    behind it up to a length drawn as real receipts' is.
    """
    draw = np.random.default_rng(0)
    lengths = np.clip(TYPICAL * np.exp(SPREAD * draw.standard_normal(count)), SHORTEST, LONGEST)
    lines = [
        line for row in generator.generate("val", 40 * count) for line in row.text.splitlines()
    ]
    made = []
    for row, length in zip(generator.generate("train", count), lengths, strict=True):
        text = row.text + "\n--"
        while len(chat.encode(text)) < length:
            text += "\n" + lines[draw.integers(len(lines))]
        made.append(Document(row.id, text, row.gold))
    return made


def weights(folder: Path) -> tuple[list[tuple[int, int]], int]:
    """Shapes of the layers' linears, and the number
    of weights in the embedding that predicts tokens.
    """
    shapes, head = [], 0
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "np") as tensors:
            for name in tensors.keys():  # noqa: SIM118 -- it is no dict
                shape = tensors.get_slice(name).get_shape()
                if name.removesuffix(".weight").endswith(LINEARS):
                    shapes.append((shape[0], shape[1]))
                elif name in ("model.embed_tokens.weight", "lm_head.weight"):
                    head = shape[0] * shape[1]
    return shapes, head
