"""Counters, gauges and histograms, rendered in Prometheus text format 0.0.4.

Called by the runtime, the gateway and effects (`counter.add(("GET", "200"))`); rendered for `proto.health.GetMetrics`
and `/metrics`. Owns no global: each process makes one `Metrics` and hands it on. Not thread-safe.

Every metric holds at most SERIES_MAX label combinations; further ones are gathered under the label value `other` and
counted in `dumont_metric_overflows_total`, so a label that turns out to be unbounded costs one line, not the process.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, TypeVar

import psutil

from libs.clock import Clock

# Routes x methods x statuses of the gateway is about 300; ten times that still renders in a few milliseconds.
SERIES_MAX = 3_000
LABELS_MAX = 8
# Seconds; from a memory hit to the longest bring-up of a machine (10 minutes).
DURATION_BUCKETS_S = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)
OTHER = "other"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels: TypeAlias = tuple[str, ...]

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


class _Family(ABC):
    """What all kinds share: a name, a help text, label names and the rule that bounds the number of series."""

    kind = ""

    def __init__(self, name: str, help_text: str, labels: Labels) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(f"metric name {name!r} is not a Prometheus name")
        if len(labels) > LABELS_MAX or any(not _LABEL.fullmatch(label) for label in labels):
            raise ValueError(f"labels of {name}: at most {LABELS_MAX}, each a Prometheus label name")
        self.name = name
        self.help_text = help_text
        self.labels = labels
        self.overflows = 0
        self._other: Labels = (OTHER,) * len(labels)

    def _admit(self, labels: Labels, series: int) -> Labels:
        """The key under which a label combination not seen before is kept."""
        if len(labels) != len(self.labels):
            raise ValueError(f"{self.name} has labels {self.labels}, got {len(labels)} values")
        if series < SERIES_MAX:
            return labels
        self.overflows += 1
        return self._other

    @abstractmethod
    def samples(self) -> list[tuple[str, Labels, Labels, float]]:
        """(name suffix, label names, label values, value) of every series."""


class _Simple(_Family):
    def __init__(self, name: str, help_text: str, labels: Labels) -> None:
        super().__init__(name, help_text, labels)
        self.values: dict[Labels, float] = {} if labels else {(): 0}

    def value(self, labels: Labels = ()) -> float:
        return self.values.get(labels, 0)

    def samples(self) -> list[tuple[str, Labels, Labels, float]]:
        return [("", self.labels, labels, value) for labels, value in self.values.items()]


class Counter(_Simple):
    """Only goes up. Name it `…_total`."""

    kind = "counter"

    def add(self, labels: Labels = (), amount: float = 1) -> None:
        try:
            self.values[labels] += amount
        except KeyError:
            key = self._admit(labels, len(self.values))
            self.values[key] = self.values.get(key, 0) + amount


class Gauge(_Simple):
    """Goes up and down."""

    kind = "gauge"

    def set(self, value: float, labels: Labels = ()) -> None:
        if labels not in self.values:
            labels = self._admit(labels, len(self.values))
        self.values[labels] = value

    def add(self, amount: float, labels: Labels = ()) -> None:
        self.set(self.values.get(labels, 0) + amount, labels)


class Histogram(_Family):
    """Counts observations per bucket; `bounds` are upper limits, inclusive, ascending."""

    kind = "histogram"

    def __init__(self, name: str, help_text: str, labels: Labels, bounds: Sequence[float]) -> None:
        super().__init__(name, help_text, labels)
        if not bounds or list(bounds) != sorted(set(bounds)) or math.isinf(bounds[-1]):
            raise ValueError(f"{name}: bounds must be finite, ascending and not empty")
        self._bounds = tuple(bounds)
        self._buckets: dict[Labels, list[float]] = {}

    def observe(self, value: float, labels: Labels = ()) -> None:
        buckets = self._buckets.get(labels)
        if buckets is None:
            key = self._admit(labels, len(self._buckets))
            # One counter per bound, one for what lies beyond, and the sum last.
            buckets = self._buckets.setdefault(key, [0.0] * (len(self._bounds) + 2))
        buckets[bisect_left(self._bounds, value)] += 1
        buckets[-1] += value

    def samples(self) -> list[tuple[str, Labels, Labels, float]]:
        found: list[tuple[str, Labels, Labels, float]] = []
        names = (*self.labels, "le")
        for labels, buckets in self._buckets.items():
            total = 0.0
            for bound, count in zip((*self._bounds, math.inf), buckets, strict=False):
                total += count
                found.append(("_bucket", names, (*labels, _number(bound)), total))
            found.append(("_sum", self.labels, labels, buckets[-1]))
            found.append(("_count", self.labels, labels, total))
        return found


class _Read(_Family):
    """A value that is only worth looking up when somebody scrapes."""

    def __init__(self, name: str, help_text: str, kind: str, read: Callable[[], float]) -> None:
        super().__init__(name, help_text, ())
        self.kind = kind
        self._read = read

    def samples(self) -> list[tuple[str, Labels, Labels, float]]:
        return [("", (), (), self._read())]


_FamilyT = TypeVar("_FamilyT", bound=_Family)


class Metrics:
    """The metrics of one process. `constant_labels` (`service`) are added to every series."""

    def __init__(self, constant_labels: Mapping[str, str] | None = None) -> None:
        self._constant = tuple((constant_labels or {}).items())
        self._families: dict[str, _Family] = {}

    def counter(self, name: str, help_text: str, labels: Labels = ()) -> Counter:
        return self._add(Counter(name, help_text, labels))

    def gauge(self, name: str, help_text: str, labels: Labels = ()) -> Gauge:
        return self._add(Gauge(name, help_text, labels))

    def histogram(
        self, name: str, help_text: str, labels: Labels = (), *, bounds: Sequence[float] = DURATION_BUCKETS_S
    ) -> Histogram:
        return self._add(Histogram(name, help_text, labels, bounds))

    def gauge_read(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """A gauge looked up by `read` at each scrape; `read` must be quick and must not raise."""
        self._add(_Read(name, help_text, "gauge", read))

    def counter_read(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        self._add(_Read(name, help_text, "counter", read))

    def _add(self, family: _FamilyT) -> _FamilyT:
        if family.name in self._families:
            raise ValueError(f"metric {family.name} is declared twice")
        self._families[family.name] = family
        return family

    def render(self) -> str:
        """All metrics in Prometheus text format 0.0.4, families in order of declaration."""
        overflows = Counter("dumont_metric_overflows_total", "Label combinations folded into 'other'.", ("metric",))
        for family in self._families.values():
            if family.overflows:
                overflows.add((family.name,), family.overflows)
        lines: list[str] = []
        for family in (*self._families.values(), overflows):
            lines.append(f"# HELP {family.name} {_escaped_help(family.help_text)}")
            lines.append(f"# TYPE {family.name} {family.kind}")
            for suffix, names, values, number in family.samples():
                pairs = (*self._constant, *zip(names, values, strict=True))
                labels = ",".join(f'{name}="{_escaped_label(value)}"' for name, value in pairs)
                lines.append(f"{family.name}{suffix}{'{' + labels + '}' if labels else ''} {_number(number)}")
        return "\n".join(lines) + "\n"


def process_metrics(metrics: Metrics, clock: Clock) -> None:
    """Add what Prometheus clients usually say about their process, under the usual names."""
    process = psutil.Process()
    started_s = clock.monotonic_s()

    def cpu_s() -> float:
        times = process.cpu_times()
        return times.user + times.system

    metrics.gauge_read(
        "process_resident_memory_bytes", "Resident memory, shared pages included.", lambda: process.memory_info().rss
    )
    metrics.counter_read("process_cpu_seconds_total", "User and system CPU time.", cpu_s)
    metrics.gauge_read("process_open_fds", "Open file descriptors.", process.num_fds)
    metrics.gauge_read("process_start_time_seconds", "Start of the process, unix seconds.", process.create_time)
    metrics.gauge_read("process_uptime_seconds", "Seconds since start.", lambda: clock.monotonic_s() - started_s)


def merge_metrics(texts: Sequence[str]) -> str:
    """Several rendered texts as one, with each family's HELP and TYPE once and its samples together.

    For a gateway that shows its own metrics and those of the services behind it; series must differ by a label.
    """
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for text in texts:
        family = ""
        for line in text.splitlines():
            if line.startswith("# "):
                family = line.split(" ", 3)[2]
                head = heads.setdefault(family, [])
                samples.setdefault(family, [])
                if line.split(" ", 2)[1] not in {known.split(" ", 2)[1] for known in head}:
                    head.append(line)
            elif line:
                samples.setdefault(family, []).append(line)
    return "".join(f"{line}\n" for family in samples for line in (*heads.get(family, []), *samples[family]))


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


def _escaped_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _escaped_label(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
