"""The parts of a message's content, in every dialect, as pieces of four kinds.

OpenAI's, Anthropic's and the Vercel AI SDK's parts name their type; those of Gemini and of
Bedrock's Converse are named by their only key. Ignored: encrypted or redacted thinking,
annotations, log probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from offapi.data.importers.shared import reasons
from offapi.data.importers.shared.loose_json import Json, first, json_text, obj
from offapi.data.importers.shared.reasons import Dropped, Unusable
from offapi.data.importers.shared.text_documents import decoded_text, document_text
from offapi.data.importers.shared.tool_calls import make_call, read_result

TEXTS = ("text", "input_text", "output_text")
THINKING = ("thinking", "reasoning")
CALLS = ("tool_use", "tool_call", "tool-call")
RESULTS = ("tool_result", "tool_call_response", "tool-result")
DOCUMENTS = ("document", "search_result", "file", "input_file")
UNREADABLE = ("redacted_thinking", "redacted-reasoning", "compaction")
OTHER: Mapping[str, Dropped] = {
    "image": reasons.IMAGE,
    "image_url": reasons.IMAGE,
    "input_image": reasons.IMAGE,
    "audio": reasons.AUDIO,
    "input_audio": reasons.AUDIO,
    "video": reasons.AUDIO,
    "video_url": reasons.AUDIO,
    "container_upload": reasons.DOCUMENT,
    "refusal": reasons.REFUSED,
    "server_tool_use": reasons.HOSTED_TOOL,
    "mcp_tool_use": reasons.HOSTED_TOOL,
    "server_tool_call": reasons.HOSTED_TOOL,
    "server_tool_call_response": reasons.HOSTED_TOOL,
}
UNTYPED_CALLS = ("functionCall", "function_call", "toolUse")
UNTYPED_RESULTS = ("functionResponse", "function_response", "toolResult")
UNTYPED_FILES = ("inlineData", "inline_data", "fileData", "file_data")
UNTYPED_OTHER: Mapping[str, Dropped] = {
    "image": reasons.IMAGE,
    "video": reasons.AUDIO,
    "audio": reasons.AUDIO,
    "executableCode": reasons.HOSTED_TOOL,
    "codeExecutionResult": reasons.HOSTED_TOOL,
}
IGNORED = {"cachePoint", "thoughtSignature", "thought_signature"}


class Piece(NamedTuple):
    """A part of a message: a text, thinking, a tool call, or a tool's result as its own message.

    `phase`: what a text is, `commentary` or `final_answer`; "" where that is not recorded.
    `cited`: a text that citations have cut out of a sentence.
    """

    kind: Literal["text", "thinking", "call", "result"]
    value: Json
    phase: str = ""
    cited: bool = False


def read_part(part: Json) -> list[Piece]:
    """Return the pieces in a part; raise Unusable where it is neither text nor a tool's use."""
    if isinstance(part, str):
        return [Piece("text", part)]
    if not isinstance(part, dict):
        raise Unusable(reasons.BAD_MESSAGE, "a part of the content is not an object")
    kind = part.get("type")
    if kind is None:
        return _untyped(part)
    if kind in TEXTS:
        cited = bool(part.get("citations") or part.get("annotations"))
        phase = str(part.get("phase") or "")
        return [Piece("text", _text(first(part, "text", "content")), phase, cited)]
    if kind in THINKING:
        return [Piece("thinking", _thought(part))]
    if kind in CALLS:
        return [Piece("call", make_call(part))]
    if kind in RESULTS:
        return [_result(part)]
    if kind in UNREADABLE:
        return []
    return [Piece("text", _other_text(part, kind))]


def result_text(content: Json) -> str:
    """Return what a tool returned as text: blocks of text joined, anything else as JSON."""
    if content is None:
        return ""
    if isinstance(content, dict) and set(content) == {"type", "value"}:  # the Vercel AI SDK's
        return result_text(content["value"])
    if isinstance(content, list) and content and all(map(_block, content)):
        return joined([piece for part in content for piece in read_part(part)], "\n")
    return content if isinstance(content, str) else json_text(content)


def joined(pieces: list[Piece], between: str) -> str:
    """Return the texts among `pieces` as one."""
    return between.join(piece.value for piece in pieces if piece.kind == "text")


def _block(part: Json) -> bool:
    return isinstance(part, dict) and ("type" in part or set(part) == {"text"})


def _result(part: Mapping[str, Json]) -> Piece:
    id = first(part, "tool_use_id", "id", "toolCallId", "toolUseId")
    content = first(part, "content", "response", "result", "output")
    failed = part.get("is_error") is True or part.get("isError") is True
    return Piece("result", read_result(id, result_text(content), failed=failed))


def _other_text(part: Mapping[str, Json], kind: Json) -> str:
    """Return the text of a document or file; raise Unusable where it holds another medium."""
    if kind in ("blob", "uri"):  # OpenTelemetry names the kind in the modality
        content = decoded_text(part.get("mime_type"), part.get("content"))
        kind = str(part.get("modality"))
    else:
        content = document_text(part) if kind in DOCUMENTS else None
    if content is not None:
        return content
    if kind in DOCUMENTS:
        raise Unusable(_medium(first(part, "mediaType", "mimeType", "mime_type")))
    known = OTHER.get(kind) if isinstance(kind, str) else None
    raise Unusable(known or reasons.UNKNOWN_CONTENT)


def _untyped(part: Mapping[str, Json]) -> list[Piece]:
    """Return the pieces of a part without a type, as Gemini and Bedrock's Converse have them."""
    if isinstance(part.get("text"), str):
        return [Piece("thinking" if part.get("thought") is True else "text", part["text"])]
    call, result = first(part, *UNTYPED_CALLS), first(part, *UNTYPED_RESULTS)
    if isinstance(call, dict):
        return [Piece("call", make_call(call))]
    if isinstance(result, dict):
        contents = result.get("content")
        plain = [_unwrapped(each) for each in contents] if isinstance(contents, list) else None
        return [_result({**result, "content": plain} if plain else result)]
    thought = obj(part.get("reasoningContent"))
    if thought:
        return [Piece("thinking", str(obj(thought.get("reasoningText")).get("text") or ""))]
    if isinstance(part.get("document"), dict):
        return [Piece("text", _other_text(part["document"], "document"))]
    if isinstance(part.get("guardContent"), dict):
        return _untyped(obj(part["guardContent"].get("text")))
    if part and set(part) <= IGNORED:
        return []
    return [Piece("text", _file_text(part))]


def _unwrapped(content: Json) -> Json:
    """Return a part of Converse's tool result without the key that names its kind."""
    known = {"json": content.get("json")} if isinstance(content, dict) and "json" in content else {}
    return {"text": json_text(known["json"])} if known else content


def _file_text(part: Mapping[str, Json]) -> str:
    file = obj(first(part, *UNTYPED_FILES))
    media_type = first(file, "mimeType", "mime_type")
    content = decoded_text(media_type, file.get("data"))
    if content is not None:
        return content
    if file:
        raise Unusable(_medium(media_type))
    known = next((UNTYPED_OTHER[name] for name in part if name in UNTYPED_OTHER), None)
    raise Unusable(known or reasons.UNKNOWN_CONTENT)


def _medium(media_type: Json) -> Dropped:
    """Return the reason for a file of another medium than text."""
    kind = str(media_type or "").partition("/")[0]
    media = {"image": reasons.IMAGE, "audio": reasons.AUDIO, "video": reasons.AUDIO}
    return media.get(kind, reasons.DOCUMENT)


def _thought(part: Mapping[str, Json]) -> str:
    return _text(first(part, "thinking", "content", "text", "reasoning") or "")


def _text(value: Json) -> str:
    if not isinstance(value, str):
        raise Unusable(reasons.BAD_MESSAGE, "a part of text has no text")
    return value
