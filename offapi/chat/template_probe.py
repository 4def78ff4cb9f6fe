"""Render a model's chat template once, in a limited process, before the model is stored.

jinja2's sandbox stops code, but not an endless loop or an unbounded number. Afterwards the hash in
the lock pins the template. Left out: folders that are used without being added.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from offapi.errors import ModelError

SECONDS = 10  # CPU seconds; a template takes milliseconds
MEMORY = 2 << 30  # bytes beyond what the tokenizer uses
PATIENCE = 600.0  # seconds, including imports, on a busy machine
REFUSE = (
    "Take the model from somewhere you trust, or write a working template to chat_template.jinja."
)


def probe_template(folder: Path, origin: Path) -> None:
    """Raise ModelError, naming `origin`, unless the template in `folder` renders a chat."""
    command = [sys.executable, "-P", "-m", "offapi.chat.template_probe", str(folder), str(SECONDS)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        raise _endless(origin) from None
    if done.returncode == -signal.SIGXCPU:
        raise _endless(origin)
    try:
        fault = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        what = f"the tokenizer and its chat template could not be tested: {last}"
        raise ModelError(what, where=str(origin), next_step=REFUSE) from None
    if fault:
        where = fault["where"].replace(str(folder), str(origin)) if origin.is_dir() else str(origin)
        raise ModelError(fault["what"], where=where, next_step=fault["next_step"])


def _endless(origin: Path) -> ModelError:
    return ModelError(
        f"the chat template did not end within {SECONDS} s.", where=str(origin), next_step=REFUSE
    )


def _try(folder: Path, seconds: int) -> None:
    """Print {}, or what is wrong with the template, as JSON."""
    sys.modules["torch"] = None  # type: ignore[assignment]  # tokenizers do not need it, and it takes seconds to import
    from offapi.chat.chat import Chat

    fault = {}
    try:
        chat = Chat.load(folder)
        _limit(seconds)
        chat.try_out()
    except ModelError as error:
        fault = {"what": error.what, "where": error.where, "next_step": error.next_step}
    print(json.dumps(fault), flush=True)
    os._exit(0)  # unloading libraries takes seconds too


def _limit(seconds: int) -> None:
    """Let the system end this process after `seconds` more of computing.

    It also refuses the process much more memory.
    """
    import psutil

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used = resource.getrusage(resource.RUSAGE_SELF)
    end = math.ceil(used.ru_utime + used.ru_stime) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (end, end + 1))
    with suppress(ValueError, OSError):  # macOS has no such limit
        most = psutil.Process().memory_info().vms + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    _try(Path(sys.argv[1]), int(sys.argv[2]))
