"""The files in a folder that can be read, and the others, counted and named.

Hidden files that could be read are counted too. Left out: links to folders, which are not followed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from offapi.files.other_kinds import BY_SUFFIX
from offapi.text.display import plural

SHOWN = 8  # kinds of files that are named


@dataclass(frozen=True)
class Folder:
    """What is in a folder: the files to read, by their names in it, and the number of others."""

    path: Path
    files: Sequence[tuple[str, Path]]
    others: Mapping[str, int]  # by suffix
    hidden: int  # that could be read

    def left_out(self) -> str:
        """Return what is not read, with how to convert it; "" where everything is."""
        count = sum(self.others.values()) + self.hidden
        if not count:
            return ""
        ordered = sorted(self.others, key=lambda suffix: (-self.others[suffix], suffix))
        named = [f"{self.others[each]:,} {each or 'without a suffix'}" for each in ordered[:SHOWN]]
        if len(ordered) > SHOWN:
            rest = sum(map(self.others.__getitem__, ordered[SHOWN:]))
            named.append(f"{rest:,} of other kinds")
        if self.hidden:
            named.append(f"{self.hidden:,} hidden")
        are = "is" if count == 1 else "are"
        said = f"{plural(count, 'file')} in {self.path} {are} not read: {', '.join(named)}."
        return " ".join((said, *_steps(ordered)))


def _steps(suffixes: Sequence[str]) -> list[str]:
    """Return what to do with files of these suffixes, said once for those of one kind."""
    steps: dict[str, list[str]] = {}
    for suffix in suffixes:
        if suffix in BY_SUFFIX:
            steps.setdefault(BY_SUFFIX[suffix].step, []).append(suffix)
    return [f"{', '.join(each)}: {step}" for step, each in steps.items()]


def list_folder(path: Path, suffixes: Sequence[str]) -> Folder:
    """Return the files below `path` that end with one of `suffixes`, in order; count the rest."""
    files: list[tuple[str, Path]] = []
    others: Counter[str] = Counter()
    hidden = 0
    for file in path.rglob("*"):
        inside = file.relative_to(path)
        if not file.is_file():
            continue
        wanted = file.name.lower().endswith(tuple(suffixes))
        if any(part.startswith(".") for part in inside.parts):
            hidden += wanted
        elif wanted:
            files.append((_written(inside), file))
        else:
            others[file.suffix.lower()] += 1
    return Folder(path, sorted(files), others, hidden)


def _written(inside: Path) -> str:
    """Return a file's name in the folder as text; on Linux a name can be any bytes."""
    return os.fsencode(inside.as_posix()).decode("utf-8", "backslashreplace")
