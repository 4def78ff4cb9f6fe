"""/v1/files: training files, checked when they arrive, and the metrics of finished jobs."""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from offapi.serve.errors import wrong
from offapi.serve.fine_tuning.job_service import page, service_of
from offapi.serve.fine_tuning.job_store import StoredFile
from offapi.serve.fine_tuning.training_file import count_examples
from offapi.serve.fine_tuning.upload import receive_file

PURPOSE = "fine-tune"
MOST = 10_000  # files of a page


async def create_file(request: Request) -> Response:
    """POST /v1/files."""
    store = service_of(request).store
    with store.new_file() as content:
        kind = request.headers.get("content-type", "")
        upload = await receive_file(kind, request.stream(), content)
        if upload.fields.get("purpose") != PURPOSE:
            message = f"'purpose' must be {PURPOSE!r}: other files have no use here."
            raise wrong("purpose", message, "invalid_value")
        if any(name.startswith("expires_after") for name in upload.fields):
            message = "Files stay until they are deleted; leave 'expires_after' out."
            raise wrong("expires_after", message, "unsupported_parameter")
        await run_in_threadpool(count_examples, content)
        added = await run_in_threadpool(store.add_file, content, upload.filename, PURPOSE)
    return JSONResponse(file_object(added))


def list_files(request: Request) -> Response:
    """GET /v1/files: the newest first."""
    files = service_of(request).store.files()
    wanted = request.query_params.get("purpose")
    found = [file_object(each) for each in files if wanted in (None, each.purpose)]
    if request.query_params.get("order", "desc") != "asc":
        found.reverse()
    return JSONResponse(page(found, request.query_params, MOST, MOST))


def show_file(request: Request) -> Response:
    """GET /v1/files/ID."""
    return JSONResponse(file_object(service_of(request).store.file(request.path_params["id"])))


def show_content(request: Request) -> Response:
    """GET /v1/files/ID/content."""
    path = service_of(request).store.content(request.path_params["id"])
    return FileResponse(path, media_type="application/octet-stream")


def delete_file(request: Request) -> Response:
    """DELETE /v1/files/ID."""
    id = request.path_params["id"]
    service_of(request).store.delete_file(id)
    return JSONResponse({"id": id, "object": "file", "deleted": True})


def file_object(file: StoredFile) -> dict[str, Any]:
    """Return a file as OpenAI's clients read it."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created_at,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
    }


ROUTES = [
    Route("/v1/files", create_file, methods=["POST"]),
    Route("/v1/files", list_files),
    Route("/v1/files/{id}", show_file),
    Route("/v1/files/{id}", delete_file, methods=["DELETE"]),
    Route("/v1/files/{id}/content", show_content),
]
