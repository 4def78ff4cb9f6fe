"""Finished prefixes kept for reuse: a radix tree of token sequences with what was computed of them.

What is kept of a token depends on the weights and on all tokens before it, so every adapter and
every version of the weights has a tree of its own. Least recently used leaves are dropped first.
Left out: what a payload is. The backend hands in how it is cut, joined and measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Payload = TypeVar("Payload")  # keys and values of consecutive tokens, for every layer
Tokens = tuple[int, ...]


@dataclass(frozen=True)
class PrefixKey:
    """Whose keys and values they are."""

    adapter: str | None
    version: int  # of the weights, which an update of the policy makes another


@dataclass(eq=False)
class _Node(Generic[Payload]):
    """A run of tokens after its parent's; a root has none."""

    tokens: Tokens = ()
    payload: Payload | None = None
    parent: _Node[Payload] | None = None
    children: dict[int, _Node[Payload]] = field(default_factory=dict)  # by their first token
    pins: int = 0
    used: int = 0  # when it was last read or written


class PrefixTree(Generic[Payload]):
    """The prefixes of one engine, in at most `budget` bytes; pinned ones stay even beyond it.

    `cut(payload, start, stop)` returns a copy of some tokens' part, so that dropping the rest frees
    memory; `join` puts consecutive parts together; `size` is in bytes.
    """

    def __init__(
        self,
        budget: int,
        *,
        cut: Callable[[Payload, int, int], Payload],
        join: Callable[[Sequence[Payload]], Payload],
        size: Callable[[Payload], int],
    ) -> None:
        self.budget, self.used_bytes = budget, 0
        self._cut, self._join, self._size = cut, join, size
        self._roots: dict[PrefixKey, _Node[Payload]] = {}
        self._clock = 0

    def longest(self, key: PrefixKey, tokens: Sequence[int]) -> tuple[int, Payload | None]:
        """Return how many of the first `tokens` are kept, and their payload (None for none)."""
        length, parts = 0, []
        for node, shared in self._path(key, tokens):
            node.used, payload = self._clock, _payload(node)
            parts.append(payload if shared == len(node.tokens) else self._cut(payload, 0, shared))
            length += shared
        return length, self._join(parts) if parts else None

    def insert(
        self,
        key: PrefixKey,
        tokens: Sequence[int],
        read: Callable[[int, int], Payload],
        pin: bool = False,
    ) -> None:
        """Keep all `tokens`; `read(start, stop)` copies the part that is not kept yet.

        With `pin` they stay until `unpin`, once for each time.
        """
        if not tokens or not (pin or self.budget):
            return
        tokens, length = tuple(tokens), 0
        node = self._roots.get(key) or _Node()
        for found, shared in list(self._path(key, tokens)):
            length += shared
            node = found if shared == len(found.tokens) else self._split(found, shared)
            node.used = self._clock
        if length < len(tokens):
            payload = read(length, len(tokens))
            if not pin and self._size(payload) > self.budget:
                return
            if not length:
                self._roots[key] = node
            node = self._add(node, _Node(tokens[length:], payload, used=self._clock))
            self.used_bytes += self._size(payload)
        node.pins += pin
        self._evict()

    def unpin(self, key: PrefixKey, tokens: Sequence[int]) -> None:
        """Let what an `insert` with `pin` kept be dropped again."""
        *_, (node, _) = self._path(key, tokens)
        node.pins -= 1
        self._evict()

    def clear(self) -> None:
        """Drop everything, pinned or not."""
        self._roots.clear()
        self.used_bytes = 0

    def _path(self, key: PrefixKey, tokens: Sequence[int]) -> Iterator[tuple[_Node[Payload], int]]:
        """Yield the nodes along `tokens`, each with how many of its tokens they share."""
        self._clock += 1
        node, at = self._roots.get(key), 0
        while node is not None and at < len(tokens):
            node = node.children.get(tokens[at])
            if node is None:
                return
            rest = tokens[at : at + len(node.tokens)]
            differing = (i for i, token in enumerate(rest) if token != node.tokens[i])
            shared = next(differing, len(rest))
            yield node, shared
            if shared < len(node.tokens):
                return
            at += shared

    def _split(self, node: _Node[Payload], length: int) -> _Node[Payload]:
        """Put the first `length` tokens of `node` into a new node above it, and return that.

        The lower node keeps its pins, which are of the whole sequence.
        """
        parent, payload = node.parent, _payload(node)
        assert parent is not None
        self.used_bytes -= self._size(payload)
        upper = _Node(node.tokens[:length], self._cut(payload, 0, length))
        node.payload = self._cut(payload, length, len(node.tokens))
        node.tokens = node.tokens[length:]
        self.used_bytes += self._size(_payload(upper)) + self._size(_payload(node))
        self._add(parent, upper)
        self._add(upper, node)
        return upper

    def _add(self, parent: _Node[Payload], child: _Node[Payload]) -> _Node[Payload]:
        parent.children[child.tokens[0]], child.parent = child, parent
        return child

    def _evict(self) -> None:
        """Drop leaves, least recently used first, until the budget holds."""
        while self.used_bytes > self.budget:
            loose = [node for node in self._nodes() if not node.children and not node.pins]
            if not loose:
                break
            node = min(loose, key=lambda node: node.used)
            assert node.parent is not None
            del node.parent.children[node.tokens[0]]
            self.used_bytes -= self._size(_payload(node))
        self._roots = {key: root for key, root in self._roots.items() if root.children}

    def _nodes(self) -> Iterator[_Node[Payload]]:
        waiting = [node for root in self._roots.values() for node in root.children.values()]
        while waiting:
            node = waiting.pop()
            waiting += node.children.values()
            yield node


def _payload(node: _Node[Payload]) -> Payload:
    """Return what a node below a root holds."""
    assert node.payload is not None
    return node.payload
