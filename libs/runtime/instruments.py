"""What a running service measures of itself, in Prometheus' terms.

Made once by `run`; written by `serving` and `hands`, rendered for `qry.<service>.metrics`. Names and labels are part of
the operators' interface: the dashboards in deploy/ read them.
"""

from __future__ import annotations

from libs.runtime.projecting import Progress
from libs.telemetry import Metrics


class Instruments:
    def __init__(self, metrics: Metrics, progress: Progress) -> None:
        self.requests = metrics.histogram(
            "dumont_bus_request_seconds", "Time to answer a request from the bus.", ("kind", "name", "outcome")
        )
        self.appends = metrics.histogram(
            "dumont_append_seconds", "From handing a commit to the log until it is durable.", ("aggregate",)
        )
        self.effects = metrics.histogram(
            "dumont_effect_seconds", "Time of one attempt of an effect.", ("event", "outcome")
        )
        self.reactions = metrics.counter(
            "dumont_commands_issued_total", "Commands a service gave itself.", ("command",)
        )
        self.dead = metrics.counter("dumont_dead_letters_total", "Jobs given up.", ("role",))
        metrics.gauge_read(
            "dumont_projection_lag_commits",
            "Commits seen in the log but not yet in the rows (on the replica that projects).",
            lambda: max(0, progress.head_seq - progress.seq),
        )
        metrics.gauge_read(
            "dumont_projection_active", "1 on the replica that projects.", lambda: 1.0 if progress.active else 0.0
        )
