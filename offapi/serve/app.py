"""The server's endpoints as one application, and how it answers what goes wrong."""

from __future__ import annotations

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from offapi.serve.chat_completions import chat_completions
from offapi.serve.errors import ApiError, failed
from offapi.serve.fine_tuning import endpoints, files_api
from offapi.serve.served_models import ServedModel
from offapi.serve.server import Server


def build_app(server: Server) -> Starlette:
    """Return the application that answers for `server`."""
    routes = [
        Route("/v1/chat/completions", chat_completions, methods=["POST"]),
        Route("/v1/models", list_models),
        Route("/v1/models/{name:path}", show_model),
        Route("/health", health),
        Route("/metrics", show_metrics),
        *files_api.ROUTES,
        *endpoints.ROUTES,
    ]
    handlers = {
        ApiError: _refused,
        HTTPException: _no_endpoint,
        Exception: _failed,
    }
    app = Starlette(routes=routes, exception_handlers=handlers)  # type: ignore[arg-type]
    app.state.server = server
    return app


def json_response(body: object, status: int = 200) -> Response:
    """Return `body` as JSON."""
    return Response(orjson.dumps(body), status, media_type="application/json")


async def list_models(request: Request) -> Response:
    """GET /v1/models."""
    server: Server = request.app.state.server
    return json_response({"object": "list", "data": [_model(each) for each in server.models]})


async def show_model(request: Request) -> Response:
    """GET /v1/models/NAME."""
    server: Server = request.app.state.server
    return json_response(_model(server.models.get(request.path_params["name"])))


async def health(request: Request) -> Response:
    """GET /health: 200 while requests are taken, 503 while the server ends."""
    server: Server = request.app.state.server
    state = "draining" if server.draining else "ok"
    return json_response({"status": state}, 503 if server.draining else 200)


async def show_metrics(request: Request) -> Response:
    """GET /metrics, in Prometheus's text format."""
    server: Server = request.app.state.server
    server.metrics.rows.set(server.loop.open_rows)
    server.metrics.live_rows.set(server.loop.live_rows)
    server.metrics.steps.set(server.loop.steps)
    return Response(server.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _model(model: ServedModel) -> dict[str, object]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "offapi",
        "offapi": model.identity,
    }


async def _refused(request: Request, error: ApiError) -> Response:
    return error.response()


async def _no_endpoint(request: Request, error: HTTPException) -> Response:
    if error.status_code == 405:
        known = ApiError(405, "This path does not take that method.", code="method_not_allowed")
    elif error.status_code == 404:
        known = ApiError(404, "There is no such path here.", code="unknown_url")
    else:
        known = ApiError(error.status_code, "The request was refused.")
    return known.response()


async def _failed(request: Request, error: Exception) -> Response:
    return failed().response()  # Starlette raises it again, and `Access` logs it
