"""Why nothing was scored, told from how the candidates failed."""

from __future__ import annotations

from raynas.evaluation import nothing_scored


def test_the_least_value_of_each_cost_beyond_its_limit_is_told() -> None:
    failures = [f"constraint: latency_ms {value} > 1" for value in (4.5, 3.1, 7)]
    told = nothing_scored(
        [*failures, "RuntimeError: a fault", "constraint: macs 3e+06 > 2"], {"latency_ms": 1, "macs": 2}
    )
    assert "the least latency_ms seen was 3.1, raise constraints.latency_ms = 1;" in told
    assert told.endswith("the least macs seen was 3e+06, raise constraints.macs = 2")


def test_where_no_limit_was_broken_none_is_named() -> None:
    told = "no candidate was scored: all were rejected or failed"
    assert nothing_scored(["RuntimeError: a fault"], {"macs": 2}) == nothing_scored([], {}) == told
