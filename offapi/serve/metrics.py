"""What /metrics shows: counts and times, never a text."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# a second series for each, of when it began
disable_created_metrics()  # type: ignore[no-untyped-call]
PATHS = (
    "/v1/chat/completions",
    "/v1/models",
    "/v1/files",
    "/v1/fine_tuning/jobs",
    "/health",
    "/metrics",
)
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class ServerMetrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        own = self.registry = CollectorRegistry()
        self.requests = Counter(
            "offapi_requests", "Answered requests.", ["path", "status"], registry=own
        )
        self.tokens = Counter(
            "offapi_tokens",
            "Tokens read (prompt) and written (completion).",
            ["kind"],
            registry=own,
        )
        self.canceled = Counter("offapi_canceled", "Requests whose client went away.", registry=own)
        self.answers = Counter(
            "offapi_answers", "Answers to a task, by what became of them.", ["result"], registry=own
        )
        self.escalated = Counter(
            "offapi_escalated",
            "Documents that went to a stronger endpoint, by its host.",
            ["to", "result"],
            registry=own,
        )
        self.lost_traces = Counter(
            "offapi_lost_traces", "Requests that could not be kept as traces.", registry=own
        )
        self.rows = Gauge("offapi_rows", "Completions that wait or decode.", registry=own)
        self.live_rows = Gauge("offapi_live_rows", "Rows that the engine has.", registry=own)
        self.steps = Gauge("offapi_engine_steps", "Steps of the engine so far.", registry=own)
        self.first_token = Histogram(
            "offapi_first_token_seconds", "Time to the first token.", buckets=_SECONDS, registry=own
        )
        self.seconds = Histogram(
            "offapi_answer_seconds", "Time to the whole answer.", buckets=_SECONDS, registry=own
        )

    def totals(self) -> dict[str, int]:
        """Return what was answered, for the command's result."""

        def of(name: str, **labels: str) -> int:
            return int(self.registry.get_sample_value(name, labels) or 0)

        return {
            "answers": of("offapi_answer_seconds_count"),
            "canceled": of("offapi_canceled_total"),
            "prompt_tokens": of("offapi_tokens_total", kind="prompt"),
            "completion_tokens": of("offapi_tokens_total", kind="completion"),
        }

    def text(self) -> bytes:
        """Return the metrics in Prometheus's text format."""
        return generate_latest(self.registry)


class CountedRequests:
    """The application `app`, whose answers are counted by path and status.

    Names in a path do not count, and unknown paths are one, so that no request adds a series.
    """

    def __init__(self, app: ASGIApp, metrics: ServerMetrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request and count it."""

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = path_group(scope["path"])
                self.metrics.requests.labels(path, str(message["status"])).inc()
            await send(message)

        await self.app(scope, receive, counting)


def path_group(path: str) -> str:
    """Return the path without the names in it; "other" for one that is not served."""
    return next((each for each in PATHS if path == each or path.startswith(f"{each}/")), "other")
