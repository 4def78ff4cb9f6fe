"""Every backend computes the recorded numbers, and an ambiguous model folder is refused."""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import model_files
import numpy as np
import orjson
import pytest

from offapi import cli
from offapi.errors import BackendError, ModelError
from offapi.models import agreement, parity, store

LIBRARIES = {"torch": "torch", "mlx": "mlx_lm"}


@pytest.fixture
def empty_home(tmp_path: Path, offapi_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of its own."""
    monkeypatch.setenv("OFFAPI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def script() -> ModuleType:
    """scripts/demo_parity.py, which wrote the demo model's record."""
    path = Path(__file__).parents[2] / "scripts" / "demo_parity.py"
    spec = importlib.util.spec_from_file_location("demo_parity", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def with_config(model: store.Model, folder: Path, **changes: Any) -> store.Model:
    """Copy the model with a config changed after `add`; None removes a key."""
    folder.mkdir()
    for path in model.path.iterdir():
        os.link(path, folder / path.name)
    config = orjson.loads((model.path / "config.json").read_bytes()) | changes
    (folder / "config.json").unlink()
    (folder / "config.json").write_bytes(
        orjson.dumps({k: v for k, v in config.items() if v is not None})
    )
    return store.Model("changed", folder)


def test_demo_model_matches_transformers(demo_model: store.Model, backend_name: str) -> None:
    known = parity.read_record(demo_model.path)
    assert known is not None
    assert "transformers" in known.by
    assert agreement.measure_parity(demo_model, backend_name) < parity.TOLERANCE


def test_demo_record_is_what_transformers_computes(demo_model: store.Model) -> None:
    pytest.importorskip("torch")
    fresh = script().with_transformers(demo_model.path)
    shipped = parity.read_record(store.DEMO_PARITY.parent)
    assert shipped is not None
    assert shipped.sequences == fresh.sequences == parity.parity_sequences(49152)
    for ours, theirs in zip(shipped.logprobs, fresh.logprobs, strict=True):
        assert np.abs(np.subtract(ours, theirs)).max() < 2e-4


def test_the_rope_trap_is_caught_on_mlx(
    demo_model: store.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers 5 writes rope_parameters alone; mlx-lm's llama then silently uses 10000."""
    pytest.importorskip("mlx_lm")
    trap = with_config(demo_model, tmp_path / "trap", rope_theta=None, rope_scaling=None)
    with pytest.raises(ModelError, match="models add"):
        store.get(trap.path)
    agreement.measure_parity(trap, "mlx")  # agrees: the loader writes what mlx-lm reads
    monkeypatch.setattr("offapi.backends.mlx_backend.library_config.library_keys", dict)
    with pytest.raises(ModelError, match="rope_theta"):  # the backend's own check
        agreement.measure_parity(trap, "mlx")
    monkeypatch.setattr("offapi.backends.mlx_backend.loader.check_rope", lambda *_: None)
    with pytest.raises(
        ModelError, match=r"and transformers.* compute different logprobs.*: mlx: .* nats"
    ):
        agreement.measure_parity(trap, "mlx")


def test_a_rope_that_is_wrong_everywhere_is_caught(
    demo_model: store.Model, tmp_path: Path, backend_name: str
) -> None:
    trap = with_config(demo_model, tmp_path / "trap", rope_theta=10000.0, rope_parameters=None)
    with pytest.raises(
        ModelError, match=f"transformers.* compute different logprobs.*: {backend_name}: "
    ) as caught:
        agreement.measure_parity(trap, backend_name)
    assert "config.json" in caught.value.next_step


def test_a_library_alone_records_and_every_backend_is_compared(
    empty_home: Path, tmp_path: Path, backend_name: str
) -> None:
    model = store.add(model_files.folder(tmp_path / "small"))
    outcome = agreement.establish_parity(model)
    library = "transformers" if importlib.util.find_spec("torch") else "mlx-lm"
    assert outcome.recorded_by.split()[0] == library
    assert set(outcome.differences) | set(outcome.skipped) == set(LIBRARIES)
    assert all(difference < parity.TOLERANCE for difference in outcome.differences.values())
    names = {path.name for path in store.verify("small").path.iterdir()}
    assert {"parity.json", "implementations.json"} < names
    assert agreement.measure_parity(model, backend_name) < parity.TOLERANCE
    again = agreement.establish_parity(model)
    assert again.recorded_by == outcome.recorded_by
    assert backend_name in again.differences


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
KINDS: dict[str, dict[str, Any]] = {
    "llama": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": None},
    "llama with llama3 rope": {"rope_scaling": LLAMA3},
    "llama with linear rope": {"rope_scaling": {"type": "linear", "factor": 2.0}},
    "mistral": {"architectures": ["MistralForCausalLM"]},
    "qwen2": {"architectures": ["Qwen2ForCausalLM"], "tie_word_embeddings": None},
    "qwen3": {"architectures": ["Qwen3ForCausalLM"]},
    "smollm3": {"architectures": ["SmolLM3ForCausalLM"], "num_hidden_layers": 4, "pad_token_id": 0},
}


@pytest.mark.parametrize("kind", KINDS)
def test_both_backends_agree_on_every_model_type(
    empty_home: Path, tmp_path: Path, kind: str
) -> None:
    if not all(importlib.util.find_spec(library) for library in LIBRARIES.values()):
        pytest.skip("needs both backends")
    folder = model_files.random_folder(
        tmp_path / "small", model_type=kind.split()[0], **KINDS[kind]
    )
    outcome = agreement.establish_parity(store.add(folder))
    assert outcome.differences["mlx"] < parity.TOLERANCE
    assert not outcome.skipped


def test_a_rope_that_grows_with_the_text_is_measured_beyond_its_limit(
    empty_home: Path, tmp_path: Path
) -> None:
    """Rows of 130 tokens do not pass 2048 positions: a copy of the folder with less shows it."""
    if not all(importlib.util.find_spec(library) for library in LIBRARIES.values()):
        pytest.skip("needs both backends")
    scaling = {"rope_type": "dynamic", "factor": 4.0}
    model = store.add(model_files.random_folder(tmp_path / "small", rope_scaling=scaling))
    outcome = agreement.establish_parity(model)
    assert outcome.measured["torch"].implementation == "library"
    assert "packed: " in outcome.measured["torch"].why
    assert "nats from the reference" in outcome.measured["torch"].why
    assert outcome.measured["mlx"].implementation == "packed"  # which refuses longer rows


def test_a_missing_or_different_record_is_refused(
    empty_home: Path, tmp_path: Path, backend_name: str
) -> None:
    model = store.add(model_files.folder(tmp_path / "small"))
    with pytest.raises(ModelError, match=r"no parity\.json"):
        agreement.measure_parity(model, backend_name)
    agreement.establish_parity(model)
    known = parity.read_record(model.path)
    assert known is not None
    for wrong in (known.logprobs[0][0] + 0.01, float("nan")):
        rows = ((wrong, *known.logprobs[0][1:]), *known.logprobs[1:])
        content = parity.encode_record(replace(known, logprobs=rows))
        (model.path / "parity.json").write_bytes(content.replace(b"null", b"NaN"))
        with pytest.raises(
            ModelError, match=r"compute different logprobs|not a parity record|not valid JSON"
        ):
            agreement.measure_parity(model, backend_name)


def test_the_store_never_keeps_a_model_that_fails(
    empty_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = model_files.folder(tmp_path / "small")
    monkeypatch.setattr(parity, "TOLERANCE", -1.0)  # so that no backend agrees
    assert cli.run(["models", "add", str(source), "--json"]) == 1
    assert json.loads(capsys.readouterr().err.splitlines()[-1])["code"] == "model"
    assert store.listing() == []


def test_add_reports_how_far_the_backends_are_apart(
    empty_home: Path, tmp_path: Path, backend_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        cli.run(
            ["models", "add", str(model_files.folder(tmp_path / "small")), "--name", "s", "--json"]
        )
        == 0
    )
    shown = json.loads(capsys.readouterr().out)
    assert (shown["name"], shown["source"], shown["bytes"]) == ("s", "folder", store.get("s").size)
    assert shown["parity"]["recorded_by"]
    assert all(apart < parity.TOLERANCE for apart in shown["parity"]["differences"].values())


def test_without_a_usable_backend_a_model_is_stored_unchecked(
    empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unusable(name: str, spec: object) -> None:
        raise BackendError(f"backend {name!r} is not usable here.")

    monkeypatch.setattr("offapi.backend.load", unusable)
    outcome = agreement.establish_parity(store.add(model_files.folder(tmp_path / "small")))
    assert outcome.measured == {}
    assert set(outcome.skipped) == {"torch", "mlx"}
