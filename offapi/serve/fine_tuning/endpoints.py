"""/v1/fine_tuning/jobs in OpenAI's shape, and the end of a fine-tuned model.

Left out: pausing a job.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from offapi.serve.errors import ApiError, wrong
from offapi.serve.fine_tuning.files_api import PURPOSE
from offapi.serve.fine_tuning.job_recipe import TRAINING, VALIDATION
from offapi.serve.fine_tuning.job_service import JobService, page, service_of
from offapi.serve.fine_tuning.job_store import FineTuningJob
from offapi.serve.fine_tuning.request import JobBody, read_job_request

LIMIT, MOST = 20, 100  # jobs or events of a page
PATH = "/v1/fine_tuning/jobs"


async def create_job(request: Request) -> Response:
    """POST /v1/fine_tuning/jobs."""
    jobs = service_of(request)
    given, asked = read_job_request(await request.body())
    job = await run_in_threadpool(_add, jobs, given, asked)
    jobs.runner.notice()
    return JSONResponse(job_object(job))


def _add(jobs: JobService, given: JobBody, asked: Mapping[str, Any]) -> FineTuningJob:
    model = jobs.models.trainable(given.model)
    copies = {TRAINING: _training_file(jobs, given.training_file, "training_file")}
    if given.validation_file is not None:
        copies[VALIDATION] = _training_file(jobs, given.validation_file, "validation_file")
    task_file = model.predictor.task_file
    wanted = {
        "model": given.model,
        "base": str(model.answering.model.path),
        "task_file": None if task_file is None else str(task_file.absolute()),
        "training_file": given.training_file,
        "validation_file": given.validation_file,
    }
    return jobs.store.add_job({**wanted, **asked}, copies)


def _training_file(jobs: JobService, id: str, param: str) -> str:
    if jobs.store.file(id, param).purpose != PURPOSE:
        raise wrong(param, f"The file's purpose must be {PURPOSE!r}.", "invalid_value")
    return id


def list_jobs(request: Request) -> Response:
    """GET /v1/fine_tuning/jobs: the newest first."""
    query = request.query_params
    wanted = {
        key.removeprefix("metadata[").removesuffix("]"): value
        for key, value in query.items()
        if key.startswith("metadata[")
    }
    jobs = reversed(service_of(request).store.jobs())
    found = [job_object(each) for each in jobs if wanted.items() <= each.metadata.items()]
    return JSONResponse(page(found, query, LIMIT, MOST))


def show_job(request: Request) -> Response:
    """GET /v1/fine_tuning/jobs/ID."""
    return JSONResponse(job_object(service_of(request).store.job(request.path_params["id"])))


def list_events(request: Request) -> Response:
    """GET /v1/fine_tuning/jobs/ID/events: the newest first."""
    id = request.path_params["id"]
    events = list(enumerate(service_of(request).store.events(id)))
    found = [event_object(id, number, event) for number, event in reversed(events)]
    return JSONResponse(page(found, request.query_params, LIMIT, MOST))


def list_checkpoints(request: Request) -> Response:
    """GET /v1/fine_tuning/jobs/ID/checkpoints: the finished model, the only one that is served."""
    job = service_of(request).store.job(request.path_params["id"])
    done = job.status == "succeeded" and not job.deleted
    found = [checkpoint_object(job)] if done else []
    return JSONResponse(page(found, request.query_params, LIMIT, MOST))


def cancel_job(request: Request) -> Response:
    """POST /v1/fine_tuning/jobs/ID/cancel: its process ends, and nothing half-made is kept."""
    jobs, id = service_of(request), request.path_params["id"]
    jobs.store.job(id)
    if not jobs.runner.cancel(id):
        raise ApiError(400, "The job has ended, so it cannot be cancelled.", code="invalid_value")
    return JSONResponse(job_object(jobs.store.job(id)))


def delete_model(request: Request) -> Response:
    """DELETE /v1/models/NAME, for the model of a job, with what it learned from."""
    jobs, name = service_of(request), request.path_params["name"]
    jobs.models.delete(jobs.store, name)
    return JSONResponse({"id": name, "object": "model", "deleted": True})


def job_object(job: FineTuningJob) -> dict[str, Any]:
    """Return a job as OpenAI's clients read it."""
    numbers = {
        "n_epochs": job.epochs,
        "batch_size": job.batch_size,
        "learning_rate_multiplier": job.lr_multiplier,
    }
    return {
        "id": job.id,
        "object": "fine_tuning.job",
        "created_at": job.created_at,
        "finished_at": job.finished_at,
        "estimated_finish": job.estimated_finish,
        "status": job.status,
        "error": job.error,
        "model": job.model,
        "fine_tuned_model": job.model_name if job.status == "succeeded" else None,
        "user_provided_suffix": job.suffix,
        "organization_id": "offapi",
        "training_file": job.training_file,
        "validation_file": job.validation_file,
        "result_files": job.result_files,
        "trained_tokens": job.trained_tokens,
        "hyperparameters": numbers,
        "method": {"type": "supervised", "supervised": {"hyperparameters": numbers}},
        "seed": job.seed,
        "integrations": [],
        "metadata": job.metadata,
    }


def event_object(job: str, number: int, event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event as OpenAI's clients read it."""
    return {
        "id": f"ftevent-{job.removeprefix('ftjob-')}-{number}",
        "object": "fine_tuning.job.event",
        "created_at": event["created_at"],
        "level": event["level"],
        "message": event["message"],
        "type": "message" if event["data"] is None else "metrics",
        "data": event["data"] or {},
    }


def checkpoint_object(job: FineTuningJob) -> dict[str, Any]:
    """Return the end of a finished job's training as OpenAI's clients read it."""
    return {
        "id": f"ftckpt-{job.id.removeprefix('ftjob-')}",
        "object": "fine_tuning.job.checkpoint",
        "created_at": job.finished_at,
        "fine_tuned_model_checkpoint": job.model_name,
        "fine_tuning_job_id": job.id,
        "metrics": {"step": job.steps, "train_loss": job.train_loss},
        "step_number": job.steps,
    }


ROUTES = [
    Route(PATH, create_job, methods=["POST"]),
    Route(PATH, list_jobs),
    Route(f"{PATH}/{{id}}", show_job),
    Route(f"{PATH}/{{id}}/events", list_events),
    Route(f"{PATH}/{{id}}/checkpoints", list_checkpoints),
    Route(f"{PATH}/{{id}}/cancel", cancel_job, methods=["POST"]),
    Route("/v1/models/{name:path}", delete_model, methods=["DELETE"]),
]
