"""How often the simulated cloud lies, and about what. Used by `cloud`; scenarios choose a value."""

from __future__ import annotations

from msgspec import Struct


class Lies(Struct, frozen=True, kw_only=True):
    """Shares (0..1) of calls or machines."""

    create_times_out_created: float = 0.08
    create_times_out_uncreated: float = 0.04
    offer_gone: float = 0.08
    call_fails_before: float = 0.04
    call_fails_after: float = 0.03
    boot_fails: float = 0.08
    boot_hangs: float = 0.01
    boot_s_max: float = 8.0
    probe_fails: float = 0.1
    signal_lost: float = 0.2
    signal_doubled: float = 0.2
    signal_late: float = 0.2
    create_late: float = 0.03  # no answer, and the machine is made some time after that was sure
    ends_unseen: float = 0.15  # of machines that end: for a while the cloud goes on to say what they were
    gone_while_running: float = 0.04  # of looks at a running machine
    preempt_every_s: float = 25.0


HONEST = Lies(
    create_times_out_created=0, create_times_out_uncreated=0, offer_gone=0, call_fails_before=0, call_fails_after=0,
    boot_fails=0, boot_hangs=0, probe_fails=0, signal_lost=0, signal_doubled=0, signal_late=0, create_late=0,
    ends_unseen=0, gone_while_running=0, preempt_every_s=0, boot_s_max=1.0,
)  # fmt: skip
