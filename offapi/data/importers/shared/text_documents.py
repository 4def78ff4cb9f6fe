"""Documents within a message whose content is text: they are read, with their title.

Anthropic's document and search_result blocks, Bedrock's documents, and files kept in the message
whose media type is text. Left out: every other media type, and files kept elsewhere.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from offapi.data.importers.shared.loose_json import Json, first, obj, text

TEXT_TYPES = ("text/", "application/json", "application/xml", "application/x-ndjson")
TEXT_FORMATS = ("txt", "md", "csv", "html", "json", "xml")


def document_text(part: Mapping[str, Json]) -> str | None:
    """Return the text of a document in a message, with its title; None where it is not text."""
    content = _content(part)
    if content is None:
        return None
    title = text(part.get("title")) or text(part.get("name"))
    before = [each for each in (title, text(part.get("context"))) if each]
    return "\n".join([*before, content])


def decoded_text(media_type: Json, data: Json) -> str | None:
    """Return the text in base64 `data`; None where its media type is another one."""
    if not isinstance(media_type, str) or not media_type.startswith(TEXT_TYPES):
        return None
    try:
        return base64.b64decode(str(data), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None


def uri_text(uri: Json) -> str | None:
    """Return the text in a `data:` URI; None where it has another media type."""
    if not isinstance(uri, str) or not uri.startswith("data:"):
        return None
    about, _, data = uri[len("data:") :].partition(",")
    media_type, _, encoding = about.rpartition(";")
    return decoded_text(media_type or about, data) if encoding == "base64" else None


def _content(part: Mapping[str, Json]) -> str | None:
    """Return what the document holds, wherever its kind of block keeps it."""
    source = part.get("source")
    if not isinstance(source, dict):
        file = obj(part.get("file")) or part
        return _joined(part.get("content")) or uri_text(file.get("file_data"))
    kind, data = source.get("type"), first(source, "data", "text", "bytes")
    if kind == "text" or isinstance(source.get("text"), str):
        return text(data)
    if part.get("format") in TEXT_FORMATS:
        return decoded_text("text/plain", data)
    if kind == "base64":
        return decoded_text(source.get("media_type"), data)
    return _joined(source.get("content"))


def _joined(content: Json) -> str | None:
    """Return the text of a text, or of blocks that are all text."""
    if not isinstance(content, list):
        return text(content)
    texts = [obj(block).get("text") for block in content]
    known = [each for each in texts if isinstance(each, str)]
    return "\n".join(known) if texts and len(known) == len(texts) else None
