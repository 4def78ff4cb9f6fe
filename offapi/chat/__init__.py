"""Chats as tokens, through a model's own template."""

from offapi.chat.chat import Chat

__all__ = ["Chat"]
