"""What happens to a machine that no instance owns."""

from __future__ import annotations

from msgspec.structs import replace

from libs.spec.given import spec
from proto.instance.host_commands import DestroyOrphan, ReportOrphan, ReportOrphanGone
from proto.instance.host_events import OrphanDestroyed, OrphanDestroyRequested, OrphanFound
from services.instance.decider import ORPHAN
from tests.spec.instance.controls import NOW, PROVIDER_ID, minutes

SEEN = ReportOrphan(
    now=NOW, provider="sandbox", provider_machine_id=PROVIDER_ID, label="mach_9", destroy_after=minutes(10)
)
DESTROY = DestroyOrphan(now=minutes(10), provider="sandbox", provider_machine_id=PROVIDER_ID)
GONE = ReportOrphanGone(now=minutes(11), provider="sandbox", provider_machine_id=PROVIDER_ID)


def test_an_orphan_is_found_once_and_destroyed_after_its_grace_period() -> None:
    story = spec(ORPHAN).given().when(SEEN).then_kinds(OrphanFound).when(SEEN).then_nothing()
    story = story.when(replace(DESTROY, now=minutes(9))).then_nothing()
    story = story.when(DESTROY).then_kinds(OrphanDestroyRequested).when(DESTROY).then_nothing()
    story.when(GONE).then_kinds(OrphanDestroyed).when(GONE).then_nothing()


def test_an_orphan_that_went_by_itself_is_not_destroyed() -> None:
    story = spec(ORPHAN).given().when(SEEN, GONE).then_kinds(OrphanFound, OrphanDestroyed)
    story.when(DESTROY).then_nothing()


def test_what_was_never_an_orphan_cannot_go() -> None:
    spec(ORPHAN).given().when(GONE).then_nothing()


def test_an_orphan_that_comes_back_is_found_again() -> None:
    again = replace(SEEN, destroy_after=minutes(30))
    spec(ORPHAN).given(*spec(ORPHAN).given().when(SEEN, GONE).events).when(again).then_kinds(OrphanFound)
