"""The in-memory store keeps the store contract, and leaks no state of its callers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from libs.runtime.memory_store import MemoryStore
from libs.runtime.service import Row
from libs.spec.store_contract import CONTRACT_KEYS, CONTRACT_TABLES, STORE_CONTRACT, Subject


@pytest.mark.parametrize("check", STORE_CONTRACT, ids=lambda check: check.__name__)
async def test_store_contract(check: Callable[[Subject], Awaitable[None]]) -> None:
    store = MemoryStore(CONTRACT_TABLES, keys=CONTRACT_KEYS)

    async def rows(table: str) -> Sequence[dict[str, Any]]:
        return store.rows(table)

    await check(Subject(store, rows, ValueError))


async def test_rows_are_copies() -> None:
    store = MemoryStore()
    facts = {"sizes": [1]}
    await store.project([Row("things", {"id": "a"}, {"facts": facts})], after_seq=0, seq=1)
    facts["sizes"].append(2)
    store.rows("things")[0]["facts"]["sizes"].append(3)
    assert store.rows("things") == [{"id": "a", "facts": {"sizes": [1]}}]
