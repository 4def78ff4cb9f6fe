"""The bytes that a training token takes, from the model's sizes."""

from __future__ import annotations

from pathlib import Path

import orjson
import tiny_llama

from offapi.activation_memory import FreeMemory, activation_bytes


def test_memory_follows_the_models_shape_dtype_and_backend(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(orjson.dumps(tiny_llama.CONFIG))
    floats = activation_bytes(tmp_path, "torch", "float32") / 4
    assert floats == tiny_llama.LAYERS * (10.0 * tiny_llama.HIDDEN + 9.3 * tiny_llama.INNER)
    assert activation_bytes(tmp_path, "torch", "bfloat16") == 2 * floats
    assert activation_bytes(tmp_path, "mlx", "float32") < 4 * floats
    (tmp_path / "config.json").write_bytes(
        orjson.dumps({**tiny_llama.CONFIG, "num_hidden_layers": 2 * tiny_llama.LAYERS})
    )
    assert activation_bytes(tmp_path, "torch", "float32") == 8 * floats


def test_layers_are_recomputed_if_asked_or_if_they_must() -> None:
    room = FreeMemory(None, token=10.0, free=1000.0)
    assert not room.recomputes(80)
    assert room.recomputes(81)  # with a margin: other things take memory too
    assert FreeMemory(True, None, 1e12).recomputes(1)
    assert not FreeMemory(False, 1e12, 1.0).recomputes(1)
    assert not FreeMemory(None, None, 1.0).recomputes(10**9)
