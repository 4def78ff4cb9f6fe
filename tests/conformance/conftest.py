"""Every test here runs on every backend, through the same contract, on the tiny model.

On the CPU, unless asked for the GPU: ./scripts/test tests/conformance --device gpu
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import oracle
import pytest
import tiny_llama

from offapi import backend as seam
from offapi.backend import Backend
from offapi.model_spec import ModelSpec
from offapi.optimizer import Arrays


def pytest_configure(config: pytest.Config) -> None:
    """Allow a GPU's float32 its own sums."""
    if config.getoption("--device") == "gpu":
        oracle.CLOSE = 1e-4


NEEDS = {"torch": ("torch", "peft"), "mlx": ("mlx", "mlx_lm")}
SHAPE = oracle.SHAPE

Load = Callable[..., Backend]

# Whatever imports mlx first decides on its BLAS for the whole process: let it be the backend.
if find_spec("mlx_lm") is not None:
    import_module("offapi.backends.mlx_backend")


@pytest.fixture(params=sorted(NEEDS))
def backend_name(request: pytest.FixtureRequest) -> str:
    """The backend under test; skipped where its libraries are not installed."""
    name: str = request.param
    missing = [library for library in NEEDS[name] if find_spec(library) is None]
    if missing:
        pytest.skip(f"{name}: {', '.join(missing)} not installed")
    return name


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama."""
    return tiny_llama.write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def truth(model_folder: Path) -> oracle.Llama:
    """The same model in NumPy."""
    return oracle.load(model_folder)


@pytest.fixture
def implementation(request: pytest.FixtureRequest) -> str:
    """How the model is computed; see `implementations.EVERY`."""
    return str(getattr(request, "param", "auto"))


@pytest.fixture
def load(
    backend_name: str, implementation: str, model_folder: Path, request: pytest.FixtureRequest
) -> Iterator[Load]:
    """`load(lora=..., limits=...)` gives the tiny model in fp32, on the device under test."""
    opened: list[Backend] = []
    on_gpu = request.config.getoption("--device") == "gpu"

    def start(**fields: object) -> Backend:
        name = str(fields.pop("name", backend_name))
        device = ({"torch": "cuda", "mlx": "gpu"} if on_gpu else dict.fromkeys(NEEDS, "cpu"))[name]
        given = {"path": model_folder, "device": device, "implementation": implementation}
        opened.append(seam.load(name, ModelSpec(**{**given, **fields})))  # type: ignore[arg-type]
        if opened[-1].implementation != ("packed" if implementation == "auto" else implementation):
            pytest.skip(f"{name} has no implementation {implementation!r} yet")
        return opened[-1]

    yield start
    for backend in opened:
        backend.close()


@pytest.fixture(scope="session")
def adapter() -> Arrays:
    """An adapter of SHAPE whose two matrices are far from zero, as after training."""
    draw = np.random.default_rng(7)
    return {
        name: (draw.standard_normal(shape) * 0.1).astype(np.float32)
        for name, shape in sorted(oracle.adapter_shapes(SHAPE.rank).items())
    }


@pytest.fixture
def adapted(load: Load, adapter: Arrays) -> Callable[..., Backend]:
    """Like `load`, with `adapter` in place."""

    def start(**fields: object) -> Backend:
        loaded = load(lora=SHAPE, **fields)
        loaded.restore(seam.TrainState(adapter=adapter))
        return loaded

    return start
