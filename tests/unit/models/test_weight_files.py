"""The header of a safetensors file is checked before any loader sees it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from offapi.errors import ModelError
from offapi.models.weight_files import check_header

TENSORS: dict[str, np.ndarray[Any, np.dtype[Any]]] = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "empty": np.zeros((0, 4), np.float16),
    "scalar": np.array(3, dtype=np.int64),
    "b": np.ones((4,), np.uint8),
}
A = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
B = {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}
EMPTY = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}


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
    "gap": ({"a": A, "b": B | {"data_offsets": [12, 20]}}, 20, "offset for tensor `b`"),
    "overlap": ({"a": A, "b": B | {"data_offsets": [4, 12]}}, 12, "offset for tensor `b`"),
    "not from 0": ({"b": B}, 16, "offset for tensor `b`"),
    "beyond the end": ({"a": A, "b": B}, 12, "not fully covered"),
    "data left over": ({"a": A}, 9, "not fully covered"),
    "no tensors for the data": ({}, 8, "not fully covered"),
    "nothing between": ({"a": A, "z": EMPTY | {"data_offsets": [4, 4]}}, 8, "offset for tensor"),
    "nothing beyond the end": ({"a": A, "z": EMPTY | {"data_offsets": [9, 9]}}, 8, "offset for"),
    "negative": ({"a": A | {"data_offsets": [-8, 0]}}, 0, "integer `-8`"),
    "backwards": ({"a": A | {"data_offsets": [8, 0]}}, 8, "offset for tensor `a`"),
    "three offsets": ({"a": A | {"data_offsets": [0, 8, 9]}}, 8, "length 3"),
    "a truth value": ({"a": A | {"data_offsets": [False, 8]}}, 8, "boolean `false`"),
    "span": ({"a": A | {"shape": [3]}}, 8, "invalid shape"),
    "overflow": ({"a": A | {"shape": [2**32, 2**32]}}, 8, "overflow"),
    "overflow to the right size": ({"a": A | {"shape": [2**62, 4, 2]}}, 8, "overflow"),
    "overflow to nothing": ({"a": EMPTY | {"shape": [2**40, 2**40, 0]}}, 0, "overflow"),
    "beyond 64 bits": ({"a": A | {"shape": [2**64 + 2]}}, 8, "floating point"),
    "many dimensions": ({"a": A | {"shape": [2] + [1] * 20}}, 8, "'F32' and shape"),
    "negative size": ({"a": A | {"shape": [-2]}}, 8, "integer `-2`"),
    "fraction": ({"a": A | {"shape": [2.0]}}, 8, "floating point `2.0`"),
    "shape as text": ({"a": A | {"shape": "2"}}, 8, "expected a sequence"),
    "dtype": ({"a": A | {"dtype": "F31"}}, 8, "`F31`"),
    "half bytes": ({"a": A | {"dtype": "F4", "shape": [16]}}, 8, "'F4'"),
    "dtype as object": ({"a": A | {"dtype": {"F32": None}}}, 8, "not described"),
    "more keys": ({"a": A | {"code": "x"}}, 8, "not described"),
    "by position": ({"a": ["F32", [2], [0, 8]]}, 8, "not described"),
    "no offsets": ({"a": {"dtype": "F32", "shape": [2]}}, 8, "`data_offsets`"),
    "no tensor": ({"a": 3}, 0, "integer `3`"),
    "a list": ([], 0, "sequence"),
    "null": (None, 0, "null"),
    "metadata": ({"__metadata__": {"x": 1}}, 0, "integer `1`, expected a string"),
    "no metadata": ({"__metadata__": None, "a": A}, 8, "metadata is not an object"),
    "metadata as tensor": ({"__metadata__": A}, 8, "expected a string"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_headers_are_refused(tmp_path: Path, case: str) -> None:
    header, size, words = BROKEN[case]
    path = write(tmp_path / "x.safetensors", json.dumps(header).encode(), bytes(size))
    with pytest.raises(ModelError, match=words) as caught:
        check_header(path)
    assert caught.value.what.startswith("damaged safetensors: ")
    assert caught.value.where == str(path)


ENTRY = b'{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'


@pytest.mark.parametrize(
    ("header", "length", "words"),
    [
        (b'{"a":%b,"a":%b}' % (ENTRY, ENTRY), None, "twice"),
        (b'{"a":%b,"\\u0061":%b}' % (ENTRY, ENTRY), None, "twice"),
        (b'{"a":%b}' % ENTRY.replace(b"{", b'{"dtype":"I32",'), None, "duplicate field"),
        (b'{"__metadata__":{"x":"1","x":"2"},"a":%b}' % ENTRY, None, "twice"),
        (b'{"\\ud800":%b}' % ENTRY, None, "invalid JSON"),
        (b'{"a":%b,}' % ENTRY, None, "invalid JSON"),
        (b'{"a":%b}\0' % ENTRY, None, "trailing"),
        (b'{"a":%b}' % ENTRY.replace(b"[2]", b"[NaN]"), None, "invalid JSON"),
        (b'{"a":%b}' % ENTRY.replace(b"2", b"[" * 5000 + b"]" * 5000), None, "invalid"),
        (b"{" * 100_000, None, "invalid JSON"),
        (b"\xff\xfe", None, "UTF-8"),
        ("{}".encode("utf-16"), None, "UTF-8"),
        (b"\xef\xbb\xbf{}", None, "invalid JSON"),
        (b"", 0, "invalid JSON"),
        (b"", 2**64 - 4, "too large"),
        (b"", 2**63, "too large"),
        (b"", 30, "invalid header length"),
        (b"{}", 100_000_001, "too large"),
    ],
)
def test_headers_that_are_not_honest_json(
    tmp_path: Path, header: bytes, length: int | None, words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        check_header(write(tmp_path / "x.safetensors", header, bytes(8), length))


def test_a_file_too_short_for_a_header(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"\0\0")
    with pytest.raises(ModelError, match="damaged"):
        check_header(tmp_path / "x.safetensors")


def test_the_library_reads_alike_whatever_is_accepted(tmp_path: Path) -> None:
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
