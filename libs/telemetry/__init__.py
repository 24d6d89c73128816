"""What a process says about itself: log lines, metrics, traces.

Called by every process's `main` (`configure`, once, after the fork) and by anything that logs, counts or traces. Each
of the three is cheap enough to stay on under load: a log line is one msgspec encode into a buffer, a counter is one
dict update, and a request that is not sampled never touches the OpenTelemetry SDK. Measured on one busy core (best of
3, includes the call): a line of five facts 4.5 us, a line below the level 0.4 us, a counter 0.1 us, a histogram 0.2 us,
a span that is not sampled 0.2 us (1.8 us with a parent to check), a sampled one 32 us.
"""

from __future__ import annotations

from libs.clock import Clock, SystemClock
from libs.telemetry.log import Logger, configure_logging, flush_log, logger
from libs.telemetry.metrics import Counter, Gauge, Histogram, Metrics, merge_metrics, process_metrics
from libs.telemetry.trace import Span, Tracer, configure_tracing, start_span, stop_tracing

__all__ = [
    "Counter",
    "Gauge",
    "Histogram",
    "Logger",
    "Metrics",
    "Span",
    "Tracer",
    "configure",
    "flush_log",
    "logger",
    "merge_metrics",
    "process_metrics",
    "start_span",
    "stop",
]


def configure(
    *,
    service: str,
    log_level: str = "info",
    trace_sample_ppm: int = 0,
    otlp_endpoint: str = "",
    clock: Clock | None = None,
) -> None:
    """Set up logs and traces of this process; call once, after a fork, before the first request.

    `otlp_endpoint` is an OTLP/HTTP base URL; empty means that nothing is traced, only passed on.
    """
    configure_logging(service=service, level=log_level, clock=clock or SystemClock())
    configure_tracing(Tracer(service=service, sample_ppm=trace_sample_ppm, otlp_endpoint=otlp_endpoint))


def stop() -> None:
    """Write out what is still buffered: the last thing a process does."""
    stop_tracing()
    flush_log()
