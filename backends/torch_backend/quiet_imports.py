"""Libraries imported when they are needed, and without what they look for on the way.

PEFT and transformers import every quantiser that is installed, which takes seconds and prints.
bitsandbytes asks a hub for a kernel, if the package `kernels` is there, and logs a warning if it is
not. Left out: what a library does later, where the offline guard stands.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from offapi.errors import BackendError

QUANTISERS = ("bitsandbytes", "torchao")  # whose layers PEFT tells apart; lora.py does not
KERNELS = "kernels"  # the package that fetches code from a hub


@contextmanager
def hidden(*names: str) -> Iterator[None]:
    """Let imports inside the context find none of the packages `names`."""
    before = {name: sys.modules[name] for name in names if name in sys.modules}
    try:
        sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type]
        yield
    finally:
        for name in names:
            del sys.modules[name]
        sys.modules.update(before)


def import_bitsandbytes() -> Any:
    """Return bitsandbytes; raise BackendError where it is not installed."""
    logger = logging.getLogger("bitsandbytes")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        with hidden(KERNELS):
            return import_module("bitsandbytes")
    except ImportError as error:
        raise BackendError(
            f"4 bits on torch need bitsandbytes, which cannot be imported: {error}.",
            next_step="Run `pip install 'offapi-kit[quant]'`, or set quantize = 8.",
        ) from error
    finally:
        logger.setLevel(level)
