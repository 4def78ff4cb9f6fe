"""Answers for tests of what a server keeps."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from offapi.data.captured import CaptureStore
from offapi.data.captured_answer import CapturedAnswer

HASH = "0" * 64


def answer(number: int, asked: str = "from Ashu", said: str = "{}", **more: Any) -> CapturedAnswer:
    """Return an answer with the id `answer-NUMBER`."""
    given: dict[str, Any] = {
        "id": f"answer-{number}",
        "response": f"answer-{number}",
        "time": time.time(),
        "model": "shops",
        "messages": ({"role": "user", "content": asked},),
        "answer": said,
        "finish": "stop",
        "base": {"name": "tiny", "sha256": HASH},
    }
    return CapturedAnswer(**(given | more))


def keep(folder: Path, *answers: CapturedAnswer) -> Path:
    """Keep `answers` in `folder`, as a server does; return the folder."""
    store = CaptureStore(folder)
    assert all(kept.result(10) for kept in map(store.keep, answers))
    store.close()
    return folder
