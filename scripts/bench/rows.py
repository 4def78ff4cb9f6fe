"""Documents with known answers for the benches: real ones, or generated ones of similar length."""

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
SHORTEST, TYPICAL, LONGEST = 300, 500, 1000  # tokens of a row
SPREAD = 0.25  # standard deviation of the logarithm of a row's tokens


def task(path: Path | None) -> Task:
    """Return the task of the file, or the demo's."""
    return demo.task if path is None else load_task(path)


def read(path: Path | None, count: int, chat: Chat) -> list[Document]:
    """Return the first `count` documents with gold in `path`, or generated receipts without it."""
    if path is None:
        return receipts(count, chat)
    labelled = [row for row in documents.read(path) if row.gold is not None][:count]
    if len(labelled) < count:
        what = f"there must be {count} documents with gold, got {len(labelled)}."
        raise DataError(what, where=str(path), next_step="Ask for fewer steps or documents.")
    return labelled


def receipts(count: int, chat: Chat) -> list[Document]:
    """Generate documents, lengthened by lines of others to lengths like those of real receipts."""
    draw = np.random.default_rng(0)
    lengths = np.clip(TYPICAL * np.exp(SPREAD * draw.standard_normal(count)), SHORTEST, LONGEST)
    lines = [
        line for row in generator.generate("val", 40 * count) for line in row.text.splitlines()
    ]
    padded = []
    for row, length in zip(generator.generate("train", count), lengths, strict=True):
        text = row.text + "\n--"
        while len(chat.encode(text)) < length:
            text += "\n" + lines[draw.integers(len(lines))]
        padded.append(Document(row.id, text, row.gold))
    return padded


def weights(folder: Path) -> tuple[list[tuple[int, int]], int]:
    """Return the shapes of the linears, and the number of weights in the output embedding."""
    shapes, head = [], 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "np") as tensors:
            for name in tensors.keys():  # noqa: SIM118 -- it is not a dict
                shape = tensors.get_slice(name).get_shape()
                if name.removesuffix(".weight").endswith(LINEARS):
                    shapes.append((shape[0], shape[1]))
                elif name in ("model.embed_tokens.weight", "lm_head.weight"):
                    head = shape[0] * shape[1]
    return shapes, head
