"""Guess the format of a file that does not have the format the user named.

Left out: using the guess without being asked.
"""

from __future__ import annotations

from collections.abc import Sequence

from offapi.data.importers import importer, records
from offapi.data.importers.records import RecordFile
from offapi.data.importers.worker import ImportSettings, Worker

RECORDS = 20  # to try


def better_format(named: str, given: Sequence[RecordFile]) -> str:
    """Return the format, other than the one `named`, that reads most of the first records.

    "" where no format reads any of them.
    """
    job = next(records.read_jobs(given, {"file": 0, "at": 0, "records": 0}), None)
    if job is None:
        return ""
    sample = job._replace(records=job.records[:RECORDS])
    usable = {}
    for format in importer.FORMATS:
        if format not in (named, "generic"):
            rows = Worker(ImportSettings(format, {}, None)).work(sample).rows()
            usable[format] = sum(row.dropped is None for row in rows)
    best = max(usable, key=lambda format: usable[format])
    return best if usable[best] else ""
