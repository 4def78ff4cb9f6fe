"""A teacher that is not on the user's machine or network is used only after its terms are checked.

Its address alone decides, so that nothing leaves the machine before the user agreed.
"""

from __future__ import annotations

from offapi.errors import ConfigError
from offapi.network.addresses import on_this_network

WHY = (
    "most providers' terms forbid training other models on their answers, and your documents would"
    " leave this network."
)


def require(host: str, checked: bool) -> None:
    """Raise ConfigError for a remote `host` unless the user said that its terms were checked."""
    if checked or on_this_network(host):
        return
    raise ConfigError(
        f"the teacher at {host!r} is not on this machine or network: {WHY}",
        next_step="Read its terms; if they allow this use, add --teacher-terms-checked.",
    )
