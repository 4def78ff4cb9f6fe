"""A model's chat template rendered for the first time,
in a process with limits, before the model is stored.

jinja2's sandbox stops code, not a loop without end or a number without bound. Afterwards the lock's
hash holds the template fixed. Left out: folders that are used without being added.
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

SECONDS = 10  # of computing; a template takes milliseconds
MEMORY = 2 << 30  # bytes beyond what the tokenizer took
PATIENCE = 600.0  # seconds, for importing and all, on a busy machine
REFUSE = (
    "Take the model from somewhere you trust, or put a template that works into"
    " chat_template.jinja."
)


def probe_template(folder: Path, origin: Path) -> None:
    """Raises ModelError, naming `origin`, unless the
    model in `folder` has a template that renders a chat.
    """
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
        said = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        what = f"the tokenizer and its chat template could not be tried: {last}"
        raise ModelError(what, where=str(origin), next_step=REFUSE) from None
    if said:
        where = said["where"].replace(str(folder), str(origin)) if origin.is_dir() else str(origin)
        raise ModelError(said["what"], where=where, next_step=said["next_step"])


def _endless(origin: Path) -> ModelError:
    return ModelError(
        f"the chat template did not end within {SECONDS} s.", where=str(origin), next_step=REFUSE
    )


def _try(folder: Path, seconds: int) -> None:
    """Print {}, or what is wrong with the template, as JSON."""
    sys.modules["torch"] = None  # type: ignore[assignment]  # tokenizers do without, and it takes seconds to import
    from offapi.chat.chat import Chat

    said = {}
    try:
        chat = Chat.load(folder)
        _limit(seconds)
        chat.try_out()
    except ModelError as error:
        said = {"what": error.what, "where": error.where, "next_step": error.next_step}
    print(json.dumps(said), flush=True)
    os._exit(0)  # taking libraries down costs seconds too


def _limit(seconds: int) -> None:
    """Let the system end this process after so many more
    seconds of computing, and refuse it much more memory.
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
