"""The key to a CPU standby: one for each, and told in the same words every time."""

from __future__ import annotations

import asyncssh

from libs.config import Secret
from services.instance.queries.sync_keys import private_key, public_key

SECRET = Secret("the platform's")


def test_the_same_key_is_told_again_and_again_so_that_the_order_stays_the_same() -> None:
    assert private_key(SECRET, "mach_1") == private_key(SECRET, "mach_1")
    assert private_key(SECRET, "mach_1") != private_key(SECRET, "mach_2")
    assert private_key(SECRET, "mach_1") != private_key(Secret("another"), "mach_1")


def test_it_is_the_other_half_of_what_the_standby_is_ordered_with() -> None:
    told = asyncssh.import_private_key(private_key(SECRET, "mach_1"))
    assert told.export_public_key().decode().split()[:2] == public_key(SECRET, "mach_1").split()[:2]
