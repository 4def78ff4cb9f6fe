"""Answers in the responses of further APIs: Gemini, Bedrock's Converse, Ollama, LangChain's models.

Left out: models that complete a text instead of answering messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from offapi.data.importers.shared.loose_json import Json, first, items, obj
from offapi.data.importers.shared.message_shapes import is_message


class ApiAnswer(NamedTuple):
    """A message, and why the model ended it."""

    message: Json
    ending: Json


def answers_in(response: Mapping[str, Json]) -> list[ApiAnswer]:
    """Return the answers in a response; none where it has the shape of no known API."""
    if "candidates" in response:
        return [_candidate(obj(each)) for each in items(response.get("candidates"))]
    if "generations" in response:
        return [_generation(obj(each)) for each in _flat(response.get("generations"))]
    converse = obj(response.get("output")).get("message")
    if isinstance(converse, dict):
        return [ApiAnswer(converse, response.get("stopReason"))]
    message = response.get("message")
    if is_message(message):
        ending = first(response, "done_reason", "finish_reason")
        return [ApiAnswer(message, ending or obj(message).get("finish_reason"))]
    return []


def _candidate(candidate: Mapping[str, Json]) -> ApiAnswer:
    content = {**obj(candidate.get("content")), "role": "assistant"}
    return ApiAnswer(content, first(candidate, "finishReason", "finish_reason"))


def _generation(generation: Mapping[str, Json]) -> ApiAnswer:
    about = obj(first(generation, "generation_info", "generationInfo"))
    message = generation.get("message") or {"role": "assistant", "content": generation.get("text")}
    return ApiAnswer(message, first(about, "finish_reason", "stop_reason"))


def _flat(value: Json) -> list[Json]:
    """Return a list of lists as one list; LangChain keeps one for each prompt of a batch."""
    flat: list[Json] = []
    for each in items(value):
        flat += each if isinstance(each, list) else [each]
    return flat
