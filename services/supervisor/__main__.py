"""`python -m services.supervisor '<options as JSON>'`: what `./dumont up` becomes. Composition root of one machine."""

from __future__ import annotations

import gc
import importlib
import os
import sys
import time

import msgspec

from libs.config import ConfigError
from libs.embedded.child import ServerDied, end_of
from libs.embedded.state import State, holder_pid, read_state, remove_state, take_lock, write_state
from services.supervisor import announce
from services.supervisor.first_key import KeyRefused, issue_first_key
from services.supervisor.members import SANDBOX_GRACE_S, SERVICE_GRACE_S, ServerMember, ServiceMember, end_leftovers
from services.supervisor.options import Options, outside
from services.supervisor.plan import CannotStart, Plan, make_plan
from services.supervisor.watch import BootFailed, StopAsked, Watch

STOPPED, FAILED, USAGE, ALREADY_RUNNING = 0, 1, 2, 4


def main(arguments: list[str]) -> int:
    started_s = time.monotonic()
    try:
        options = msgspec.json.decode(arguments[0], type=Options)
    except (IndexError, msgspec.DecodeError, msgspec.ValidationError) as error:
        announce.warn(f"wrong options: {error}")
        return USAGE
    try:
        lock = take_lock(options.folder)
    except OSError as error:
        announce.warn(f"{options.data_dir} cannot be used: {error.strerror}; choose a folder with --data-dir")
        return FAILED
    if lock is None:
        _say_already_running(options)
        return ALREADY_RUNNING
    try:
        _end_leftovers(options)
        plan = make_plan(options, outside())
        return _run(plan, lock, started_s)
    except (CannotStart, ConfigError, ServerDied) as error:
        announce.warn(str(error))
        return FAILED


def _run(plan: Plan, lock: int, started_s: float) -> int:
    state = State(
        data_dir=str(plan.data_dir),
        supervisor_pid=os.getpid(),
        api_url=plan.api_url,
        nats_url=plan.nats_url,
        postgres_url=plan.postgres_url,
        sandbox_url=plan.sandbox_url if "sandbox" in plan.options.services else "",
        durability=plan.environment["DUMONT_DURABILITY"],
    )

    def changed() -> None:
        write_state(msgspec.structs.replace(state, members=watch.states()))

    watch = Watch(changed=changed, warn=announce.warn)
    try:
        _boot(plan, watch, lock)
        has_gateway = "gateway" in plan.options.services
        key = issue_first_key(plan.nats_url, plan.options.plan) if has_gateway else ""
        state = msgspec.structs.replace(state, api_key=key, is_ready=True)
        changed()
        if plan.options.no_limits:
            announce.warn("LIMITS ARE OFF (--no-limits): nothing is counted and nobody is refused; for load tests only")
        _announce(plan, msgspec.structs.replace(state, members=watch.states()), time.monotonic() - started_s)
        watch.keep_alive()
        if not plan.options.json_line:
            announce.warn("stopping everything; Ctrl-C now kills it")
    except BootFailed as error:
        for name in error.names:
            announce.warn(f"the end of {plan.log_path(name)}:\n{end_of(plan.log_path(name))}")
        announce.warn(str(error))
        return FAILED
    except KeyRefused as error:
        announce.warn(f"{error}. Logs: {plan.data_dir / 'logs'}")
        return FAILED
    except StopAsked:
        pass
    finally:
        watch.stop_all()
        remove_state(plan.data_dir)
    return STOPPED


def _boot(plan: Plan, watch: Watch, lock: int) -> None:
    """Servers first; while they come up, import what services need, so that every fork shares those pages."""
    servers = [
        ServerMember(name, server)
        for name, server in (("nats", plan.nats), ("postgres", plan.postgres), ("storage", plan.storage))
        if server
    ]
    for server in servers:
        watch.spawn(server)
    for module in plan.options.services.values():
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # the collector must not write into pages that children share
    watch.wait_ready([server.name for server in servers])
    services: list[ServiceMember] = []

    def ours_alone() -> list[int]:
        return [lock, *watch.descriptors, *(number for service in services for number in service.descriptors)]

    for name, module in plan.options.services.items():
        service = ServiceMember(
            name,
            module,
            environment=plan.environment,
            log_path=plan.log_path(name),
            private_descriptors=ours_alone,
            grace_s=SANDBOX_GRACE_S if name == "sandbox" else SERVICE_GRACE_S,
        )
        services.append(service)
        watch.spawn(service)
    watch.wait_ready([service.name for service in services])


def _announce(plan: Plan, state: State, took_s: float) -> None:
    if plan.options.json_line:
        announce.as_json(state)
    else:
        announce.as_text(state, took_s=took_s)


def _say_already_running(options: Options) -> None:
    state = read_state(options.folder)
    where = f" at {state.api_url}" if state else ""
    announce.warn(
        f"already running{where} (pid {holder_pid(options.folder)}, data {options.data_dir}); nothing changed"
    )


def _end_leftovers(options: Options) -> None:
    """What an earlier supervisor left behind when it was killed, where the kernel did not end it with it."""
    state = read_state(options.folder)
    if state is not None:
        ended = end_leftovers({member.pid: member.born_at for member in state.members.values() if member.pid})
        if ended:
            announce.warn(f"ended {len(ended)} processes of an earlier run that was killed: {ended}")
        remove_state(options.folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
