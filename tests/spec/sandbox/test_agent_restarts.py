"""How soon a machine starts its agent again."""

from __future__ import annotations

from services.sandbox.leader import AGENT_FAILURES_MAX, AGENT_FORGIVEN_AFTER_S, failures_in_a_row


def test_an_agent_that_dies_again_and_again_is_started_ever_later_and_forgiven_when_it_has_lived() -> None:
    failures = 0
    for expected in range(1, AGENT_FAILURES_MAX + 1):
        failures = failures_in_a_row(failures, lived_s=0.1)
        assert failures == expected
    assert failures_in_a_row(failures, lived_s=AGENT_FORGIVEN_AFTER_S - 0.1) == AGENT_FAILURES_MAX
    assert failures_in_a_row(failures, lived_s=AGENT_FORGIVEN_AFTER_S) == 1
