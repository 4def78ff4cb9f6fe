"""Which format a file may be of, where it is not of the one that was named.

Left out: using it unasked.
"""

from __future__ import annotations

from collections.abc import Sequence

from offapi.data.importers import importer, records
from offapi.data.importers.records import RecordFile
from offapi.data.importers.worker import ImportSettings, Worker

RECORDS = 20  # that are tried


def better_format(named: str, given: Sequence[RecordFile]) -> str:
    """The format, other than the one `named`, that reads
    most of the first records; "" where none reads any.
    """
    job = next(records.read_jobs(given, {"file": 0, "at": 0, "records": 0}), None)
    if job is None:
        return ""
    some = job._replace(records=job.records[:RECORDS])
    usable = {}
    for format in importer.FORMATS:
        if format not in (named, "generic"):
            rows = Worker(ImportSettings(format, {}, None)).work(some).rows()
            usable[format] = sum(row.dropped is None for row in rows)
    best = max(usable, key=lambda format: usable[format])
    return best if usable[best] else ""
