"""Open exported GGUF folders one after the other, in a process that has only the files.

Standard input: [[folder, base, FormQuestions], ...]; the last line of standard output: for each,
its answers, or the error.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from offapi.errors import OffapiError
from offapi.export.llama_cpp import open_gguf
from offapi.export.reopen import FormQuestions, answer


def main() -> None:
    """Answer on what was standard output."""
    out = os.dup(1)
    os.dup2(2, 1)
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=list[tuple[str, str, FormQuestions]])
    told: list[Any] = []
    for folder, base, questions in asked:
        try:
            told.append(msgspec.to_builtins(answer(open_gguf(Path(folder), Path(base)), questions)))
        except OffapiError as error:
            told.append(error.what)
    with os.fdopen(out, "wb") as stream:
        stream.write(msgspec.json.encode(told))


if __name__ == "__main__":
    main()
