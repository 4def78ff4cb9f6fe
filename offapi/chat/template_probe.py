"""Try a model's tokenizer and chat template, in a limited process, before the model is stored.

jinja2's sandbox stops code, but not an endless loop or an unbounded number; a tokenizer's regular
expressions and replacements can be as bad, and Ctrl-C does not reach them. Afterwards the hashes in
the lock pin both. Left out: folders that are used without being added.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from offapi.chat.abilities import FILE, try_abilities
from offapi.errors import ModelError
from offapi.files import atomic
from offapi.workers.spawn import end_with

SECONDS = 10  # CPU seconds; a tokenizer of 150,000 tokens loads in one, a template in milliseconds
MEMORY = 2 << 30  # bytes beyond what the tokenizer uses
PATIENCE = 600.0  # seconds, including imports, on a busy machine
REFUSE = (
    "Take the model from somewhere you trust, or write a working template to chat_template.jinja."
)
RUN = 2000  # times that a character or a word is repeated; no document is as hard on a tokenizer
RUNS = (*"a1 .-=_\t\n/(\"'é中", "ab", "a ", "a1", "1,", "The ", "\r\n", "aA", "😀")


def probe_template(folder: Path, origin: Path) -> None:
    """Raise ModelError, naming `origin`, unless the template in `folder` renders a chat.

    Write into the folder what it can be trained on (`offapi.chat.abilities`).
    """
    try:
        done = _run_apart(str(folder), str(SECONDS), str(os.getpid()))
    except subprocess.TimeoutExpired:
        raise _endless(origin, []) from None
    begun = done.stdout.splitlines()
    if done.returncode == -signal.SIGXCPU:
        raise _endless(origin, begun)
    try:
        fault = json.loads(begun[-1])
    except (IndexError, ValueError):
        fault = ""
    if isinstance(fault, list):
        atomic.write_file(folder / FILE, json.dumps(fault[0], indent=2).encode())
        return
    if not isinstance(fault, dict):  # the child died at what it had begun
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        last = next((line for line in lines if "memory" in line), lines[-1])
        what = f"{fault or 'the tokenizer and its chat template'} could not be tested: {last}"
        raise ModelError(what, where=str(origin), next_step=REFUSE)
    where = fault["where"].replace(str(folder), str(origin)) if origin.is_dir() else str(origin)
    raise ModelError(fault["what"], where=where, next_step=fault["next_step"])


def _run_apart(*words: str) -> subprocess.CompletedProcess[str]:
    """Run this module with `words`. It ends with this process, as the end of its input says."""
    ours, theirs = os.pipe()
    try:
        return subprocess.run(
            [sys.executable, "-P", "-m", "offapi.chat.template_probe", *words],
            stdin=ours,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            start_new_session=True,
        )
    finally:
        os.close(ours)
        os.close(theirs)


def _endless(origin: Path, begun: list[str]) -> ModelError:
    """Return the error for a child that was ended while it did the last thing it had begun."""
    what = json.loads(begun[-1]) if begun else "the chat template"
    return ModelError(
        f"{what} did not end within {SECONDS} s.", where=str(origin), next_step=REFUSE
    )


def _try(folder: Path, seconds: int) -> None:
    """Print what is begun, each time; then a list of the abilities, or what is wrong, as JSON."""
    sys.modules["torch"] = None  # type: ignore[assignment]  # tokenizers do not need it, and it takes seconds to import
    import transformers

    from offapi.chat.chat import Chat

    transformers.AutoTokenizer  # noqa: B018  # imported before time counts
    outcome: object
    try:
        _begin("loading the tokenizer", seconds)
        chat = Chat.load(folder)
        _begin("the tokenizer", seconds)
        for text in _texts():
            chat.decode(chat.encode(text))
        _begin("the chat template", seconds)
        chat.try_out()
        outcome = [try_abilities(chat)]
    except ModelError as error:
        outcome = {"what": error.what, "where": error.where, "next_step": error.next_step}
    except MemoryError:
        outcome = {"what": "the tokenizer takes too much memory.", "where": "", "next_step": REFUSE}
    print(json.dumps(outcome), flush=True)
    os._exit(0)  # unloading libraries takes seconds too


def _texts() -> Iterator[str]:
    """Yield every character of the basic plane, and long runs, which bad expressions choke on."""
    for start in range(0, 0xD800, 256):
        yield "".join(map(chr, range(start, start + 256)))
    for start in range(0xE000, 0x10000, 256):
        yield "".join(map(chr, range(start, start + 256)))
    yield from (f"{run * RUN}!" for run in RUNS)


def _begin(what: str, seconds: int) -> None:
    """Say what is begun, and let the system end this process after `seconds` more of computing.

    It also refuses the process much more memory. Only the soft limits are set, which can be raised.
    """
    import psutil

    print(json.dumps(what), flush=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used = resource.getrusage(resource.RUSAGE_SELF)
    end = math.ceil(used.ru_utime + used.ru_stime) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (end, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    with suppress(ValueError, OSError):  # macOS has no such limit
        most = psutil.Process().memory_info().vms + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


if __name__ == "__main__":
    end_with(int(sys.argv[3]), sys.stdin.fileno())
    _try(Path(sys.argv[1]), int(sys.argv[2]))
