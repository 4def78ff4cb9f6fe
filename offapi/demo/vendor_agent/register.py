"""The register as an SQLite file that is searched by trigrams (FTS5).

Left out: updates; the file is written once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from offapi.demo.vendor_agent.companies import Company

_SCHEMA = """\
CREATE TABLE vendors (id INTEGER PRIMARY KEY, name TEXT, address TEXT, number TEXT);
CREATE VIRTUAL TABLE names USING fts5(name, content=vendors, content_rowid=id, tokenize=trigram);
"""


def write_register(path: Path, companies: Iterable[Company]) -> None:
    """Write a new register to `path`; raise FileExistsError where there is a file."""
    path.touch(exist_ok=False)
    with closing(sqlite3.connect(path)) as database, database:
        database.executescript(_SCHEMA)
        rows = [(each.id, each.name, each.address, each.number) for each in companies]
        database.executemany("INSERT INTO vendors VALUES (?, ?, ?, ?)", rows)
        database.execute("INSERT INTO names(names) VALUES ('rebuild')")
        database.execute("INSERT INTO names(names) VALUES ('optimize')")
