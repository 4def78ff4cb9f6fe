"""The cost limit of a labelling session: a bound is reserved before asking, and settled after.

So the limit also holds with many requests in progress. Left out: discounts for cached prompts and
batches; a bill can be lower than the tally, not higher.
"""

from __future__ import annotations

from dataclasses import dataclass

from offapi.errors import GateFailed
from offapi.teachers.teacher import Price, Request, Usage

TEMPLATE_TOKENS = 16  # at most, added to a message by a chat template


@dataclass
class Budget:
    """A budget in dollars. Without `cap` everything is affordable."""

    price: Price
    cap: float | None
    max_tokens: int  # of an answer
    paid: float = 0.0  # before this session; counts against the cap
    spent: float = 0.0  # according to the replies' usage
    doubtful: float = 0.0  # bound of attempts with unknown usage, which may be charged
    reserved: float = 0.0  # bound of requests in progress

    def bound(self, request: Request) -> float:
        """Return what one attempt can cost at most.

        No tokenizer makes more tokens of a text than it has bytes.
        """
        prompt_tokens = request.prompt_bytes + TEMPLATE_TOKENS * (len(request.messages) + 1)
        return self.price.of(Usage(prompt_tokens, self.max_tokens))

    def affordable(self, more: float) -> bool:
        """Return whether the cap holds if `more` is spent on top of everything in progress."""
        return (
            self.cap is None
            or self.paid + self.spent + self.doubtful + self.reserved + more <= self.cap
        )

    def settle(self, usage: Usage | None, bound: float) -> None:
        """Count an attempt: by `usage`, or by its bound where the usage is unknown."""
        if usage is None:
            self.doubtful += bound
        else:
            self.spent += self.price.of(usage)

    def exhausted(self) -> GateFailed:
        """Return the error that ends a session at its cap."""
        doubt = whole = ""
        if self.doubtful:
            doubt = f", and up to ${self.doubtful:.4f} for answers that were cut off"
        if self.paid:
            whole = f" in this call and ${self.paid + self.spent:.4f} for the labels file in all"
        return GateFailed(
            f"labelling stopped before it could exceed --max-cost: ${self.spent:.4f} was"
            f" spent{whole}{doubt}.",
            next_step=(
                "Raise --max-cost and run the same command again; labelled documents are skipped."
            ),
        )
