"""Tensors written one by one are those that safetensors reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_llama
from safetensors.numpy import load_file

from offapi.errors import ModelError
from offapi.export.safetensors_file import encode_tensor, read_layout, read_tensor, write_like


def test_a_file_copied_tensor_by_tensor_is_the_same_file(tmp_path: Path) -> None:
    file = tiny_llama.write(tmp_path / "model") / "model.safetensors"
    tensors = ((tensor.name, read_tensor(file, tensor)) for tensor in read_layout(file))
    write_like(tmp_path / "copy.safetensors", file, tensors)
    assert (tmp_path / "copy.safetensors").read_bytes() == file.read_bytes()


def test_another_tensor_than_comes_next_is_refused(tmp_path: Path) -> None:
    file = tiny_llama.write(tmp_path / "model") / "model.safetensors"
    tensors = ((name, array) for name, array in sorted(load_file(file).items(), reverse=True))
    with pytest.raises(ValueError, match="must come next"):
        write_like(tmp_path / "copy.safetensors", file, tensors)


def test_bfloat16_is_rounded_to_the_nearest_and_ties_to_even() -> None:
    numbers = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -3.14159, 0.0])
    halves = np.frombuffer(encode_tensor(numbers.astype(np.float32), "BF16"), np.uint16)
    back = (halves.astype(np.uint32) << 16).view(np.float32)
    assert back.tolist() == [1.0, 1.0, 1 + 2**-6, 1 + 2**-7, -3.140625, 0.0]


def test_a_dtype_that_is_not_trained_in_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"w": np.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="float32, float16, bfloat16, got F64"):
        read_layout(tmp_path / "model.safetensors")
