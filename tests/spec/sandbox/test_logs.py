"""A machine's logs are cut while its programs go on printing."""

from __future__ import annotations

from pathlib import Path

from services.sandbox.logs import shorten


def test_a_long_log_keeps_its_newest_half_and_its_writer_goes_on_behind_it(tmp_path: Path) -> None:
    log = tmp_path / "machine.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"".join(b"%07d\n" % number for number in range(1_000)))
        shorten(log, bytes_max=4_000)
        writer.write(b"after\n")
    lines = log.read_bytes().splitlines()
    assert log.stat().st_size == 2_000 + len(b"after\n")
    assert (lines[0], lines[-2], lines[-1]) == (b"0000750", b"0000999", b"after")


def test_a_short_log_and_one_that_is_not_there_are_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "machine.log"
    shorten(log, bytes_max=10)
    assert not log.exists()
    log.write_bytes(b"0123456789")
    shorten(log, bytes_max=10)
    assert log.read_bytes() == b"0123456789"
