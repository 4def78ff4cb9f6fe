"""LiteLLM's logs: the proxy's table SpendLogs, and the standard logging payload of callbacks.

Left out: rows answered from the cache, which repeat another row's answer, and whatever LiteLLM
redacted or shortened when it stored it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from offapi.data.importers.shared import reasons, settings
from offapi.data.importers.shared.exchange import (
    call_failed,
    exchange,
    is_cache_hit,
    pair_rows,
)
from offapi.data.importers.shared.loose_json import (
    Json,
    first,
    known,
    moment,
    obj,
    opened,
)
from offapi.data.importers.shared.reading import is_response
from offapi.data.importers.shared.reasons import Dropped
from offapi.data.traces import Trace

NO_CONTENT = Dropped(
    "a row without prompt and answer",
    "The proxy stores them only with `store_prompts_in_spend_logs: true` under general_settings,"
    " and some versions leave the columns empty even then: log the standard logging payload with a"
    " callback (s3, gcs_bucket, custom).",
)
CHATS = ("completion", "acompletion", "responses", "aresponses", "anthropic_messages", "", None)


def rows(record: Mapping[str, Json]) -> Iterator[Trace | Dropped]:
    """Yield the rows in `record`: one, or one for each choice."""
    sent = obj(record.get("proxy_server_request"))
    sent = obj(sent.get("body")) or sent
    asked, response = opened(record.get("messages")) or None, obj(record.get("response"))
    if asked is None and sent:
        asked = first(sent, "messages", "input")
    logged = "call_type" in record or "request_id" in record or "response" in record
    if not logged:
        yield reasons.unread(record)
    elif record.get("call_type") not in CHATS:
        yield reasons.NOT_A_CALL
    elif call_failed(record):
        yield reasons.FAILED
    elif is_cache_hit(record):
        yield reasons.CACHE_HIT
    elif not asked and not response:
        yield NO_CONTENT
    else:
        yield from _rows(record, sent, asked, response)


def _rows(
    record: Mapping[str, Json], sent: Mapping[str, Json], asked: Json, response: Mapping[str, Json]
) -> Iterator[Trace | Dropped]:
    parameters = obj(record.get("model_parameters"))
    request = {**sent, **parameters, "model": record.get("model")}
    about = known(
        id=first(record, "request_id", "id"),
        group=record.get("session_id") or record.get("trace_id"),
        ts=moment(record.get("startTime")),
        cost=first(record, "response_cost", "spend"),
        trace_id=record.get("trace_id"),
        end_user=record.get("end_user"),
        params=settings.requested_settings(sent) | settings.stated_settings(parameters),
    )
    given = record.get("response")
    if isinstance(given, str) and not is_response(response):
        about = {**about, "model": record.get("model")}
        yield from pair_rows(asked, given, tools=request.get("tools"), **about)
    else:
        asks = "input" if isinstance(response.get("output"), list) else "messages"
        yield from exchange({**request, asks: asked}, response, **about)
