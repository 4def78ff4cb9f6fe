"""What a server counts, as its command says it at the end."""

from __future__ import annotations

from offapi.serve.metrics import ServerMetrics


def test_totals_are_those_of_the_counters() -> None:
    metrics = ServerMetrics()
    assert set(metrics.totals().values()) == {0}
    metrics.seconds.observe(0.5)
    metrics.tokens.labels("prompt").inc(7)
    metrics.tokens.labels("completion").inc(3)
    metrics.canceled.inc(2)
    expected = {"answers": 1, "canceled": 2, "prompt_tokens": 7, "completion_tokens": 3}
    assert metrics.totals() == expected
