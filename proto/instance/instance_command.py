"""What every wish for an instance has: the instance it is addressed to. Base of `commands` and its parts."""

from __future__ import annotations

from typing import ClassVar

from proto.base import Command


class InstanceCommand(Command, frozen=True, kw_only=True):
    service: ClassVar[str] = "instance"
    aggregate: ClassVar[str] = "instance"
    instance_id: str

    @property
    def aggregate_id(self) -> str:
        return self.instance_id
