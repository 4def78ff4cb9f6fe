"""The endpoint that the options of `offapi label` describe, for single answers and for agents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from offapi.cli.output import Output
from offapi.errors import ConfigError

if TYPE_CHECKING:
    from offapi.task import Task
    from offapi.teachers.endpoint import Endpoint
    from offapi.teachers.teacher import Price

FOR_ENDPOINTS = (
    "model",
    "concurrency",
    "timeout",
    "price_in",
    "price_out",
    "max_cost",
    "api_key_env",
)
CONCURRENCY, TIMEOUT = 4, 120.0


def endpoint_of(
    url: str,
    task: Task,
    output: Output,
    settings: Mapping[str, Any],
    schema: Mapping[str, Any] | None = None,
) -> Endpoint:
    """Return the endpoint, and say where documents will go. Raise ConfigError if it refuses."""
    from offapi.network.addresses import on_this_network
    from offapi.teachers.address import api_key_from
    from offapi.teachers.endpoint import Endpoint

    endpoint = Endpoint(
        url=url,
        max_tokens=task.max_answer_tokens,
        schema=schema,
        model=settings["model"],
        key=api_key_from(settings["api_key_env"]),
        concurrency=settings["concurrency"] or CONCURRENCY,
        timeout=settings["timeout"] or TIMEOUT,
        price=_price(settings["price_in"], settings["price_out"]),
        max_cost=settings["max_cost"],
        terms_checked=settings["terms_checked"],
        say=output.say,
    )
    if not on_this_network(endpoint.host):
        output.say(f"The documents will be sent to {endpoint.host}, outside this network.")
    return endpoint


def _price(prompt: float | None, completion: float | None) -> Price | None:
    from offapi.teachers.teacher import Price

    if (prompt is None) != (completion is None):
        raise ConfigError(
            "--price-in and --price-out go together.", next_step="Give both; a price may be 0."
        )
    return None if prompt is None or completion is None else Price(prompt, completion)
