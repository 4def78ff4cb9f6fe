"""Chats as tokens, by a model's own template."""

from offapi.chat.chat import Chat

__all__ = ["Chat"]
