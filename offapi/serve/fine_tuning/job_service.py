"""The parts of a server that are there with `--jobs DIR`: store, runner and models.

Left out: the endpoints (`endpoints`, `files_api`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from starlette.requests import Request

from offapi.progress import Progress
from offapi.serve.engine_loop import EngineLoop
from offapi.serve.errors import ApiError, wrong
from offapi.serve.fine_tuning.fine_tuned_models import FineTunedModels
from offapi.serve.fine_tuning.job_runner import JobRunner
from offapi.serve.fine_tuning.job_store import JobStore
from offapi.serve.served_models import ServedModels
from offapi.text.display import plural


@dataclass(frozen=True)
class JobService:
    """What the endpoints of files and fine-tuning work with."""

    store: JobStore
    runner: JobRunner
    models: FineTunedModels

    @classmethod
    @contextmanager
    def open(
        cls,
        folder: Path,
        models: ServedModels,
        loop: EngineLoop,
        backend: str,
        progress: Progress,
    ) -> Iterator[Self]:
        """Serve the folder's finished models, and train its jobs until the block ends.

        Raise RunError where the folder cannot be used.
        """
        with JobStore.open(folder) as store:
            tuned = FineTunedModels(models, loop, backend)
            count = tuned.add_finished(store)
            if count:
                progress.say(f"{plural(count, 'fine-tuned model')} of {folder} served too.")
            runner = JobRunner(store, backend, models.context, tuned)
            runner.start()
            try:
                yield cls(store, runner, tuned)
            finally:
                runner.close()


def service_of(request: Request) -> JobService:
    """Return the server's jobs. Raise ApiError (404) where it was started without them."""
    jobs: JobService | None = request.app.state.server.jobs
    if jobs is None:
        message = "Files and fine-tuning need a folder: start the server with --jobs DIR."
        raise ApiError(404, message, code="unknown_url")
    return jobs


def page(
    items: Sequence[Mapping[str, Any]], query: Mapping[str, str], limit: int, most: int
) -> dict[str, Any]:
    """Return the page of a list that `after` and `limit` of a query ask for."""
    given = query.get("limit")
    if given is not None:
        if not given.isascii() or not given.isdigit() or not 1 <= int(given[:9]) <= most:
            raise wrong("limit", f"'limit' must be from 1 to {most}.", "invalid_value")
        limit = int(given)
    after = query.get("after")
    first = 0
    if after:
        first = next((at + 1 for at, each in enumerate(items) if each["id"] == after), 0)
        if not first:
            raise wrong("after", "There is nothing of the id in 'after'.", "invalid_value")
    shown = items[first : first + limit]
    return {
        "object": "list",
        "data": list(shown),
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": first + limit < len(items),
    }
