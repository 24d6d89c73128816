"""Does the time of an answer tell what another account has? `just existence` asks for what others have and for what
nobody has, in turns, and compares.

A route fails when the medians differ by more than DIFFERENCE_MAX and the signs of the paired differences could hardly
be chance. Numbers belong to the machine; the verdict is about the difference.
"""

from __future__ import annotations

import argparse
import http.client
import math
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from services.gateway.routes import ROUTES
from services.gateway.routing import Route
from tests.journey.access_rows import ROWS
from tests.journey.access_things import Access, access_platform
from tests.journey.platform import wipe
from tests.journey.test_auth_matrix import nobodys

PAIRS = 1_000
WARM_UP = 50
DIFFERENCE_MAX = 0.03  # of the median: less cannot be told over a network
CHANCE_MAX = 0.001


def readable() -> list[Route]:
    """Reads that name a thing of an account: asking a thousand times changes nothing."""
    return [route for route in ROUTES if route.method == "GET" and ROWS[route.method, route.path].is_private]


def took_us(connection: http.client.HTTPConnection, path: str, key: str) -> float:
    started = time.perf_counter()
    connection.request("GET", path, headers={"Authorization": f"Bearer {key}"})
    response = connection.getresponse()
    response.read()
    assert response.status == 404, f"{path}: {response.status}"
    return (time.perf_counter() - started) * 1e6


def compare(access: Access, route: Route, pairs: int) -> tuple[float, float, float]:
    """Median of what others have, of what nobody has, and how likely so one-sided a series is by chance."""
    row = ROWS[route.method, route.path]
    _, path, _ = access.target(route.method, row, route.path)
    missing = path
    for thing in access.named(row):
        missing = missing.replace(thing, nobodys(thing))
    key, address = access.credential("other account", route, row), urlsplit(access.up.api_url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    order = random.Random(1)
    there: list[float] = []
    gone: list[float] = []
    for number in range(pairs + WARM_UP):
        asked = [(path, there), (missing, gone)]
        order.shuffle(asked)
        for target, times in asked:
            took = took_us(connection, target, key)
            if number >= WARM_UP:
                times.append(took)
    connection.close()
    slower = sum(one > other for one, other in zip(there, gone, strict=True))
    deviations = abs(slower - pairs / 2) / (math.sqrt(pairs) / 2)
    return statistics.median(there), statistics.median(gone), math.erfc(deviations / math.sqrt(2))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    pairs = parser.parse_args().pairs
    folder = Path(tempfile.mkdtemp(prefix="dumont-existence-"))
    failed = 0
    with access_platform(folder / "data") as access:
        print(f"{'route':<60} {'others':>9} {'nobody':>9} {'diff':>7} {'chance':>7}")
        for route in readable():
            there, gone, chance = compare(access, route, pairs)
            difference = (there - gone) / gone
            tells = abs(difference) > DIFFERENCE_MAX and chance < CHANCE_MAX
            failed += tells
            verdict = "  TELLS" if tells else ""
            print(f"{route.path:<60} {there:>6.0f} us {gone:>6.0f} us {difference:>+7.1%} {chance:>7.3f}{verdict}")
    wipe(folder)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
