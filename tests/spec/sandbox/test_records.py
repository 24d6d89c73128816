"""The journal of machine records: the last word counts, a cut-off line does not, and it stays short."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.sandbox import records as journal
from services.sandbox.records import Record, Records


def record(machine_id: str, **changes: Any) -> Record:
    facts: dict[str, Any] = {
        "label": f"mach_{machine_id}",
        "status": "creating",
        "wanted": "running",
        "offer_id": "offer-1",
        "host_id": "host-1",
        "gpu": "RTX 4090",
        "gpu_count": 1,
        "region": "CN-HK-01",
        "kind": "gpu",
        "billing": "spot",
        "price_usd_micros_per_hour": 400_000,
        "created_at": 1.0,
        "image": "pytorch",
        "slots": 1,
    }
    return Record(machine_id=machine_id, **{**facts, **changes})


def opened(folder: Path) -> Records:
    records = Records(folder)
    records.load()
    return records


def test_the_last_record_of_a_machine_counts_and_the_forgotten_are_gone(tmp_path: Path) -> None:
    records = opened(tmp_path)
    for one in (record("a"), record("b"), record("a", status="running")):
        records.save(one)
    records.forget("b")
    records.forget("never there")
    assert [(one.machine_id, one.status) for one in Records(tmp_path).load()] == [("a", "running")]


def test_a_line_cut_off_by_a_crash_is_dropped(tmp_path: Path) -> None:
    opened(tmp_path).save(record("a"))
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes() + b'{"record":{"machine_id":"b","lab')
    records = Records(tmp_path)
    assert [one.machine_id for one in records.load()] == ["a"]
    records.save(record("c"))
    assert [one.machine_id for one in Records(tmp_path).load()] == ["a", "c"]


def test_the_journal_is_written_anew_before_it_grows_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "LINES_SPARE_MIN", 20)
    records = opened(tmp_path)
    for price in range(500):
        records.save(record("a", price_usd_micros_per_hour=price))
    assert len((tmp_path / "journal.jsonl").read_bytes().splitlines()) <= 30
    assert [one.price_usd_micros_per_hour for one in Records(tmp_path).load()] == [499]
