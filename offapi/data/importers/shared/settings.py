"""How a model was asked to answer: temperature, limits, form of the answer, in the recorded names.

Left out: everything else, above all headers, keys and users, which request logs also contain.
"""

from __future__ import annotations

from collections.abc import Mapping

from offapi.data.importers.shared.loose_json import Json, known

SETTINGS = frozenset(
    {
        *("temperature", "top_p", "top_k", "min_p", "seed", "n", "stop", "stop_sequences"),
        *(
            "max_tokens",
            "max_completion_tokens",
            "max_output_tokens",
            "logprobs",
            "top_logprobs",
            "logit_bias",
        ),
        *(
            "presence_penalty",
            "frequency_penalty",
            "repetition_penalty",
            "reasoning_effort",
            "verbosity",
        ),
        *("response_format", "tool_choice", "parallel_tool_calls", "truncation"),
    }
)
# Settings only where they are objects; otherwise they are what was said.
OBJECTS = ("reasoning", "thinking", "text")
OTHERS = frozenset(
    {
        *(
            "model",
            "messages",
            "input",
            "instructions",
            "prompt",
            "system",
            "tools",
            "functions",
            "stream",
        ),
        *(
            "user",
            "metadata",
            "headers",
            "extra_headers",
            "extra_query",
            "extra_body",
            "extra_args",
        ),
        *("api_key", "api_base", "base_url"),
    }
)


def requested_settings(*sides: Mapping[str, Json]) -> dict[str, Json]:
    """Return the settings among the fields of a request, or of a response that repeats them.

    The first side has precedence.
    """
    settings: dict[str, Json] = {}
    for side in reversed(sides):
        for name, value in side.items():
            if (name in SETTINGS and value is not None) or (
                name in OBJECTS and isinstance(value, dict)
            ):
                settings[name] = value
    return settings


def stated_settings(given: Mapping[str, Json]) -> dict[str, Json]:
    """Return everything in an object that a log keeps for settings, except OTHERS."""
    return known(**{name: value for name, value in given.items() if name not in OTHERS})
