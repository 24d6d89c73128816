"""Takes one snapshot: captures the workspace, puts what is new into the storage, the manifest last, and reports.

Called by `work` when the gateway asks for one. Killed at any point it leaves no snapshot; the gateway asks again. What
was stored but not yet reported is reported then, not made again.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

from libs.clock import Clock
from services.agent import memory
from services.agent.capturing import Capture, Copied
from services.agent.manifest import pack_up
from services.agent.memory import LastCopy
from services.agent.packing import Packer
from services.agent.scanning import TooManyFiles
from services.agent.settings import AgentSettings
from services.agent.transfer import Transfer, TransferFailed

SPOOL = "spool"


async def take(snapshot_id: str, base_id: str, *, settings: AgentSettings, transfer: Transfer, clock: Clock) -> str:
    """Returns what to tell whoever looks into the machine. Never raises for what the world does to it."""
    folder = Path(settings.agent_dir)
    try:
        last = await asyncio.to_thread(memory.remembered, folder)
        if last.copy_id != snapshot_id or last.report is None:
            base = last if base_id and last.copy_id == base_id else memory.NOTHING
            last = await _store(snapshot_id, base, settings, transfer, clock)
        await _report(last, transfer)
    except (TransferFailed, TooManyFiles, OSError) as error:
        return await _failed(snapshot_id, error, transfer)
    return f"snapshot {snapshot_id}"


async def _store(
    snapshot_id: str, base: LastCopy, settings: AgentSettings, transfer: Transfer, clock: Clock
) -> LastCopy:
    began_s = clock.monotonic_s()
    folder = Path(settings.agent_dir)
    copied = await _capture(snapshot_id, base, settings, transfer, clock)
    await transfer.put_manifest(snapshot_id, await asyncio.to_thread(pack_up, copied.manifest))
    last = memory.of_copy(copied, took_ms=round((clock.monotonic_s() - began_s) * 1000))
    await asyncio.to_thread(memory.remember, folder, last)
    return last


async def _capture(
    snapshot_id: str, base: LastCopy, settings: AgentSettings, transfer: Transfer, clock: Clock
) -> Copied:
    loop = asyncio.get_running_loop()
    spool = Path(settings.agent_dir, SPOOL)
    shutil.rmtree(spool, ignore_errors=True)
    spool.mkdir(mode=0o700)

    def ship(path: Path, number: int) -> None:
        asyncio.run_coroutine_threadsafe(transfer.put_part(snapshot_id, number, path), loop).result()

    capture = Capture(
        snapshot_id,
        os.fsencode(os.path.realpath(settings.agent_workspace)),
        known=base.by_path,
        packs=base.packs,
        packer=Packer(spool, len(base.packs), ship),
        scope=settings.agent_scope,
        clock=clock,
    )
    return await asyncio.to_thread(capture.run)


async def _report(last: LastCopy, transfer: Transfer) -> None:
    report = last.report
    assert report is not None, "a copy that was made has a report"
    await transfer.report(
        {
            "kind": "snapshot",
            "source": last.copy_id,
            "captured_at": report.captured_at,
            "files": report.files,
            "bytes": report.bytes,
            "stored_bytes": report.stored_bytes,
            "took_ms": report.took_ms,
            "packs": report.packs,
            "is_point_in_time": report.is_point_in_time,
        }
    )


async def _failed(snapshot_id: str, error: Exception, transfer: Transfer) -> str:
    code = error.code if isinstance(error, TransferFailed) else type(error).__name__.lower()
    text = f"snapshot {snapshot_id} failed: {code}"
    detail = str(error)[:500]
    try:
        await transfer.report({"kind": "snapshot_failed", "source": snapshot_id, "code": code, "detail": detail})
    except TransferFailed:
        return f"{text}, and the gateway did not hear of it"  # it gives up by itself
    return text
