"""The BLAS behind MLX on Linux, opened before `mlx.core` is first imported.

MLX's Linux wheel brings the reference BLAS, some 30 times slower than an optimised one. A library
that is opened globally first takes its place. Nothing happens on macOS. Left out: installing one.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

# What the wheel's own C interface calls: the first global library that has it provides it.
SYMBOL = "sgemm_"
OPENBLAS = ("libopenblas.so.0", "libopenblas.so")
SLOW = 8.0  # GFLOP/s on one core: the reference BLAS reaches 3, any real one 30 and more


@dataclass(frozen=True)
class Blas:
    """The library that multiplies matrices: its file as the linker reports it, and its speed."""

    path: str  # "" if the system's own framework does it
    gflops: float  # fp32, one product of 512 x 512

    @property
    def slow(self) -> bool:
        """Whether this is the reference BLAS, or as slow."""
        return self.gflops < SLOW


def _torch_library() -> Path | None:
    """Return torch's CPU library, which holds a BLAS, without importing torch."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "lib" / "libtorch_cpu.so"
    return path if path.is_file() else None


def open_fast() -> str:
    """Open the fastest BLAS here for all later libraries; return its path or name, or "".

    It must run before `import mlx.core`.
    """
    if sys.platform != "linux":
        return ""
    # Byte equality: MKL otherwise rounds by memory alignment. Read once, at its first product.
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
    torch = _torch_library()
    names = OPENBLAS if torch is None else (str(torch), *OPENBLAS)
    for name in names:
        try:
            library = ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        if hasattr(library, SYMBOL):
            return name
    return ""


class _DlInfo(ctypes.Structure):
    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("symbol", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def _library_of(symbol: str) -> str:
    """Return the library from which the dynamic linker takes `symbol`, or "" if none is global."""
    everything = ctypes.CDLL(None)
    if not hasattr(everything, symbol):
        return ""
    info = _DlInfo()
    address = ctypes.cast(getattr(everything, symbol), ctypes.c_void_p)
    known = everything.dladdr(address, ctypes.byref(info))
    return os.fsdecode(info.file) if known and info.file else ""


def report() -> Blas:
    """Measure the BLAS that MLX really uses on the CPU (a few milliseconds, 0.2 s when slow)."""
    import mlx.core as mx

    size = 512
    with mx.stream(mx.cpu):
        matrix = mx.ones((size, size))
        mx.eval(matrix @ matrix)
        start = time.perf_counter()
        mx.eval(matrix @ matrix)
        seconds = time.perf_counter() - start
    path = _library_of(SYMBOL) if sys.platform == "linux" else ""
    return Blas(path=path, gflops=2 * size**3 / seconds / 1e9)
