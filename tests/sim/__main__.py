"""Run seeds of a scenario: `python -m tests.sim SEED` shows one run line by line, `--count N` runs N from SEED on.

Called by `just sim`. A failing seed ends with the command that repeats it and exit status 1. Of many seeds each failure
is told when it happens, and now and then up to where all have ended: a run that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from libs.sim.chance import Faults
from libs.sim.world import Scenario, SeedFailed, simulate
from tests.sim.scenarios import SCENARIOS

CHUNK_SEEDS = 10
SEEDS_BETWEEN_SIGNS = 500  # some minutes of one core
DEFAULT = "instance"


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    options.add_argument("seed", type=int, nargs="?", default=0)
    options.add_argument("--scenario", choices=sorted(SCENARIOS), default=DEFAULT)
    options.add_argument("--count", type=int, default=1, help="how many seeds, from SEED on")
    options.add_argument("--workers", type=int, default=os.cpu_count(), help="processes side by side")
    options.add_argument("--quiet", action="store_true", help="no lines, only the outcome")
    chosen = options.parse_args()
    if chosen.count > 1:
        return _many(chosen.scenario, range(chosen.seed, chosen.seed + chosen.count), chosen.workers)
    scenario, faults = SCENARIOS[chosen.scenario]
    return _one(chosen.seed, scenario, faults, chosen.quiet)


def _one(seed: int, scenario: Scenario, faults: Faults, quiet: bool) -> int:
    try:
        print(simulate(seed, scenario, faults=faults, say=None if quiet else print))
    except SeedFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


def _many(name: str, seeds: range, workers: int) -> int:
    began_s = time.perf_counter()
    failed: list[int] = []
    with ProcessPoolExecutor(max_workers=workers) as pool:
        verdicts = pool.map(run_quietly, [name] * len(seeds), seeds, chunksize=CHUNK_SEEDS)
        for seed, verdict in zip(seeds, verdicts, strict=True):
            if verdict:
                failed.append(seed)
                print(verdict, file=sys.stderr, flush=True)
            if (seed + 1 - seeds.start) % SEEDS_BETWEEN_SIGNS == 0:
                print(f"{name}: done before {seed + 1}, {_outcome(failed, began_s)}", flush=True)
    print(f"{name}: {len(seeds)} seeds from {seeds.start} on, {_outcome(failed, began_s)}")
    return 1 if failed else 0


def _outcome(failed: Sequence[int], began_s: float) -> str:
    seeds = f" ({' '.join(map(str, failed))})" if failed else ""
    return f"{len(failed)} failed{seeds}, {time.perf_counter() - began_s:.0f} s"


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
