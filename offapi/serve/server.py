"""The parts of a running server, which its endpoints share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from offapi.serve.engine_loop import EngineLoop
from offapi.serve.limits import ServerLimits
from offapi.serve.metrics import ServerMetrics
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
    metrics: ServerMetrics = field(default_factory=ServerMetrics)
    draining: bool = False
    capture: Capture | None = None
