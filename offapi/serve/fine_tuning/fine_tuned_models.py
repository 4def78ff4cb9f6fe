"""The models of finished jobs, added to a server that answers meanwhile.

Left out: freeing an engine's adapter, which stays in memory until the server ends.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path
from time import sleep

from offapi.engine import Engine
from offapi.errors import OffapiError, RunError
from offapi.predict.answering_model import AnsweringModel
from offapi.predict.predictor import Predictor
from offapi.serve.adapter_check import check_adapters
from offapi.serve.engine_loop import EngineLoop
from offapi.serve.errors import ApiError, wrong
from offapi.serve.fine_tuning.job_recipe import MADE, RUN, task_of
from offapi.serve.fine_tuning.job_store import FineTuningJob, JobStore
from offapi.serve.served_models import ServedModel, ServedModels
from offapi.task import load_task

LOG = logging.getLogger("offapi.serve")
TRIES, SECONDS_BETWEEN_TRIES = 600, 0.5


class FineTunedModels:
    """What jobs may train, and what they trained."""

    def __init__(self, models: ServedModels, loop: EngineLoop, backend: str) -> None:
        self.models, self.loop, self.backend = models, loop, backend

    def trainable(self, name: str) -> ServedModel:
        """Return the served model of that name. Raise ApiError for one that jobs cannot train."""
        found = self.models.get(name)
        if found.answering.adapter is not None:
            message = (
                "This model is fine-tuned already, and training begins at a base model. Serve the"
                " base model under a name of its own, and name that one."
            )
            raise wrong("model", message, "model_not_available")
        return found

    def add(self, job: FineTuningJob, folder: Path) -> None:
        """Serve the model of a finished job. Raise OffapiError where its folder is damaged."""
        answering = AnsweringModel.of(folder / RUN, bits=self.models.bits)
        file = task_of(job, folder)
        predictor = Predictor(answering, load_task(file) if file else None, file, self.backend)
        name = job.model_name

        def add_adapter(engine: Engine) -> None:
            engine.add_adapter(name, answering.adapter)

        self.loop.submit(add_adapter).result()
        model = ServedModel(name, predictor, name, created=job.finished_at or job.created_at)
        self._check(model)
        self.models.add(model)

    def _check(self, model: ServedModel) -> None:
        """Raise ModelError unless the engine computes what the training did."""
        for _ in range(TRIES):
            try:
                asyncio.run(check_adapters(self.loop, [model]))
                return
            except ApiError:  # the server has all the rows it takes
                sleep(SECONDS_BETWEEN_TRIES)
        raise RunError("the server had no room to check the model.", where=model.name)

    def add_finished(self, store: JobStore) -> int:
        """Serve the models of all finished jobs; return how many there are."""
        count = 0
        for job in store.jobs():
            if job.status != "succeeded" or job.deleted:
                continue
            try:
                self.add(job, store.job_folder(job.id))
                count += 1
            except OffapiError as error:
                LOG.error("%s is not served: %s", job.model_name, error)
        return count

    def remove(self, job: FineTuningJob) -> None:
        """Serve the model of a job no longer."""
        self.models.remove(job.model_name)

    def delete(self, store: JobStore, name: str) -> None:
        """Delete a fine-tuned model and what it was trained on. Raise ApiError for another one."""
        self.models.get(name)
        done = (each for each in store.jobs() if each.status == "succeeded")
        job = next((each for each in done if each.model_name == name), None)
        if job is None:
            message = "Only models of fine-tuning jobs can be deleted."
            raise ApiError(403, message, type="permission_error", param="model")
        store.mark_deleted(job.id)
        self.remove(job)
        clear_job(store.job_folder(job.id))


def clear_job(folder: Path) -> None:
    """Remove what a job was made from and what it made."""
    for name in MADE:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
