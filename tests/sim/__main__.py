"""Run seeds of a scenario: `python -m tests.sim SEED` shows one run line by line, `--count N` runs N on all cores.

Called by `just sim`. A failing seed ends with the command that repeats it and exit status 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from libs.sim.chance import Faults
from libs.sim.world import Scenario, SeedFailed, simulate
from tests.sim.scenarios import SCENARIOS

FAILURES_SHOWN_MAX = 5
CHUNK_SEEDS = 10
DEFAULT = "instance"


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    options.add_argument("seed", type=int, nargs="?", default=0)
    options.add_argument("--scenario", choices=sorted(SCENARIOS), default=DEFAULT)
    options.add_argument("--count", type=int, default=1, help="how many seeds, from SEED on")
    options.add_argument("--quiet", action="store_true", help="no lines, only the outcome")
    chosen = options.parse_args()
    if chosen.count > 1:
        return _many(chosen.scenario, range(chosen.seed, chosen.seed + chosen.count))
    scenario, faults = SCENARIOS[chosen.scenario]
    return _one(chosen.seed, scenario, faults, chosen.quiet)


def _one(seed: int, scenario: Scenario, faults: Faults, quiet: bool) -> int:
    try:
        print(simulate(seed, scenario, faults=faults, say=None if quiet else print))
    except SeedFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


def _many(name: str, seeds: range) -> int:
    began_s = time.perf_counter()
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        verdicts = list(pool.map(run_quietly, [name] * len(seeds), seeds, chunksize=CHUNK_SEEDS))
    failures = [verdict for verdict in verdicts if verdict]
    for failure in failures[:FAILURES_SHOWN_MAX]:
        print(failure, file=sys.stderr)
    took_s = time.perf_counter() - began_s
    print(f"{name}: {len(seeds)} seeds, {len(failures)} failed, {took_s:.1f} s")
    return 1 if failures else 0


def run_quietly(name: str, seed: int) -> str:
    """Empty when the seed keeps every promise, otherwise what it broke."""
    scenario, faults = SCENARIOS[name]
    try:
        simulate(seed, scenario, faults=faults, repeat=f" --scenario {name}")
    except SeedFailed as failure:
        return str(failure)
    return ""


if __name__ == "__main__":
    sys.exit(main())
