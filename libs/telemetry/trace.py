"""Traces: the decision first, OpenTelemetry only for the few requests that are sampled.

Called by the gateway, the bus and the runtime as `with start_span("bus.ask", meta.trace) as span:`; `span.traceparent`
is what travels on: in the HTTP header `traceparent`, in `Meta.trace`, in `Commit.trace`.

Who decides: `parent_traceparent=None` says "nobody before me could decide", so this is a root and `sample_ppm` of them
are sampled. An empty parent says "decided: no" and costs next to nothing all the way down. A parent with the W3C
sampled flag is followed; without the flag it is only passed on. Without an exporter nothing is recorded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TypeAlias

from libs.refusal import Refused
from libs.telemetry.redaction import REDACTED, is_secret_key, redact_text

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import Span as SdkSpan
    from opentelemetry.sdk.trace import Tracer as SdkTracer
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

MILLION = 1_000_000
# Spans waiting for the collector beyond this are dropped by the SDK: 2,048 spans are about 2 MB.
SPANS_QUEUED_MAX = 2_048
EXPORT_TIMEOUT_S = 5
EXPORT_INTERVAL_MS = 5_000
ATTRIBUTE_CHARS_MAX = 1_024

Attributes: TypeAlias = Mapping[str, str | int | float | bool]

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_TRACEPARENT_CHARS_MAX = 128  # version 00 has 55; later versions may append


class Span(Protocol):
    """A piece of work being timed. Leaving the block ends it; an exception marks it as failed."""

    traceparent: str

    def set(self, name: str, value: str | int | float | bool) -> None: ...

    def __enter__(self) -> Span: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class _NotSampled:
    """Stands in for a span that nobody records; hands the caller's trace on as it came."""

    __slots__ = ("traceparent",)

    def __init__(self, traceparent: str) -> None:
        self.traceparent = traceparent

    def set(self, name: str, value: str | int | float | bool) -> None:
        del name, value

    def __enter__(self) -> _NotSampled:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        return None


_NOTHING = _NotSampled("")


class _Recorded:
    """One OpenTelemetry span. Never made current: our context travels in Meta and Commit, not in context variables."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: SdkSpan) -> None:
        self._span = span
        context = span.get_span_context()
        self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-01"

    def set(self, name: str, value: str | int | float | bool) -> None:
        self._span.set_attribute(name, _safe(name, value))

    def __enter__(self) -> _Recorded:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        from opentelemetry.trace import StatusCode  # noqa: PLC0415 - 0.1 s of imports that only a sampling process pays

        if error is not None:
            # A refusal's facts are the caller's own words; its code is all that a trace needs.
            told = error.code if isinstance(error, Refused) else str(error)
            self._span.set_status(
                StatusCode.ERROR, redact_text(f"{type(error).__name__}: {told}")[:ATTRIBUTE_CHARS_MAX]
            )
        self._span.end()


class Tracer:
    """Decides, and records when decided. `exporter` is for tests; otherwise `otlp_endpoint` makes one."""

    def __init__(
        self,
        *,
        service: str,
        sample_ppm: int,
        otlp_endpoint: str = "",
        exporter: SpanExporter | None = None,
        draw: Callable[[], float] | None = None,
    ) -> None:
        if not 0 <= sample_ppm <= MILLION:
            raise ValueError(f"trace sample rate is {sample_ppm} ppm, must be 0..{MILLION}")
        self._share = sample_ppm / MILLION
        self._draw = draw or Random().random  # noqa: S311 - sampling, nothing secret
        self._provider: TracerProvider | None = None
        self._sdk: SdkTracer | None = None
        if exporter is not None or otlp_endpoint:
            self._provider, self._sdk = _sdk_tracer(service, otlp_endpoint, exporter)

    def start_span(self, name: str, parent_traceparent: str | None, attributes: Attributes | None = None) -> Span:
        """A span to enter with `with`; see the module on what the parent means. A malformed parent counts as none."""
        sdk = self._sdk
        if not parent_traceparent:
            if parent_traceparent is not None or sdk is None or self._share == 0 or self._draw() >= self._share:
                return _NOTHING
            return self._record(sdk, name, None, attributes)
        parent = _parsed(parent_traceparent)
        if parent is None:
            return self.start_span(name, None, attributes)
        if sdk is None or not parent[2] & 1:
            return _NotSampled(parent_traceparent)
        return self._record(sdk, name, parent, attributes)

    def _record(
        self, sdk: SdkTracer, name: str, parent: tuple[int, int, int] | None, attributes: Attributes | None
    ) -> Span:
        from opentelemetry import trace  # noqa: PLC0415 - see _Recorded
        from opentelemetry.context import Context  # noqa: PLC0415

        context = Context()
        if parent is not None:
            trace_id, span_id, flags = parent
            remote = trace.SpanContext(trace_id, span_id, is_remote=True, trace_flags=trace.TraceFlags(flags & 1))
            context = trace.set_span_in_context(trace.NonRecordingSpan(remote), context)
        safe = {key: _safe(key, value) for key, value in (attributes or {}).items()}
        span = sdk.start_span(name, context=context, attributes=safe, record_exception=False)
        return _Recorded(span)  # pyright: ignore[reportArgumentType] - always an SDK span: the sampler says yes

    def close(self) -> None:
        """Send what is queued, waiting at most EXPORT_TIMEOUT_S."""
        if self._provider is not None:
            self._provider.force_flush(EXPORT_TIMEOUT_S * 1_000)
            self._provider.shutdown()
            self._provider = self._sdk = None


def _sdk_tracer(service: str, otlp_endpoint: str, exporter: SpanExporter | None) -> tuple[TracerProvider, SdkTracer]:
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - see _Recorded
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON  # noqa: PLC0415

    if exporter is None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

        exporter = OTLPSpanExporter(f"{otlp_endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_TIMEOUT_S)
    provider = TracerProvider(sampler=ALWAYS_ON, resource=Resource({"service.name": service}), shutdown_on_exit=False)
    provider.add_span_processor(
        BatchSpanProcessor(exporter, max_queue_size=SPANS_QUEUED_MAX, schedule_delay_millis=EXPORT_INTERVAL_MS)
    )
    return provider, provider.get_tracer("dumont")  # pyright: ignore[reportReturnType] - the SDK's own tracer


def _parsed(traceparent: str) -> tuple[int, int, int] | None:
    """(trace id, span id, flags), None when it is not a W3C traceparent or names nothing."""
    if len(traceparent) > _TRACEPARENT_CHARS_MAX:
        return None
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or (traceparent.startswith("00") and len(traceparent) != 55):
        return None
    trace_id, span_id, flags = (int(part, 16) for part in found.groups())
    return (trace_id, span_id, flags) if trace_id and span_id else None


def _safe(name: str, value: str | int | float | bool) -> str | int | float | bool:
    if is_secret_key(name):
        return REDACTED
    return redact_text(value)[:ATTRIBUTE_CHARS_MAX] if isinstance(value, str) else value


class _Current:
    """The process's tracer. Until `configure_tracing`: nothing is recorded, everything is passed on."""

    value = Tracer(service="", sample_ppm=0)


def configure_tracing(tracer: Tracer) -> None:
    _Current.value = tracer


def start_span(name: str, parent_traceparent: str | None, attributes: Attributes | None = None) -> Span:
    """`Tracer.start_span` of the process's tracer."""
    return _Current.value.start_span(name, parent_traceparent, attributes)


def stop_tracing() -> None:
    _Current.value.close()
