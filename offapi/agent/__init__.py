"""Agents: episodes of several turns, in which a model calls tools."""

from offapi.agent.episode import AgentEpisode, AgentFinish

__all__ = ["AgentEpisode", "AgentFinish"]
