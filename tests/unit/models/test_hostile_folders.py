"""A model folder that names other files, reaches beyond its tensors, or holds more than files."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import model_files
import numpy as np
import orjson
import pytest
import tiny_llama
from safetensors.numpy import load_file, save_file

from offapi.errors import ModelError
from offapi.models import store

INDEX, SHARD = "model.safetensors.index.json", "model-00001-of-00001.safetensors"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFAPI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("offapi.chat.template_probe.probe_template", lambda folder, origin: None)


def folder(path: Path) -> Path:
    """Write a folder that can be used by its path as well as added."""
    return model_files.folder(path, rope_scaling=None)


def refused(source: Path, words: str) -> ModelError:
    """Check that `source` can be neither added nor used by its path."""
    for use in (store.add, store.get):
        with pytest.raises(ModelError, match=words) as caught:
            use(source)
        assert str(source) in caught.value.where
        assert caught.value.next_step
    assert store.listing() == []
    return caught.value


def sharded(path: Path, place: str | list[str] | None) -> Path:
    """Write a folder with one shard, and an index that places all of its tensors in `place`."""
    source = folder(path)
    names = list(load_file(source / "model.safetensors"))
    (source / "model.safetensors").rename(source / SHARD)
    index: dict[str, Any] = {"metadata": {}, "weight_map": dict.fromkeys(names, place)}
    (source / INDEX).write_bytes(orjson.dumps(index))
    return source


def test_an_index_that_names_its_own_shards_is_accepted(tmp_path: Path) -> None:
    source = sharded(tmp_path / "a", SHARD)
    assert store.get(source).path == source
    assert store.verify(store.add(source).name)


@pytest.mark.parametrize(
    "place",
    [
        "../elsewhere.safetensors",
        "/etc/hostname",
        f"./{SHARD}",
        f"old/../{SHARD}",
        "model-00002-of-00002.safetensors",
        "plain.bin",
        "",
        [SHARD],
        None,
    ],
)
def test_an_index_may_name_only_the_file_of_each_tensor(
    tmp_path: Path, place: str | list[str] | None
) -> None:
    refused(sharded(tmp_path / "a", place), "the index places tensor")


def test_an_index_must_not_swap_two_shards(tmp_path: Path) -> None:
    source = sharded(tmp_path / "a", SHARD)
    tensors = load_file(source / SHARD)
    (source / SHARD).unlink()
    names = sorted(tensors)
    halves = {"model-1.safetensors": names[:5], "model-2.safetensors": names[5:]}
    for name, held in halves.items():
        save_file({each: tensors[each] for each in held}, source / name)
    swapped = {each: name for name, other in halves.items() for each in names if each not in other}
    (source / INDEX).write_bytes(orjson.dumps({"metadata": {}, "weight_map": swapped}))
    refused(source, "the index places tensor")


def test_shards_need_their_index(tmp_path: Path) -> None:
    source = sharded(tmp_path / "a", SHARD)
    (source / INDEX).unlink()
    refused(source, "there is no model.safetensors.index.json")


def test_a_second_copy_of_the_weights_is_refused(tmp_path: Path) -> None:
    source = folder(tmp_path / "a")
    tensors = load_file(source / "model.safetensors")
    last = tensors.pop("model.norm.weight")
    save_file(tensors, source / "model.safetensors")
    save_file({"model.norm.weight": last}, source / "model-2.safetensors")
    refused(source, "torch would read model.safetensors alone")


def test_a_stored_model_that_an_older_version_accepted_is_refused(tmp_path: Path) -> None:
    from offapi.models import lock

    model = store.add(sharded(tmp_path / "a", SHARD), "m")
    content = (model.path / INDEX).read_bytes().replace(SHARD.encode(), b"../../x.safetensors")
    lock.put(model.path, INDEX, content)
    with pytest.raises(ModelError, match="the index places tensor"):
        store.get("m")


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("config.json", "configuration_files", ["config.4.0.0.json"]),
        ("config.json", "transformers_weights", "old/model.safetensors"),
        ("tokenizer_config.json", "fast_tokenizer_files", ["tokenizer.4.0.0.json"]),
    ],
)
def test_settings_that_lead_a_loader_to_other_files_are_refused(
    tmp_path: Path, name: str, key: str, value: Any
) -> None:
    source = folder(tmp_path / "a")
    content = orjson.loads((source / name).read_bytes()) | {key: value}
    (source / name).write_bytes(orjson.dumps(content))
    refused(source, f"`{key}` makes a loader read other files")


@pytest.mark.parametrize(
    "name", ["adapter_config.json", "adapter_model.safetensors", "hf_quant_config.json"]
)
def test_an_adapter_inside_a_model_folder_is_refused(tmp_path: Path, name: str) -> None:
    source = folder(tmp_path / "a")
    (source / name).write_bytes(b"{}")
    assert "folder of its own" in refused(source, f"the folder has {name}").next_step


def fifo(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's path is at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def to_nowhere(path: Path) -> None:
    path.symlink_to("gone")


def to_itself(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("name", ["extra.json", "model-2.safetensors", "notes", "tokenizer.model"])
@pytest.mark.parametrize("make", [fifo, listening, to_nowhere, to_itself])
def test_what_is_no_file_is_refused_and_not_waited_for(
    tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    source = folder(tmp_path / "a")
    make(source / name)
    start = time.monotonic()
    refused(source, "a pipe, a socket or a device|the link leads nowhere")
    assert time.monotonic() - start < 5


def change(name: str, edit: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def damage(source: Path) -> None:
        path = source / name
        content = orjson.loads(path.read_bytes()) if path.is_file() else {}
        edit(content)
        path.write_bytes(orjson.dumps(content))

    return damage


LAST = tiny_llama.VOCAB - 1
IDS: dict[str, Callable[[int], Callable[[Path], None]]] = {
    "a word": lambda i: change("tokenizer.json", lambda c: c["model"]["vocab"].update(zz=i)),
    "an added token": lambda i: change(
        "tokenizer.json", lambda c: c["added_tokens"].append({"id": i, "content": "<x>"})
    ),
    "added_tokens.json": lambda i: change("added_tokens.json", lambda c: c.update({"<x>": i})),
    "added_tokens_decoder": lambda i: change(
        "tokenizer_config.json",
        lambda c: c.update(added_tokens_decoder={str(i): {"content": "<x>"}}),
    ),
    "a stop": lambda i: change("generation_config.json", lambda c: c.update(eos_token_id=i)),
    "one of the stops": lambda i: change(
        "generation_config.json", lambda c: c.update(eos_token_id=[tiny_llama.EOS, i])
    ),
    "unigram": lambda i: change(
        "tokenizer.json",
        lambda c: c.update(model={"type": "Unigram", "vocab": [["a", -1.0]] * (i + 1)}),
    ),
}


@pytest.mark.parametrize("case", IDS)
def test_no_token_may_lie_beyond_the_embedding(tmp_path: Path, case: str) -> None:
    inside, beyond = folder(tmp_path / "inside"), folder(tmp_path / "beyond")
    IDS[case](LAST)(inside)
    assert store.get(inside).path == inside
    IDS[case](LAST + 1)(beyond)
    assert f"embedding has {tiny_llama.VOCAB} rows" in refused(beyond, "has the id 300").what


@pytest.mark.parametrize("number", [-1, 5000, 2**32 - 1, 1.5, "7", True, None])
def test_a_token_id_must_be_a_row(tmp_path: Path, number: Any) -> None:
    source = folder(tmp_path / "a")
    IDS["a word"](number)(source)
    refused(source, f"has the id {number!r}")


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "generation_config.json"]
)
def test_settings_must_be_objects(tmp_path: Path, name: str) -> None:
    source = folder(tmp_path / "a")
    (source / name).write_bytes(b"[1, 2]")
    refused(source, "must be a JSON object, got list")


def test_a_header_of_a_million_tensors_is_refused_at_once(tmp_path: Path) -> None:
    source = folder(tmp_path / "a")
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = orjson.dumps({f"t{i}": entry for i in range(200_000)})
    raw = len(header).to_bytes(8, "little") + header
    (source / "model.safetensors").write_bytes(raw)
    start = time.monotonic()
    refused(source, "its header is too large")
    assert time.monotonic() - start < 5


WRONG: list[Any] = ["text", "", -1, 0, 1.5, 1e308, True, None, [], ["a"], {}, {"a": 1}, [[]]]


KEYS = (
    *("rope_scaling", "rope_parameters", "layer_types", "sliding_window", "use_sliding_window"),
    *("quantization", "quantization_config", "text_config", "attn_implementation"),
)


@pytest.mark.parametrize("key", sorted([*tiny_llama.CONFIG, *KEYS]))
def test_a_setting_of_another_type_is_refused_in_words(tmp_path: Path, key: str) -> None:
    """Whatever a key of config.json holds, the folder is taken or a ModelError says why not."""
    where: list[str] = []
    for number, value in enumerate([*WRONG, {"rope_theta": "high"}, {"type": ["linear"]}]):
        source = folder(tmp_path / str(number))
        change("config.json", lambda c, value=value: c.update({key: value}))(source)  # type: ignore[misc]
        try:
            store.remove(store.add(source).name)
        except ModelError as error:
            where.append(error.where)
        shutil.rmtree(source)
    assert all(where)


def test_settings_deeper_than_python_recurses_are_read(tmp_path: Path) -> None:
    source = folder(tmp_path / "a")
    deep = b'{"a":' * 900 + b'{"auto_map": {"x": "y"}}' + b"}" * 900
    (source / "special_tokens_map.json").write_bytes(deep)
    refused(source, "auto_map")


def test_tensors_of_another_number_of_dimensions_are_refused(tmp_path: Path) -> None:
    source = folder(tmp_path / "a")
    tensors = load_file(source / "model.safetensors")
    for odd in (np.zeros((), np.float32), np.zeros((0, tiny_llama.HIDDEN), np.float32)):
        save_file(tensors | {"model.embed_tokens.weight": odd}, source / "model.safetensors")
        refused(source, "embed_tokens|embedding")
