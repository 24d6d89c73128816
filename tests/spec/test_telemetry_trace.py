"""Traces: who decides that a request is sampled, and what travels on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from libs import telemetry
from libs.telemetry.trace import Tracer

SAMPLED = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
UNSAMPLED = "00-" + "a" * 32 + "-" + "b" * 16 + "-00"


class Kept(SpanExporter):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans += spans
        return SpanExportResult.SUCCESS


def tracer(kept: Kept, *, sample_ppm: int = 0, draw: float = 0.5) -> Tracer:
    return Tracer(service="test", sample_ppm=sample_ppm, exporter=kept, draw=lambda: draw)


def test_a_root_is_sampled_by_its_share() -> None:
    kept = Kept()
    lucky = tracer(kept, sample_ppm=600_000)
    with lucky.start_span("http", None, {"route": "/x", "api_key": "k"}) as span:
        assert span.traceparent.startswith("00-")
        assert span.traceparent.endswith("-01")
    with tracer(kept, sample_ppm=400_000).start_span("http", None) as span:
        assert span.traceparent == ""
    lucky.close()
    (recorded,) = kept.spans
    assert recorded.name == "http"
    assert dict(recorded.attributes or {}) == {"route": "/x", "api_key": "[redacted]"}


def test_no_parent_within_a_request_means_decided_no() -> None:
    kept = Kept()
    always = tracer(kept, sample_ppm=1_000_000)
    with always.start_span("bus.ask", "") as span:
        span.set("a", 1)
        assert span.traceparent == ""
    always.close()
    assert kept.spans == []


def test_a_sampled_parent_is_followed_and_an_unsampled_one_passed_on() -> None:
    kept = Kept()
    never = tracer(kept)
    with never.start_span("a", SAMPLED) as outer, never.start_span("b", outer.traceparent) as inner:
        assert inner.traceparent.split("-")[1] == "a" * 32
    with never.start_span("c", UNSAMPLED) as span:
        assert span.traceparent == UNSAMPLED
    never.close()
    by_name = {span.name: span for span in kept.spans}
    assert set(by_name) == {"a", "b"}
    assert by_name["b"].parent is not None
    assert by_name["b"].parent.span_id == by_name["a"].context.span_id


@pytest.mark.parametrize(
    "parent", ["nonsense", "00-" + "0" * 32 + "-" + "b" * 16 + "-01", "ff" + SAMPLED[2:], SAMPLED + "-x", "x" * 5_000]
)
def test_a_malformed_parent_counts_as_none(parent: str) -> None:
    kept = Kept()
    with tracer(kept).start_span("a", parent) as span:
        assert span.traceparent == ""


def test_an_exception_marks_the_span_and_leaks_nothing() -> None:
    kept = Kept()
    one = tracer(kept)
    with pytest.raises(ValueError, match="dumont"), one.start_span("a", SAMPLED) as span:
        span.set("text", "Bearer abc")
        raise ValueError("dumont_sk_abcdef")
    one.close()
    (recorded,) = kept.spans
    assert recorded.status.status_code.name == "ERROR"
    assert "abcdef" not in (recorded.status.description or "")
    assert dict(recorded.attributes or {}) == {"text": "Bearer [redacted]"}
    assert not recorded.events


def test_without_an_exporter_a_trace_is_only_passed_on() -> None:
    with telemetry.start_span("a", SAMPLED) as span:
        assert span.traceparent == SAMPLED
    with telemetry.start_span("a", None) as span:
        assert span.traceparent == ""


def test_a_share_beyond_everything_is_refused() -> None:
    with pytest.raises(ValueError, match="ppm"):
        Tracer(service="test", sample_ppm=1_000_001)
