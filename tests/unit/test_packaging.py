"""What is installed, under which names, and what may import what."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import entry_points, version
from importlib.util import find_spec
from pathlib import Path

import pytest

import offapi

ROOT = Path(__file__).parents[2]
FOLDERS = {"offapi": "offapi", "backends": "offapi.backends", "recipes": "offapi.recipes"}
NUMBERS = {"torch", "mlx", "mlx_lm", "peft", "transformers"}
LAYERS = (
    "errors",
    "progress network text",
    "files workers stats config",
    "episodes",
    "randomness policy_loss completions activation_memory implementations moment_levels",
    "model_spec optimizer",
    "launch",
    "engine prefix_tree",
    "backend",
    "adapter",
    "backends.torch_backend backends.mlx_backend",
    "data",
    "checks",
    "tools",
    "task",
    "chat",
    "constrain",
    "models",
    "agent",
    "ranks",
    "training",
    "teachers",
    "evaluation grading",
    "confidence",
    "predict",
    "rl",
    "recipes",
    "cost drift advise report compare init explain calibrate shadow on_ray export",
    "serve",
    "demo doctor",
    "cli",
    "__main__",
)
SEAM = {
    "errors",
    "episodes",
    "randomness",
    "policy_loss",
    "completions",
    "launch",
    "engine",
    "prefix_tree",
    "activation_memory",
    "backend",
    "implementations",
    "model_spec",
    "optimizer",
    "adapter",
    "moment_levels",
}
SHARED_NAMES = {"Config", "Inputs"}  # every recipe has them
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
SIMPLE_STATEMENTS = (
    ast.Assign,
    ast.AnnAssign,
    ast.AugAssign,
    ast.Return,
    ast.Expr,
    ast.Raise,
    ast.Assert,
    ast.Delete,
)
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def sources(folder: str) -> Iterator[Path]:
    """Yield the Python files below a folder of the repository."""
    return (
        path for path in sorted((ROOT / folder).rglob("*.py")) if "__pycache__" not in path.parts
    )


def module_name(path: Path) -> str:
    """Return the name by which a source file is imported once installed."""
    folder, *rest = path.relative_to(ROOT).with_suffix("").parts
    return ".".join([FOLDERS[folder], *rest]).removesuffix(".__init__")


def imports(path: Path, everywhere: bool = False) -> set[str]:
    """Return the modules that a file imports when it is itself imported, or `everywhere` in it."""
    names = set()
    todo: list[ast.AST] = [ast.parse(path.read_text())]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {"." * node.level + (node.module or "")}
            names |= {f"{node.module}.{alias.name}" for alias in node.names if not node.level}
        only_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        deferred = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if everywhere or not (only_types or deferred):
            todo += ast.iter_child_nodes(node)
    return names


MODULES = {module_name(path) for folder in FOLDERS for path in sources(folder)}


def top(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def unit(module: str) -> str:
    """Return the module or package of `offapi` that a module belongs to; each backend is a unit."""
    parts = module.split(".")[1:]
    return ".".join(parts[: 2 if parts[:1] == ["backends"] else 1])


def upward_imports() -> Iterator[str]:
    """Yield imports between units, also within functions, that do not go down the layers."""
    layer = {name: place for place, names in enumerate(LAYERS) for name in names.split()}
    for path in [path for folder in FOLDERS for path in sources(folder)]:
        module = module_name(path)
        package = module if path.stem == "__init__" else module.rpartition(".")[0]
        above = package.rpartition(".")[0]
        for name in imports(path, everywhere=True):
            absolute = name if not name.startswith(".") else f"{package}{name}"
            absolute = f"{above}.{name[2:]}" if name.startswith("..") else absolute
            here, there = unit(module), unit(absolute)
            if not absolute.startswith("offapi.") or here == there or not here:
                continue
            if there in layer and layer.get(here, -1) > layer[there]:
                continue
            if there in layer or absolute in MODULES:
                yield f"{here} -> {there}"


def test_imports_go_down_the_layers() -> None:
    assert sorted(set(upward_imports())) == []


def class_homes() -> dict[str, list[str]]:
    """Return the public names of classes, each with the modules that define it."""
    homes: dict[str, list[str]] = {}
    for path in [path for folder in FOLDERS for path in sources(folder)]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(module_name(path))
    return homes


def is_twin(modules: list[str]) -> bool:
    """Whether the modules are the same file in both backends."""
    backends = [module.split(".")[2] for module in modules if module.startswith("offapi.backends.")]
    return sorted(backends) == ["mlx_backend", "torch_backend"] and len(modules) == 2


def test_a_public_class_name_exists_once() -> None:
    homes = class_homes()
    several = {name for name, modules in homes.items() if len(modules) > 1}
    twins = {name for name in several if is_twin(homes[name])}
    assert several - twins - SHARED_NAMES == set()


def dense_lines(source: str) -> list[int]:
    """Return the lines of statements with two comprehensions or more, and of starred conditionals.

    Only simple statements count: a `for` or an `if` is not counted with its body.
    """
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, SIMPLE_STATEMENTS):
            if sum(isinstance(child, COMPREHENSIONS) for child in ast.walk(node)) > 1:
                lines.append(node.lineno)
        elif isinstance(node, ast.Starred) and isinstance(node.value, ast.IfExp):
            lines.append(node.lineno)
    return sorted(lines)


def test_dense_lines_are_found() -> None:
    source = """\
one = [x for x in y]
two = [x for x in y], {x for x in y}
nested = {x: sum(z for z in x) for x in y}
for x in (x for x in y):
    z = [x for x in y]
f(*(x if x else y))
"""
    assert dense_lines(source) == [2, 3, 6]


def test_at_most_one_comprehension_a_statement_and_no_starred_conditional() -> None:
    found = []
    for path in [path for folder in FOLDERS for path in sources(folder)]:
        found += [f"{path.relative_to(ROOT)}:{line}" for line in dense_lines(path.read_text())]
    assert found == []


def test_backends_import_the_seam_alone() -> None:
    for path in sources("backends"):
        names = {name for name in imports(path, everywhere=True) if name.startswith("offapi.")}
        assert {unit(name) for name in names} <= SEAM, path


def test_packages_are_the_folders() -> None:
    folders = {
        module_name(path)
        for folder in FOLDERS
        for path in sources(folder)
        if path.name == "__init__.py"
    }
    listed = PYPROJECT["tool"]["setuptools"]["packages"]
    assert sorted(folders) == sorted(listed)
    with_code = {path.parent for folder in FOLDERS for path in sources(folder)}
    assert [path for path in with_code if not (path / "__init__.py").exists()] == []


def test_the_wheel_holds_every_file_under_one_name(tmp_path: Path) -> None:
    if find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed, and building a wheel would need the network")
    tree = tmp_path / "tree"
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    done = subprocess.run([*build, "-w", str(tmp_path), str(tree)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0] for name in names} == {
        "offapi",
        f"offapi_kit-{offapi.__version__}.dist-info",
    }
    for folder, package in FOLDERS.items():
        files = [path for path in (tree / folder).rglob("*") if path.is_file()]
        assert len(files) > 10
        for path in files:
            inside = path.relative_to(tree / folder).as_posix()
            assert f"{package.replace('.', '/')}/{inside}" in names


def test_one_version() -> None:
    assert version("offapi-kit") == offapi.__version__
    assert f"## {offapi.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_core_imports_no_numbers_library_when_imported() -> None:
    """Nor do its functions, except transformers, whose tokenizers it uses.

    Backends are found by entry point.
    """
    for path in sources("offapi"):
        assert top(imports(path)).isdisjoint(NUMBERS), path
        assert top(imports(path, everywhere=True)).isdisjoint(NUMBERS - {"transformers"}), path
        for name in imports(path, everywhere=True):
            assert not name.startswith(
                ("offapi.backends", "offapi.recipes", "backends", "recipes")
            ), path


def test_importing_the_whole_core_loads_no_numbers_library() -> None:
    names = [module_name(path) for path in sources("offapi")]
    code = (
        f"import sys\nfor name in {names!r}: __import__(name)\nprint(*sorted(set({NUMBERS!r}) &"
        " sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_backends_and_recipes_import_core_or_neighbours() -> None:
    for folder in ("backends", "recipes"):
        for path in sources(folder):
            imported = top(imports(path, everywhere=True))
            assert imported.isdisjoint({"backends", "recipes", "tests"}), path
            if folder == "recipes":
                assert imported.isdisjoint(NUMBERS), f"{path}: a recipe never sees a tensor"


@pytest.mark.parametrize(
    ("package", "other"), [("torch_backend", {"mlx", "mlx_lm"}), ("mlx_backend", {"torch", "peft"})]
)
def test_a_backend_never_imports_the_other_backends_library(package: str, other: set[str]) -> None:
    for path in sources(f"backends/{package}"):
        assert top(imports(path, everywhere=True)).isdisjoint(other), path


def test_a_noun_has_the_same_file_in_both_backends() -> None:
    """Each has some more files: MLX its BLAS, torch what pays on CUDA.

    What both have has one name.
    """
    torch, mlx = (
        {path.stem for path in sources(f"backends/{name}_backend")} for name in ("torch", "mlx")
    )
    assert torch - mlx == {
        "bucketed_attention",
        "cuda_graphs",
        "fused_norms",
        "head",
        "int8_linear",
        "library_forward",
        "merged_weights",
        "packed_attention",
        "packing",
        "quantisers",
        "quiet_imports",
        "row_queue",
        "scores",
        "sharded",
    }
    assert mlx - torch == {
        "allocator",
        "blas",
        "continued",
        "drawing",
        "fast_exp",
        "fast_swiglu",
        "head_slopes",
        "library_cache",
        "library_config",
        "library_repairs",
        "loader",
        "micro_batches",
        "prefill",
        "prepare",
        "run_ahead",
        "text_models",
    }
    assert torch & mlx == {
        "__init__",
        "advantages",
        "attention",
        "backend",
        "cache",
        "checkpoint",
        "checkpointing",
        "dora",
        "engine",
        "exported",
        "full",
        "injection",
        "library_engine",
        "load_checks",
        "lora",
        "losses",
        "matching",
        "optimizer",
        "packed_moments",
        "policy",
        "policy_gradient",
        "policy_loss",
        "quantised",
        "reference",
        "ranks",
        "rollout",
        "rows",
        "sampling",
    }


@pytest.mark.parametrize("name", ["backends", "recipes"])
def test_bare_names_are_refused(name: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", f"import {name}"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert f"offapi.{name}" in done.stderr


def test_entry_points_name_modules_that_are_there() -> None:
    declared = PYPROJECT["project"]["entry-points"]["offapi.backends"]
    assert {entry.name: entry.value for entry in entry_points(group="offapi.backends")} == declared
    assert all(find_spec(value.split(":")[0]) for value in declared.values())


def test_the_top_package_offers_task_example_and_judge() -> None:
    from offapi.task import Example, Task
    from offapi.teachers.judge import judge

    assert offapi.Task is Task
    assert offapi.Example is Example
    assert offapi.judge is judge
    assert {"Task", "Example", "judge"} <= set(dir(offapi))
    with pytest.raises(AttributeError, match="no attribute 'Tusk'"):
        _ = offapi.Tusk
