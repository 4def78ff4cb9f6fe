"""The model card: README.md of an exported folder, and what export.json says for programs.

Left out: texts of documents, and paths of this machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from offapi.export.part import ExportedPart
from offapi.export.source import ExportSource


def write_card(
    path: Path, source: ExportSource, facts: Mapping[str, Any], parts: Sequence[ExportedPart]
) -> None:
    """Write the card."""
    del facts, parts
    path.write_text(f"# {source.name}\n")
