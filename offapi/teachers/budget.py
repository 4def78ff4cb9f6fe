"""What a labelling session may cost: reserved at
an upper bound before asking, settled by the reply.

So the cap also holds with many requests under way. Left out: discounts for cached prompts
and batches; a bill can be lower than the tally, not higher.
"""

from __future__ import annotations

from dataclasses import dataclass

from offapi.errors import GateFailed
from offapi.teachers.teacher import Price, Request, Usage

TEMPLATE_TOKENS = 16  # that a chat template adds to a message, at most


@dataclass
class Budget:
    """Dollars. Without `cap` anything is affordable."""

    price: Price
    cap: float | None
    max_tokens: int  # of an answer
    paid: float = 0.0  # before this session; counts against the cap
    spent: float = 0.0  # by the replies' usage
    doubtful: float = 0.0  # bound of attempts whose usage is not known but may be charged
    reserved: float = 0.0  # bound of requests under way

    def bound(self, request: Request) -> float:
        """What one attempt can cost at most: no tokenizer
        makes more tokens of a text than it has bytes.
        """
        prompt_tokens = request.prompt_bytes + TEMPLATE_TOKENS * (len(request.messages) + 1)
        return self.price.of(Usage(prompt_tokens, self.max_tokens))

    def affordable(self, more: float) -> bool:
        """Whether the cap holds if `more` is spent on top of everything under way."""
        return (
            self.cap is None
            or self.paid + self.spent + self.doubtful + self.reserved + more <= self.cap
        )

    def settle(self, usage: Usage | None, bound: float) -> None:
        """Count an attempt: by `usage`, or by its bound when nobody knows."""
        if usage is None:
            self.doubtful += bound
        else:
            self.spent += self.price.of(usage)

    def exhausted(self) -> GateFailed:
        """The error that ends a session at its cap."""
        doubt = (
            f", and up to ${self.doubtful:.4f} for answers that were cut off"
            if self.doubtful
            else ""
        )
        whole = (
            f" in this call and ${self.paid + self.spent:.4f} for the labels file in all"
            if self.paid
            else ""
        )
        return GateFailed(
            f"stopped before --max-cost could be exceeded: ${self.spent:.4f} was"
            f" spent{whole}{doubt}.",
            next_step=(
                "Raise --max-cost and run the same command again; no document is asked twice."
            ),
        )
