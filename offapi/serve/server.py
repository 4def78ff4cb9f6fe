"""The parts of a running server, which its endpoints share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from offapi.serve.engine_loop import EngineLoop
from offapi.serve.escalation import Escalation
from offapi.serve.fine_tuning.job_service import JobService
from offapi.serve.limits import ServerLimits
from offapi.serve.metrics import ServerMetrics
from offapi.serve.response_format import ResponseFormats
from offapi.serve.review_queue import ReviewQueue
from offapi.serve.served_models import ServedModels

if TYPE_CHECKING:
    from offapi.serve.capture import Capture


@dataclass
class Server:
    """What endpoints work with. Parts that are None were not asked for."""

    models: ServedModels
    loop: EngineLoop
    backend_name: str
    limits: ServerLimits = ServerLimits()
    escalation: Escalation | None = None
    review_queue: ReviewQueue | None = None
    below: float | None = None  # the confidence below which answers are not accepted
    metrics: ServerMetrics = field(default_factory=ServerMetrics)
    jobs: JobService | None = None
    draining: bool = False
    capture: Capture | None = None
    formats: ResponseFormats = field(init=False)

    def __post_init__(self) -> None:
        self.formats = ResponseFormats(self.models.chat)
