"""The last step of every importer: messages and their facts -> a Trace, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from offapi.data.importers.shared import reasons, tool_calls
from offapi.data.importers.shared.loose_json import Json, ident, known
from offapi.data.importers.shared.marks import lost_content
from offapi.data.importers.shared.messages import canonical
from offapi.data.importers.shared.reasons import Dropped, Unusable
from offapi.data.importers.shared.tool_definitions import tool_definitions
from offapi.data.traces import Message, Trace

IN_MESSAGES: Json = object()  # the answer is the last of the messages
ENDINGS: Mapping[str, Dropped] = {
    "length": reasons.CUT_OFF,
    "max_tokens": reasons.CUT_OFF,
    "max_output_tokens": reasons.CUT_OFF,
    "model_context_window_exceeded": reasons.CUT_OFF,
    "incomplete": reasons.CUT_OFF,
    "content_filter": reasons.FILTERED,
    "safety": reasons.FILTERED,
    "refusal": reasons.REFUSED,
    "error": reasons.FAILED,
    "failed": reasons.FAILED,
    "cancelled": reasons.FAILED,
    "pause_turn": reasons.PAUSED,
    "guardrail_intervened": reasons.FILTERED,
    "content_filtered": reasons.FILTERED,
    "recitation": reasons.FILTERED,
    "prohibited_content": reasons.FILTERED,
    "blocklist": reasons.FILTERED,
    "spii": reasons.FILTERED,
}


def build_trace(
    messages: Json,
    answer: Json = IN_MESSAGES,
    *,
    tools: Json = None,
    id: Json = "",
    group: Json = None,
    gold: Json = None,
    finish_reason: Json = None,
    **source: Json,
) -> Trace | Dropped:
    """Return the trace of `messages` and the `answer` to them, or the reason why there is none.

    `source`: what else is known of it. An id of "" is replaced later. Nothing is guessed: what is
    not a chat with an answer is Dropped. An answer may end in tool calls; any other call must have
    its result.
    """
    try:
        ending = _ending(finish_reason)
        if ending is not None:
            raise Unusable(ending)
        asked, answered = _split_answer(messages, answer)
        chat = [*asked, *answered]
        _check(chat)
        lost = lost_content(chat)
        if lost is not None:
            raise Unusable(lost)
        calls = any("tool_calls" in message for message in chat)
        if calls and not tool_calls.complete_calls(asked, answered):
            raise Unusable(reasons.TOOL_INCOMPLETE)
        offered, left_out = tool_definitions(tools) if tools else ([], [])
    except Unusable as error:
        return error.dropped
    return Trace(
        id=ident(id) if id else "",
        messages=tuple(chat),
        tools=tuple(offered) or None,
        group=(ident(group) if group else None) or None,
        gold=gold if gold and isinstance(gold, dict | str) else None,
        source=known(finish_reason=finish_reason, **source, tools_left_out=left_out),
    )


def _ending(finish_reason: Json) -> Dropped | None:
    """Return the reason that a finish reason is, in any API's spelling."""
    if not isinstance(finish_reason, str):
        return None
    return ENDINGS.get(finish_reason.lower().replace("-", "_"))


def _split_answer(messages: Json, answer: Json) -> tuple[list[Message], list[Message]]:
    """Return what came before the answer, and the answer, which may be several messages."""
    if answer is IN_MESSAGES:
        chat = canonical(messages)
        return chat[:-1], chat[-1:]
    if isinstance(messages, str) and messages.strip():
        messages = [{"role": "user", "content": messages}]
    if messages is None or messages == []:
        raise Unusable(reasons.NO_MESSAGES if answer is None else reasons.NO_PROMPT)
    if isinstance(answer, str):
        answer = {"content": answer}
    if isinstance(answer, dict):
        answer = [{**answer, "role": answer.get("role") or "assistant"}]
    if not isinstance(answer, list) or not answer:
        raise Unusable(reasons.NO_ANSWER)
    return canonical(messages), canonical(answer)


def _check(chat: Sequence[Message]) -> None:
    """Raise Unusable unless the chat ends with an answer, to something, and teaches something."""
    if chat[-1]["role"] != "assistant":
        raise Unusable(reasons.NOT_ANSWERED)
    learned = False
    for message in chat:
        if message["role"] == "assistant":
            learned = learned or message.get("weight") != 0
            said = message["content"]
            if (not said or said.isspace()) and not message.get("tool_calls"):
                raise Unusable(reasons.NO_ANSWER if message is chat[-1] else reasons.EMPTY_TURN)
    before = chat[-2] if len(chat) > 1 else {}
    if before.get("role") != "user" or not before["content"] or before["content"].isspace():
        _check_question(chat)  # nearly all chats end with a question that has text
    if not learned:
        raise Unusable(reasons.WEIGHTLESS)


def _check_question(chat: Sequence[Message]) -> None:
    """Raise Unusable where the user's last turn has no text, or, without a user, all others."""
    asked, before, said = False, "", False
    for message in chat:
        role = message["role"]
        if role == "user":
            asked = _says(message) or (asked and before == "user")
            before = "user"
        elif role == "assistant":
            before = before and "assistant"
        else:
            said = said or _says(message)
    if asked or (said and not before):
        return
    others = any(message["role"] != "assistant" for message in chat)
    raise Unusable(reasons.EMPTY_PROMPT if others else reasons.NO_PROMPT)


def _says(message: Message) -> bool:
    content = message["content"]
    return bool(content) and not content.isspace()
