"""What the gateway's answer to a heartbeat means. Pure; used by `program`.

Both forms of contract dumont 6 are read: `action` (none, prepare_hibernate, shutdown) and `commands` (restart,
hibernate, shutdown, …, each a word or an object with a `command`), bare or inside `data`.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from services.agent.settings import INTERVAL_MAX_S, INTERVAL_MIN_S

ANSWER_BYTES_MAX = 64 * 1024
COMMANDS_MAX = 16

Deed: TypeAlias = Literal["prepare_hibernate", "restart", "shutdown"]
# Every word that means a deed; the contract's two forms name some things differently.
DEEDS: dict[str, Deed] = {
    "prepare_hibernate": "prepare_hibernate",
    "hibernate": "prepare_hibernate",
    "restart": "restart",
    "shutdown": "shutdown",
}


class SnapshotOrder(Struct, frozen=True):
    """Copy the workspace; `base_id`: the snapshot that this one may add to."""

    snapshot_id: str
    base_id: str = ""


class SyncOrder(Struct, frozen=True):
    """Keep this machine in sync, as the primary of this generation. `is_last`: hold everything still, send what has
    changed since, and stay so."""

    standby_machine_id: str
    generation: int
    host: str
    port: int
    private_key: str
    interval_s: int
    excludes: tuple[str, ...] = ()
    is_last: bool = False

    def __repr__(self) -> str:
        return f"SyncOrder({self.standby_machine_id!r}, generation={self.generation})"


class ReceiveOrder(Struct, frozen=True):
    """Take in what this generation sends; `takes_over`: from nobody any more, and say when the files are whole."""

    generation: int
    takes_over: bool = False


class _Said(Struct, frozen=True):
    action: str = "none"
    commands: list[Any] = []
    next_heartbeat_in: float | None = None
    hibernate_in_seconds: float | None = None
    snapshot: SnapshotOrder | None = None
    sync: SyncOrder | None = None
    receive: ReceiveOrder | None = None
    carries: bool = False


class _Envelope(Struct, frozen=True):
    data: _Said | None = None


class Answer(Struct, frozen=True):
    """What to do, in order, and when to speak again. `unknown` are words we do not know.

    `carries`: this machine carries the instance and has its files.
    """

    deeds: tuple[Deed, ...] = ()
    unknown: tuple[str, ...] = ()
    next_heartbeat_in_s: float | None = None
    snapshot: SnapshotOrder | None = None
    sync: SyncOrder | None = None
    receive: ReceiveOrder | None = None
    carries: bool = False


def read_answer(body: bytes) -> Answer:
    """Understand an answer. One that is not JSON of the contract asks for nothing: hearing us is all it had to do."""
    try:
        said = msgspec.json.decode(body, type=_Envelope).data or msgspec.json.decode(body, type=_Said)
    except (msgspec.ValidationError, msgspec.DecodeError):
        return Answer()
    words = ([] if said.action == "none" else [said.action]) + [
        _word(command) for command in said.commands[:COMMANDS_MAX]
    ]
    deeds: tuple[Deed, ...] = tuple(dict.fromkeys(DEEDS[word] for word in words if word in DEEDS))
    pause_s = said.next_heartbeat_in
    if pause_s is not None:
        pause_s = min(max(pause_s, INTERVAL_MIN_S), INTERVAL_MAX_S)
    unknown = tuple(word for word in words if word not in DEEDS)
    return Answer(deeds, unknown, pause_s, said.snapshot, said.sync, said.receive, said.carries)


def _word(command: Any) -> str:
    if isinstance(command, dict):
        named: dict[str, Any] = command  # pyright: ignore[reportUnknownVariableType]
        return str(named.get("command") or named.get("type") or "")[:64]
    return str(command)[:64]
