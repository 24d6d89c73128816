"""When the zones of three regions have no spot machines: seeded outages with the figures of a published trace.

Used by `cloud` (whose hosts go away and come back) and by the tests. Owns the figures. They were computed from the spot
availability traces that SkyPilot's authors publish (github.com/skypilot-org/spot-traces, commit 221da1a: AWS, one
V100, 45.5 days from 2023-02-15, a sample every 195 s); the traces themselves have no licence and are not copied.

Each zone alternates between runs and outages whose lengths are log-normal through the published quantiles. An outage
may pull other zones along, in its region more often than elsewhere: that makes zones fail together as they did.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import exp, log
from random import Random
from typing import NamedTuple

Z_90, Z_95 = 1.2816, 1.6449  # standard normal quantiles
MINUTE_S, HOUR_S, DAY_S = 60.0, 3_600.0, 86_400.0
# Shares of zones that an outage takes along. Larger ones correlate better and break the counts of outages.
PULLED_IN_REGION, PULLED_ELSEWHERE = 0.45, 0.08
PULLED_WITHIN_S = 600.0


class Zone(NamedTuple):
    """Measured figures of one zone. `stretch` lengthens its own runs, because outages of others cut them short."""

    name: str
    region: str
    available: float
    run_p50_min: float
    run_p90_min: float
    outage_p50_min: float
    outage_p95_min: float
    outage_max_h: float
    stretch: float


ZONES = (
    Zone("us-east-1a", "us-east-1", 0.167, 20, 94, 32, 956, 80.2, 1.26),
    Zone("us-east-1c", "us-east-1", 0.467, 29, 221, 32, 445, 23.3, 3.02),
    Zone("us-east-1d", "us-east-1", 0.447, 32, 276, 42, 462, 56.2, 3.84),
    Zone("us-east-1f", "us-east-1", 0.591, 32, 344, 29, 380, 23.9, 27.4),
    Zone("us-east-2a", "us-east-2", 0.759, 52, 887, 23, 442, 20.9, 10.7),
    Zone("us-east-2b", "us-east-2", 0.682, 65, 838, 42, 494, 20.8, 2.22),
    Zone("us-west-2a", "us-west-2", 0.883, 62, 894, 23, 169, 8.1, 21.6),
    Zone("us-west-2b", "us-west-2", 0.905, 84, 1176, 23, 296, 7.2, 107.0),
    Zone("us-west-2c", "us-west-2", 0.891, 55, 978, 23, 198, 8.4, 52.5),
)
# Mean correlation of two zones' availability in the trace.
CORRELATION_IN_REGION, CORRELATION_ELSEWHERE = 0.43, 0.14


class Outage(NamedTuple):
    """A zone without spot machines, in seconds since the start."""

    start_s: float
    end_s: float
    zone: str


def outages(seed: int, days: float, name: str = "weather") -> list[Outage]:
    """Every outage that begins within `days`, oldest first. The same seed and name give the same outages."""
    random = Random(f"{seed}/{name}")
    by_name = {zone.name: zone for zone in ZONES}
    up_again_s = dict.fromkeys(by_name, 0.0)
    found: list[Outage] = []
    due: list[tuple[float, str, float]] = []  # instant, zone, length when pulled along (0: its own)
    next_own_s: dict[str, float] = {}
    for zone in ZONES:
        next_own_s[zone.name] = _run_s(zone, random) * random.random()
        heappush(due, (next_own_s[zone.name], zone.name, 0.0))
    while due and due[0][0] < days * DAY_S:
        now_s, struck, pulled_s = heappop(due)
        zone = by_name[struck]
        if now_s < up_again_s[struck] or (not pulled_s and now_s != next_own_s[struck]):
            continue  # it is out already, or its run was planned anew
        length_s = pulled_s or _outage_s(zone, random)
        found.append(Outage(now_s, now_s + length_s, struck))
        up_again_s[struck] = now_s + length_s
        next_own_s[struck] = up_again_s[struck] + _run_s(zone, random)
        heappush(due, (next_own_s[struck], struck, 0.0))
        if not pulled_s:
            for other in ZONES:
                share = PULLED_IN_REGION if other.region == zone.region else PULLED_ELSEWHERE
                if other.name != struck and random.random() < share:
                    length_of_other_s = min(length_s, other.outage_max_h * HOUR_S)
                    heappush(due, (now_s + random.uniform(0, PULLED_WITHIN_S), other.name, length_of_other_s))
    return sorted(found)


def _run_s(zone: Zone, random: Random) -> float:
    return zone.stretch * log_normal_s(zone.run_p50_min, zone.run_p90_min, Z_90, random)


def _outage_s(zone: Zone, random: Random) -> float:
    return min(log_normal_s(zone.outage_p50_min, zone.outage_p95_min, Z_95, random), zone.outage_max_h * HOUR_S)


def log_normal_s(median_min: float, upper_min: float, upper_z: float, random: Random) -> float:
    """A length with this median and this upper quantile, both in minutes."""
    sigma = log(upper_min / median_min) / upper_z
    return MINUTE_S * median_min * exp(sigma * random.gauss(0, 1))
