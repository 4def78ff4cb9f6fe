"""The store of models: plain folders, checked when added, locked by hash, under `home()/models`.

`add` copies or converts into a hidden folder and renames it when everything is there, so that a
model is complete or absent. Left out: downloads. A model comes from this machine.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from offapi.chat import template_probe
from offapi.errors import ModelError, nearest
from offapi.models import (
    gguf_weights,
    in_use,
    library_check,
    lock,
    normal_config,
    safe_folder,
    weight_files,
)
from offapi.models.source import DEMO, DEMO_NAME, ModelSource, find_source, kept_files
from offapi.models.text_part import TextPart, extract_text_part, has_text_part, rewrites

DEMO_PARITY = Path(__file__).parents[1] / "demo" / lock.PARITY
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MARGIN = 64_000_000  # bytes left free on the disk


@dataclass(frozen=True)
class Model:
    """A model folder.

    Without a lock `source` and `license` are "" and `size` (bytes) is 0.
    """

    name: str
    path: Path
    source: str = ""
    license: str = ""
    size: int = 0
    text_part: str = ""  # of a multimodal folder: what was left out
    left_out: tuple[str, ...] = ()  # pickles in the folder that it was added from

    @property
    def context(self) -> int | None:
        """The model's context length in tokens; None where its config does not say."""
        config = orjson.loads((self.path / "config.json").read_bytes())
        limit = config.get("max_position_embeddings")
        return limit if isinstance(limit, int) else None


class UnknownModel(ModelError):
    """There is no model of that name.

    It is a typing mistake (exit code 2, as click's usage errors).
    """

    exit_code = 2


def home() -> Path:
    """Return where offapi keeps its models: $OFFAPI_HOME, else ~/.offapi."""
    return Path(os.environ.get("OFFAPI_HOME") or Path.home() / ".offapi").absolute()


def store() -> Path:
    """Return the folder of model folders."""
    return home() / "models"


def add(source: str | Path, name: str | None = None) -> Model:
    """Store "demo", a model folder or a .gguf file; return at once when the same one is stored.

    Raise ModelError when the source is missing, damaged or refused (code, pickles, unknown
    architecture, no chat template that renders), when another model has the name, or when the disk
    is full.
    """
    original = find_source(source)
    name = name or original.name
    if not NAME.fullmatch(name) or name == DEMO:
        raise ModelError(
            f"{name!r} cannot be the name of a model.",
            next_step="Use letters, digits, '.', '_', '-': `--name NAME`.",
        )
    target = store() / name
    with lock.whole(target) as folder:
        if folder is None:
            return _same(_find(name), original)
        if original.kind == "folder":
            license, part = _copy(original.path, folder)
        else:
            license, part = _convert(original, folder), None
        config = _normal_config(folder, original.path)
        (folder / "config.json").write_bytes(orjson.dumps(config, option=orjson.OPT_INDENT_2))
        library_check.check_tensors(folder, config, str(original.path))
        safe_folder.check_folder(folder)
        template_probe.probe_template(folder, original.path)
        origin: dict[str, Any] = {
            "kind": original.kind,
            "path": str(original.path),
            "sha256": original.sha256,
            "license": license,
        }
        if part is not None:
            origin["text_part"] = str(part)
        if original.left_out:
            origin["left_out"] = list(original.left_out)
        lock.write(folder, origin)
    return _find(name)


def get(name_or_path: str | Path) -> Model:
    """Return the model of that name in the store, or the folder at that path, to be loaded.

    Check that the locked files, and no others, are there as they were added: their content is read
    once, and again when they were touched. A folder outside the store has its settings and headers
    checked as `add` does. Raise ModelError, or UnknownModel where there is neither.
    """
    model = _find(name_or_path)
    if model.path.parent == store():
        in_use.keep_model(model.path)
        lock.check_content(model.path, again=False)
        safe_folder.check_folder(model.path)  # an older version may have accepted more
    return model


def listing() -> list[Model]:
    """Return the models in the store by name; damaged ones too (`verify` says what is wrong)."""
    return [_listed(store() / name) for name in _names() if (store() / name).is_dir()]


def verify(name_or_path: str | Path) -> Model:
    """Read every locked file again.

    Raise ModelError naming the first that is missing or changed.
    """
    model = _find(name_or_path)
    if model.path.parent != store():
        raise ModelError(
            "the model is not in the store, so there is nothing to compare it with.",
            where=str(model.path),
            next_step="Add it with `offapi models add`.",
        )
    lock.check_content(model.path, again=True)
    return model


def stored(name: str) -> Model:
    """Return the model of that name in the store, damaged or not; raise UnknownModel if none."""
    folder = store() / (DEMO_NAME if name == DEMO else name)
    if not NAME.fullmatch(name) or not folder.is_dir():
        raise UnknownModel(
            f"there is no model {name!r}.", where=str(store()), next_step=nearest(name, _usable())
        )
    return _listed(folder)


def remove(name: str) -> None:
    """Delete a stored model, damaged or not. It vanishes from the store at once, as a whole.

    Raise ModelError while another process uses it.
    """
    folder = stored(name).path
    with in_use.alone_with(folder):
        lock.remove(folder)


def _find(name_or_path: str | Path) -> Model:
    """As `get`, without checking the content of stored files."""
    name = DEMO_NAME if str(name_or_path) == DEMO else str(name_or_path)
    folder = Path(name_or_path).expanduser().absolute()
    if NAME.fullmatch(name) and (store() / name).is_dir():
        folder = store() / name
    if not folder.is_dir():
        hint = (
            "Add it with `offapi models add demo`."
            if name == DEMO_NAME
            else nearest(name, _usable())
        )
        raise UnknownModel(
            f"there is no model {str(name_or_path)!r}.", where=str(store()), next_step=hint
        )
    if folder.parent == store():
        lock.check_sizes(folder)
        return _model(folder)
    safe_folder.check_folder(folder)
    normal = _normal_config(folder, folder)
    library_check.check_tensors(folder, normal, str(folder))
    if not normal_config.is_normal(safe_folder.check_config(folder), normal):
        raise ModelError(
            "config.json omits settings, or gives them in one form only, and loaders then differ.",
            where=str(folder),
            next_step=f"Add it with `offapi models add {folder}`, which writes both forms.",
        )
    return Model(folder.name, folder)


def _names() -> list[str]:
    return sorted(path.name for path in store().glob("[!.]*"))


def _usable() -> list[str]:
    """Return every name that `get` accepts, including the demo model's short one."""
    names = _names()
    return [*names, DEMO] if DEMO_NAME in names else names


def _listed(folder: Path) -> Model:
    try:
        return _model(folder)
    except ModelError:  # a damaged lock; using the model reports it
        return Model(folder.name, folder)


def _model(folder: Path) -> Model:
    locked = lock.read(folder)
    size = sum(entry["size"] for entry in locked["files"].values())
    return Model(
        folder.name,
        folder,
        locked["source"].get("kind", ""),
        locked["source"].get("license", ""),
        size,
        locked["source"].get("text_part", ""),
        tuple(locked["source"].get("left_out", ())),
    )


def _same(model: Model, source: ModelSource) -> Model:
    if lock.read(model.path)["source"].get("sha256") == source.sha256:
        return model
    raise ModelError(
        f"the name {model.name!r} is taken by another model.",
        where=str(model.path),
        next_step="Choose another with `--name NAME`.",
    )


def _normal_config(folder: Path, origin: Path) -> dict[str, object]:
    """Return the config of `folder`, normalised; errors name `origin`."""
    where, tensors = str(origin), weight_files.check_weights(folder)
    given = safe_folder.check_config(folder)
    library_check.check_type(given, where)
    return normal_config.normalise_config(given, tensors, where)


def _copy(source: Path, folder: Path) -> tuple[str, TextPart | None]:
    """Copy the files a loader may need; return the licence that the model card names, or "".

    Of a multimodal folder copy the text part alone, and return what that left out.
    """
    files = kept_files(source)
    _room(folder, sum(path.stat().st_size for path in files))
    whole = not has_text_part(safe_folder.check_config(source))
    for path in files:
        if whole or not rewrites(path.name):
            shutil.copyfile(path, folder / path.name)
    part = None if whole else extract_text_part(source, folder)
    card = folder / "README.md"
    text = card.read_text(errors="replace")[:4000] if card.is_file() else ""
    match = re.match(r"---\n(?:.*\n)*?license: *(\S+)", text)
    return match.group(1) if match else "", part


def _convert(source: ModelSource, folder: Path) -> str:
    """Convert a GGUF file; return its licence, or ""."""
    file = gguf_weights.open_gguf(source.path)
    _room(folder, file.bytes_after())
    gguf_weights.convert_gguf(file, folder)
    if source.kind == "demo" and DEMO_PARITY.is_file():
        shutil.copyfile(DEMO_PARITY, folder / lock.PARITY)
    return file.license


def _room(folder: Path, need: int) -> None:
    """Raise ModelError when the disk cannot take `need` bytes."""
    free = shutil.disk_usage(folder).free
    if free < need + MARGIN:
        raise ModelError(
            f"the model needs {need / 1e6:.0f} MB, but the disk has {free / 1e6:.0f} MB left.",
            where=str(store()),
            next_step=lock.MAKE_ROOM,
        )
