"""Which processes of this host belong to a platform under test, found without asking the platform.

Used by the fixtures (nothing may be left, nobody may have ended by a bug) and by the chaos rounds (no machine process
without a record).
"""

from __future__ import annotations

from pathlib import Path

import psutil

from tests.journey.platform import machines_directory

TRACEBACK = b"Traceback (most recent call last)"
LAST_WORDS_MAX = 4_000


def machine_processes(data_dir: Path) -> dict[str, list[int]]:
    """Live processes inside machines, by the cloud's machine id: they work in the machine's directory."""
    directory = machines_directory(data_dir)
    found: dict[str, list[int]] = {}
    for process in psutil.process_iter():
        try:
            where = Path(process.cwd())
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess, FileNotFoundError):
            continue
        if where.is_relative_to(directory) and where != directory:
            found.setdefault(where.relative_to(directory).parts[0], []).append(process.pid)
    return found


def platform_processes(data_dir: Path) -> list[int]:
    """Live processes that name the data directory in their arguments, environment or working directory."""
    found: list[int] = []
    for process in psutil.process_iter():
        try:
            words = (*process.cmdline(), *process.environ().values(), process.cwd())
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess, FileNotFoundError):
            continue
        if any(str(data_dir) in word for word in words):
            found.append(process.pid)
    return found


def complaints_about_leftovers(data_dir: Path) -> list[str]:
    """What still lives of a platform that should be gone; it is ended, so that one failure does not spoil the next."""
    left = {*platform_processes(data_dir), *(pid for pids in machine_processes(data_dir).values() for pid in pids)}
    complaints: list[str] = []
    for pid in sorted(left):
        try:
            process = psutil.Process(pid)
            complaints.append(f"left behind: {pid} {process.name()} {' '.join(process.cmdline())[:200]}")
            process.kill()
        except psutil.NoSuchProcess:
            continue
    return complaints


def complaints_about_bugs(data_dir: Path) -> list[str]:
    """Who is killed leaves no last words; a process that ended by itself left a traceback in its log."""
    logs = sorted((data_dir / "logs").glob("*.log"))
    ended = [log for log in logs if TRACEBACK in log.read_bytes()]
    return [f"{log.stem} ended by itself: {last_words(log)}" for log in ended]


def last_words(log: Path) -> str:
    """The newest traceback in a log that has one."""
    text = log.read_bytes()
    return text[text.rindex(TRACEBACK) :][:LAST_WORDS_MAX].decode(errors="replace")
