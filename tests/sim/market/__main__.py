"""`python -m tests.sim.market`: replay a month on the spot market for every strategy and print what each came to.

Called by `just sim market`. Strategies run side by side, one process each; the same seed and settings give the same
numbers.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import msgspec
from rich.console import Console
from rich.table import Table

from proto.failover.words import LADDER, GlobalPatch, Limits
from tests.sim.market.replay import replay
from tests.sim.market.strategies import choices
from tests.sim.market.tally import Outcome

MINUTE_S = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    names = [choice.name for choice in choices()]
    options = argparse.ArgumentParser(prog="python -m tests.sim.market", description=__doc__)
    options.add_argument("--days", type=float, default=30.0)
    options.add_argument("--instances", type=int, default=100)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--strategy", choices=names, action="append", help="only this one; may be repeated")
    options.add_argument("--workers", type=int, default=os.cpu_count(), help="processes side by side")
    options.add_argument("--settings", type=_settings, default=GlobalPatch(), metavar="JSON",
                         help="for the account, as PUT /failover/settings/global takes them")  # fmt: skip
    usual = Limits()
    options.add_argument("--failovers-per-day-max", type=int, default=usual.failovers_per_day_max)
    options.add_argument("--failover-spacing-s", type=int, default=usual.spacing_s)
    options.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    chosen = options.parse_args(arguments)
    began_s = time.perf_counter()
    wanted = [choice for choice in choices() if not chosen.strategy or choice.name in chosen.strategy]
    about = {
        "seed": chosen.seed,
        "days": chosen.days,
        "instances": chosen.instances,
        "settings": chosen.settings,
        "limits": Limits(failovers_per_day_max=chosen.failovers_per_day_max, spacing_s=chosen.failover_spacing_s),
    }
    with ProcessPoolExecutor(max_workers=chosen.workers) as pool:
        running = [pool.submit(replay, choice, **about) for choice in wanted]
        outcomes = [future.result() for future in running]
    if chosen.json:
        print(msgspec.json.encode(outcomes).decode())
    else:
        _show(outcomes)
        print("\nfailovers by the rung that helped, and from the loss noticed to ready: p50, p95")
        _show_ready(outcomes)
        took_s = time.perf_counter() - began_s
        print(f"{chosen.instances} instances, {chosen.days:g} days, seed {chosen.seed}; took {took_s:.0f} s")
    return 1 if any(outcome.double_primary_s or outcome.untrue_windows for outcome in outcomes) else 0


def _show(outcomes: Sequence[Outcome]) -> None:
    columns = {
        "strategy": lambda o: o.strategy,
        "available": lambda o: f"{o.availability:.2%}",
        "on a CPU": lambda o: f"{o.on_cpu_share:.1%}",
        "cost": lambda o: f"{o.cost_share:.0%}",
        "losses": lambda o: f"{o.losses}",
        "failovers": lambda o: f"{o.failovers_completed}",
        "failed": lambda o: f"{o.failovers_failed}",
        "down p50": lambda o: _time(o.unavailable_p50_s),
        "down p95": lambda o: _time(o.unavailable_p95_s),
        "work lost": lambda o: f"{o.work_lost_h_per_instance:.1f} h",
        "two primaries": lambda o: f"{o.double_primary_s:.0f} s",
    }
    _print(list(columns), [[cell(outcome) for cell in columns.values()] for outcome in outcomes])


def _show_ready(outcomes: Sequence[Outcome]) -> None:
    rows: list[list[str]] = []
    for outcome in outcomes:
        found = {each.rung: f"{each.count}: {_time(each.p50_s)}, {_time(each.p95_s)}" for each in outcome.ready}
        if found:
            rows.append([outcome.strategy, *(found.get(rung, "") for rung in LADDER)])
    _print(["strategy", *LADDER], rows)


def _print(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, justify="left" if name == "strategy" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160  # a pipe has no width: rows are not folded
    console.print(table)


def _settings(text: str) -> GlobalPatch:
    try:
        return msgspec.json.decode(text, type=GlobalPatch)
    except msgspec.MsgspecError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _time(seconds: float) -> str:
    if 0 < seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < MINUTE_S else f"{seconds / MINUTE_S:.1f} min"


if __name__ == "__main__":
    sys.exit(main())
