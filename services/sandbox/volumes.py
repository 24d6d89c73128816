"""Volumes: directories that machines can have as their workspace, and that outlive them.

A host's volume is shared by machines on that host; a region's is had by one machine of that region at a time.

Used by `cloud` and `routes`. Owns DATA/sandbox/volumes.json. A volume is charged for while it is there.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from libs.ids import Ids
from services.sandbox.bills import Bills, Item, volume_item
from services.sandbox.homes import Homes
from services.sandbox.records import Record, Volume, replace
from services.sandbox.wire import VolumeBody, VolumeView


class Volumes:
    """All volumes and who has them."""

    def __init__(
        self, path: Path, homes: Homes | None, ids: Ids, *, bills: Bills, price_usd_micros_per_gb_hour: int
    ) -> None:
        """`homes` is None in a virtual cloud, whose volumes hold no files."""
        self._bills = bills
        self._price = price_usd_micros_per_gb_hour
        self._path = path
        self._homes = homes
        self._ids = ids
        stored = msgspec.json.decode(path.read_bytes(), type=list[Volume]) if path.exists() else []
        self._volumes = {volume.volume_id: volume for volume in stored}
        self._attached: dict[str, set[str]] = {volume_id: set() for volume_id in self._volumes}

    def restore(self, records: Iterable[Record]) -> None:
        """Who had what when the daemon went down."""
        for record in records:
            if record.volume_id in self._attached:
                self._attached[record.volume_id].add(record.machine_id)

    def create(self, body: VolumeBody, now: float) -> Volume:
        """A new, empty volume; the same name at the same place gives the same volume."""
        for volume in self._volumes.values():
            if (volume.name, volume.host_id, volume.region) == (body.name, body.host_id, body.region):
                return volume
        volume = Volume(self._ids.fresh("vol"), body.name, body.host_id, body.size_gb, region=body.region)
        if self._homes is not None:
            volume.group_id = self._homes.free_group(other.group_id for other in self._volumes.values())
            self._homes.make_volume(volume)
        self._volumes[volume.volume_id] = volume
        self._attached[volume.volume_id] = set()
        self._save()
        self._bills.note(volume_item(volume, self._price), now, is_on=True)
        return volume

    def find(self, volume_id: str) -> Volume | None:
        return self._volumes.get(volume_id)

    def all(self) -> list[VolumeView]:
        return [self.view(volume) for volume in self._volumes.values()]

    def view(self, volume: Volume) -> VolumeView:
        attached = tuple(sorted(self._attached[volume.volume_id]))
        return VolumeView(volume.volume_id, volume.name, volume.host_id, volume.size_gb, attached, volume.region)

    def attach(self, volume: Volume, machine_id: str) -> None:
        self._attached[volume.volume_id].add(machine_id)

    def detach(self, volume_id: str, machine_id: str) -> None:
        self._attached.get(volume_id, set()).discard(machine_id)

    def in_use(self, volume_id: str) -> bool:
        return bool(self._attached.get(volume_id))

    def items(self) -> list[Item]:
        """What there is to be charged for."""
        return [volume_item(volume, self._price) for volume in self._volumes.values()]

    def destroy(self, volume_id: str, now: float) -> None:
        """Take an unused volume away with its files; one that is gone is fine."""
        volume = self._volumes.pop(volume_id, None)
        if volume is None:
            return
        self._bills.note(volume_item(volume, self._price), now, is_on=False)
        del self._attached[volume_id]
        self._save()
        if self._homes is not None:
            self._homes.wipe_volume(volume_id)

    def _save(self) -> None:
        replace(self._path, msgspec.json.encode(list(self._volumes.values())))
