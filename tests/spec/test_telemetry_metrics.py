"""Metrics: what a Prometheus server reads, and that no label can make it unbounded."""

from __future__ import annotations

import pytest

from libs.clock import SystemClock
from libs.telemetry import Metrics, merge_metrics, process_metrics
from libs.telemetry.metrics import SERIES_MAX


def test_counters_and_gauges_are_rendered_with_help_type_and_labels() -> None:
    metrics = Metrics({"service": "gateway"})
    requests = metrics.counter("dumont_requests_total", "Requests answered.", ("method", "status"))
    requests.add(("GET", "200"))
    requests.add(("GET", "200"), 2)
    metrics.gauge("dumont_lag_events", "Behind\nby.").set(1.5)
    assert metrics.render().splitlines()[:6] == [
        "# HELP dumont_requests_total Requests answered.",
        "# TYPE dumont_requests_total counter",
        'dumont_requests_total{service="gateway",method="GET",status="200"} 3',
        "# HELP dumont_lag_events Behind\\nby.",
        "# TYPE dumont_lag_events gauge",
        'dumont_lag_events{service="gateway"} 1.5',
    ]


def test_a_histogram_counts_what_is_at_most_each_bound() -> None:
    metrics = Metrics()
    took = metrics.histogram("took_seconds", "Time.", ("path",), bounds=(0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        took.observe(value, ("/a",))
    assert [line for line in metrics.render().splitlines() if line.startswith("took")] == [
        'took_seconds_bucket{path="/a",le="0.1"} 2',
        'took_seconds_bucket{path="/a",le="1"} 3',
        'took_seconds_bucket{path="/a",le="+Inf"} 4',
        'took_seconds_sum{path="/a"} 7.65',
        'took_seconds_count{path="/a"} 4',
    ]


def test_label_values_are_escaped() -> None:
    metrics = Metrics()
    metrics.counter("a_total", "A.", ("x",)).add(('q"\\\n',))
    assert 'a_total{x="q\\"\\\\\\n"} 1' in metrics.render()


def test_an_unbounded_label_is_gathered_under_other() -> None:
    metrics = Metrics()
    seen = metrics.counter("seen_total", "Seen.", ("id",))
    took = metrics.histogram("took", "Took.", ("id",), bounds=(1,))
    for number in range(SERIES_MAX + 10):
        seen.add((str(number),))
        took.observe(0.5, (str(number),))
    text = metrics.render()
    assert 'seen_total{id="other"} 10' in text
    assert 'took_count{id="other"} 10' in text
    assert 'dumont_metric_overflows_total{metric="seen_total"} 10' in text


def test_mistakes_of_the_programmer_are_loud() -> None:
    metrics = Metrics()
    counter = metrics.counter("a_total", "A.", ("x",))
    with pytest.raises(ValueError, match="twice"):
        metrics.gauge("a_total", "A.")
    with pytest.raises(ValueError, match="labels"):
        counter.add(("1", "2"))
    with pytest.raises(ValueError, match="Prometheus"):
        metrics.counter("a-b", "A.")
    with pytest.raises(ValueError, match="ascending"):
        metrics.histogram("h", "H.", bounds=(2, 1))


def test_process_metrics_are_there() -> None:
    metrics = Metrics()
    process_metrics(metrics, SystemClock())
    values = dict(line.rsplit(" ", 1) for line in metrics.render().splitlines() if not line.startswith("#"))
    assert int(values["process_resident_memory_bytes"]) > 1_000_000
    assert int(values["process_open_fds"]) > 0
    assert float(values["process_cpu_seconds_total"]) > 0
    assert float(values["process_uptime_seconds"]) >= 0


def test_texts_of_several_services_merge_into_one_valid_text() -> None:
    texts: list[str] = []
    for service in ("gateway", "instance"):
        metrics = Metrics({"service": service})
        metrics.counter("a_total", "A.").add()
        metrics.histogram("h", "H.", bounds=(1,)).observe(2)
        texts.append(metrics.render())
    merged = merge_metrics(texts).splitlines()
    assert merged.count("# TYPE a_total counter") == 1
    assert merged[:4] == [
        "# HELP a_total A.",
        "# TYPE a_total counter",
        'a_total{service="gateway"} 1',
        'a_total{service="instance"} 1',
    ]
    assert merged.count("# TYPE h histogram") == 1
    assert sum(line.startswith("h_bucket") for line in merged) == 4
