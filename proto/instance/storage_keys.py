"""Where an instance's objects lie in object storage: pure names, used by whoever signs or deletes them."""

from __future__ import annotations


def snapshots_prefix(instance_id: str) -> str:
    """Where an instance's objects lie in storage. Ids are ours and have no slash."""
    return f"instances/{instance_id}/"


def manifest_key(instance_id: str, snapshot_id: str) -> str:
    return f"{snapshots_prefix(instance_id)}manifests/{snapshot_id}"


def pack_prefix(instance_id: str, pack_id: str) -> str:
    """A pack is what the snapshot of the same id added, cut into numbered parts."""
    return f"{snapshots_prefix(instance_id)}packs/{pack_id}/"


def pack_key(instance_id: str, pack_id: str, number: int) -> str:
    return f"{pack_prefix(instance_id, pack_id)}{number:08d}"
