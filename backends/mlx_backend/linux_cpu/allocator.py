"""Keep glibc from returning large freed blocks to the kernel.

MLX's CPU arrays are plain malloc blocks. By default glibc maps each large one anew, and the page
faults cost as much as the arithmetic. Left out: other C libraries, where nothing changes.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_MOST = 2**31 - 1


def keep_large_blocks() -> bool:
    """Set malloc's thresholds for this process; return whether that worked."""
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return False
    return bool(library.mallopt(_M_MMAP_MAX, 0) and library.mallopt(_M_TRIM_THRESHOLD, _MOST))
