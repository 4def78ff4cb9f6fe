"""The header of a safetensors file is checked before any loader sees it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from offapi.errors import ModelError
from offapi.models.safe_folder import MAX_HEADER, check_header

TENSORS: dict[str, np.ndarray[Any, np.dtype[Any]]] = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "empty": np.zeros((0, 4), np.float16),
    "scalar": np.array(3, dtype=np.int64),
    "b": np.ones((4,), np.uint8),
}
A = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
B = {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}


def write(path: Path, header: bytes, data: bytes, length: int | None = None) -> Path:
    path.write_bytes(
        (len(header) if length is None else length).to_bytes(8, "little") + header + data
    )
    return path


def test_what_the_library_writes_is_accepted(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "x.safetensors", metadata={"format": "pt"})
    found = check_header(tmp_path / "x.safetensors")
    dtypes = {"a": "F32", "empty": "F16", "scalar": "I64", "b": "U8"}
    assert found == {name: (dtypes[name], array.shape) for name, array in TENSORS.items()}


BROKEN: dict[str, tuple[Any, int, str]] = {
    "gap": ({"a": A, "b": B | {"data_offsets": [12, 20]}}, 20, "starts at 12 instead of 8"),
    "overlap": ({"a": A, "b": B | {"data_offsets": [4, 12]}}, 12, "starts at 4"),
    "not from 0": ({"b": B}, 16, "starts at 8"),
    "beyond the end": ({"a": A, "b": B}, 12, "end at 16, the data at 12"),
    "data left over": ({"a": A}, 9, "end at 8, the data at 9"),
    "negative": ({"a": A | {"data_offsets": [-8, 0]}}, 0, "starts at -8"),
    "backwards": ({"a": A | {"data_offsets": [8, 0]}}, 8, "spans -8 bytes"),
    "span": ({"a": A | {"shape": [3]}}, 8, "spans 8 bytes"),
    "overflow": ({"a": A | {"shape": [2**32, 2**32]}}, 8, "spans 8 bytes"),
    "many dimensions": ({"a": A | {"shape": [2] + [1] * 20}}, 8, "shape"),
    "negative size": ({"a": A | {"shape": [-2]}}, 8, "shape"),
    "fraction": ({"a": A | {"shape": [2.0]}}, 8, "shape"),
    "dtype": ({"a": A | {"dtype": "F31"}}, 8, "'F31'"),
    "more keys": ({"a": A | {"code": "x"}}, 8, "not described"),
    "no offsets": ({"a": {"dtype": "F32", "shape": [2]}}, 8, "not described"),
    "no tensor": ({"a": 3}, 0, "not described"),
    "a list": ([], 0, "not an object"),
    "metadata": ({"__metadata__": {"x": 1}}, 0, "metadata is not text"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_headers_are_refused(tmp_path: Path, case: str) -> None:
    header, size, words = BROKEN[case]
    path = write(tmp_path / "x.safetensors", orjson.dumps(header), bytes(size))
    with pytest.raises(ModelError, match=words) as caught:
        check_header(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("header", "length", "words"),
    [
        (b'{"a":1,"a":1}', None, "twice"),
        (b'{"__metadata__":{"x":"1","x":"2"}}', None, "twice"),
        (b"{" * 100_000, None, "damaged"),
        (b"\xff\xfe", None, "damaged"),
        ("{}".encode("utf-16"), None, "damaged"),
        (b"", 2**63, "claims"),
        (b"", 3, "claims"),
        (b"{}", MAX_HEADER + 1, "claims"),
    ],
)
def test_headers_that_are_not_honest_json(
    tmp_path: Path, header: bytes, length: int | None, words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        check_header(write(tmp_path / "x.safetensors", header, b"", length))


def test_a_file_too_short_for_a_header(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"\0\0")
    with pytest.raises(ModelError, match="damaged"):
        check_header(tmp_path / "x.safetensors")


def test_whatever_is_accepted_the_library_reads_alike(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(TENSORS, path, metadata={"format": "pt"})
    sound, draw, accepted = path.read_bytes(), random.Random(0), 0
    header_end = 8 + int.from_bytes(sound[:8], "little")
    for _ in range(500):
        damaged = bytearray(sound)
        for _ in range(draw.choice((1, 1, 2))):
            damaged[draw.randrange(header_end)] = draw.choice(b'0123456789[]{}",:FIU \xff\x00')
        path.write_bytes(damaged)
        try:
            found = check_header(path)
        except ModelError:
            continue
        accepted += 1
        with safe_open(path, "np") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        assert shapes == {name: shape for name, (_, shape) in found.items()}
    assert 10 < accepted < 450
