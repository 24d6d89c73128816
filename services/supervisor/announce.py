"""What is said when the platform is ready: one line of JSON for programs, a few aligned lines for people.

Called by `__main__`. Standard output carries nothing else, so that `--json` is exactly one line.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from libs.embedded.nats import LOSS_WINDOW
from libs.embedded.state import State

BOLD, DIM, PLAIN = "\033[1m", "\033[2m", "\033[0m"


def as_json(state: State) -> None:
    said = {
        "api_url": state.api_url,
        "api_key": state.api_key,
        "nats_url": state.nats_url,
        "postgres_url": state.postgres_url,
        "data_dir": state.data_dir,
        "pids": state.pids,
    }
    _say(msgspec.json.encode(said).decode())


def as_text(state: State, *, took_s: float) -> None:
    bold, dim, plain = (BOLD, DIM, PLAIN) if sys.stdout.isatty() else ("", "", "")
    rows = [
        ("API", state.api_url),
        ("API key", state.api_key or "none: no gateway"),
        ("NATS", state.nats_url),
        ("PostgreSQL", state.postgres_url),
        ("Logs", str(Path(state.data_dir) / "logs")),
        ("Durability", durability_line(state.durability)),
    ]
    width = max(len(name) for name, _ in rows)
    _say(f"{bold}Dumont Cloud is ready{plain} {dim}({took_s:.1f} s; Ctrl-C stops everything){plain}")
    for name, value in rows:
        _say(f"  {name:<{width}}  {value}")
    if state.api_key:
        _say(f'\n  curl -H "Authorization: Bearer {state.api_key}" {state.api_url}/api/v1/instances\n')


def durability_line(durability: str) -> str:
    if durability in ("always", "relaxed"):
        return f"{durability}: {LOSS_WINDOW[durability]}"
    return "as the outside NATS server is configured"


def warn(text: str) -> None:
    """A line for the operator, on standard error at once."""
    sys.stderr.write(f"dumont: {text}\n")
    sys.stderr.flush()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
