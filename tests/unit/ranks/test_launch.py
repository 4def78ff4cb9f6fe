"""What launchers write into the environment, the backend they fit, and signals in a session."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from offapi.errors import ConfigError
from offapi.launch import Launch, find_launch
from offapi.ranks import session

TORCHRUN = {
    **{"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"},
    **{"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"},
}


def test_torchruns_words() -> None:
    assert find_launch(TORCHRUN) == Launch("torch", 5, 8, 1, 4, (("10.0.0.1", 29500),))
    assert find_launch({**TORCHRUN, "WORLD_SIZE": "1", "RANK": "0"}) is None
    assert find_launch({"RANK": "1", "WORLD_SIZE": "2"}) is None  # of another program
    assert find_launch({}) is None


def test_mlx_launchs_words(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text('[["10.0.0.1:32323", "10.0.1.1:32324"], ["10.0.0.2:32325"]]')
    ring = find_launch({"MLX_RANK": "1", "MLX_HOSTFILE": str(hosts)})
    assert ring is not None
    assert (ring.backend, ring.rank, ring.size) == ("mlx", 1, 2)
    assert ring.addresses == (("10.0.0.1", 32323), ("10.0.1.1", 32324), ("10.0.0.2", 32325))
    hosts.write_text("\n")  # as mlx.launch writes it for one process
    assert find_launch({"MLX_RANK": "0", "MLX_HOSTFILE": str(hosts)}) is None
    hosts.write_text('[["a", null], [null, "a"]]')
    words = {"MLX_IBV_DEVICES": str(hosts), "MLX_JACCL_COORDINATOR": "10.0.0.1:7"}
    rdma = find_launch({"MLX_RANK": "0", **words})
    assert rdma == Launch("mlx", 0, 2, addresses=(("10.0.0.1", 7),))


def test_a_launcher_of_another_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert session.launch_for("mlx") is None
    for name, value in TORCHRUN.items():
        monkeypatch.setitem(os.environ, name, value)
    launch = session.launch_for(None)
    assert launch is not None
    assert launch == session.launch_for("torch")
    with pytest.raises(ConfigError) as error:
        session.launch_for("mlx")
    assert error.value.what == "torchrun starts ranks of the torch backend, not of mlx."
    assert error.value.next_step == "Use --backend torch, or start it with mlx.launch."


def interrupted(ends: list[str]) -> None:
    """Be rank 0 of a launcher that sends one signal after the other; add to `ends` at the end."""
    with session.signals(leads=True):
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:  # where the run notes that it was interrupted
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            ends.append("noted")


def test_rank_0_hears_the_first_signal_and_the_others_none() -> None:
    before, ends = signal.getsignal(signal.SIGTERM), list[str]()
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted(ends)
        assert ends == ["noted"]
        with session.signals(leads=False):
            signal.raise_signal(signal.SIGINT)  # is for rank 0
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, signal.default_int_handler)
