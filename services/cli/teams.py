"""`teams …`: who outside may read which public events, each with a durable consumer of its own.

A team's rights: pull from `TEAM_<NAME>` on PUB, acknowledge, listen on `_INBOX_<NAME>`; nothing else
(libs/embedded/nats.py says why a NATS account of their own). Consumers live in the log, users in DATA/nats.
"""

from __future__ import annotations

import asyncio
import importlib
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import typer
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError, ServiceUnavailableError

from libs.embedded.files import LOOPBACK
from libs.embedded.nats import Guest, change_guests, read_guests, reload
from libs.embedded.state import State
from services.cli import output
from services.cli.exits import USAGE, Exit, words_of
from services.cli.running import DEFAULT_DATA_DIR, DataDir, running_state

app = typer.Typer(no_args_is_help=True, help="Let teams outside read public events.")

STREAM = "PUB"
SPEAKERS = ("billing", "failover", "gateway", "instance", "warmpool", "webhook_dispatch")
NAME_PATTERN = re.compile(r"[a-z][a-z0-9_]{0,31}")
ACCOUNT_PATTERN = re.compile(r"[A-Za-z0-9_]{1,64}")
EVENT_PATTERN = re.compile(r"\*|[a-z_]+\.(\*|[a-z_]+)")
PASSWORD_BYTES = 24
ACK_WAIT_S = 30.0  # an event taken and not acknowledged within this is handed out again
ACK_PENDING_MAX = 1000  # unacknowledged events handed out at once
CONNECT_TIMEOUT_S = 5  # a handshake takes milliseconds; on a machine with more to do than it can, seconds
ADMITTED_WITHIN_S = 15.0  # a reload takes milliseconds; a request that it swallowed is given up after 5 s
PAUSE_S = 0.05

T = TypeVar("T")
TeamName = Annotated[str, typer.Argument(metavar="NAME", help="Lower-case letters, digits and _.")]


class Since(StrEnum):
    now = "now"
    start = "start"


@app.command("add")
def add_team(
    name: TeamName,
    events: Annotated[str, typer.Option(help="Comma-separated, e.g. 'instance.*,failover.completed'; '*' for all.")],
    account: Annotated[str, typer.Option(help="Only events of this account (acct_…).")] = "",
    since: Annotated[Since, typer.Option(help="Deliver from now on, or everything since the beginning.")] = Since.now,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: output.AsJson = False,
) -> None:
    """Make credentials that may read these events and nothing else. Shown once."""
    filters = event_filters(name, events, account)
    state = running_state(data_dir)
    folder, pid = _own_server(state)
    guest = Guest(name, secrets.token_urlsafe(PASSWORD_BYTES), rights_of(name))
    if any(known.name == name for known in read_guests(folder)):
        raise Exit(f"the team {name} exists; remove it first to change it")
    asyncio.run(_asked(state.nats_url, lambda log: _create_consumer(log, name, filters, since)))
    change_guests(folder, lambda guests: [*(known for known in guests if known.name != name), guest])
    reload(pid)
    url = f"nats://{name}:{guest.password}@{LOOPBACK}:{state.nats_url.rpartition(':')[2]}"
    asyncio.run(_asked(url, _nothing, inbox=guest.inbox))
    made = {
        "team": name,
        "url": url,
        "stream": STREAM,
        "consumer": consumer_of(name),
        "inbox_prefix": guest.inbox,
        "subjects": filters,
    }
    if json:
        output.as_json(made)
    else:
        output.as_fields(made)
        output.warn("keep the url now; its password is not shown again")


@app.command("list")
def list_teams(data_dir: DataDir = DEFAULT_DATA_DIR, json: output.AsJson = False) -> None:
    """Teams, what they may read and how far they are."""
    state = running_state(data_dir)
    folder, _ = _own_server(state)
    names = [guest.name for guest in read_guests(folder)]
    rows = asyncio.run(_asked(state.nats_url, lambda log: _progress(log, names)))
    if json:
        output.as_json(rows)
    else:
        shown = [[row[name] for name in ("team", "subjects", "waiting", "unacknowledged")] for row in rows]
        output.as_table(["team", "events", "waiting", "unacknowledged"], shown, empty="no teams")


@app.command("remove")
def remove_team(name: TeamName, data_dir: DataDir = DEFAULT_DATA_DIR, json: output.AsJson = False) -> None:
    """Withdraw a team's credentials and forget how far it was."""
    state = running_state(data_dir)
    folder, pid = _own_server(state)
    if all(known.name != name for known in read_guests(folder)):
        raise Exit(f"there is no team {name}")
    change_guests(folder, lambda guests: [known for known in guests if known.name != name])
    reload(pid)
    asyncio.run(_asked(state.nats_url, lambda log: _delete_consumer(log, name)))
    if json:
        output.as_json({"team": name, "removed": True})
    else:
        output.tell(f"removed {name}")


def consumer_of(name: str) -> str:
    return f"TEAM_{name}"


def rights_of(name: str) -> list[str]:
    """All that a team may publish to."""
    consumer = consumer_of(name)
    return [
        f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{consumer}",
        f"$JS.ACK.{STREAM}.{consumer}.>",
    ]


def event_filters(name: str, events: str, account: str) -> list[str]:
    """The subjects of PUB that a team asks for. Exits with USAGE when something is not a name."""
    if not NAME_PATTERN.fullmatch(name):
        raise Exit(f"{name!r} is not a team name: lower-case letters, digits and _, at most 32", USAGE)
    if account and not ACCOUNT_PATTERN.fullmatch(account):
        raise Exit(f"{account!r} is not an account id", USAGE)
    wanted = list(dict.fromkeys(word.strip() for word in events.split(",") if word.strip()))
    wrong = [word for word in wanted if not EVENT_PATTERN.fullmatch(word)]
    if wrong or not wanted:
        raise Exit(f"--events: {wrong or 'nothing'}; give words like instance.*, instance.created or *", USAGE)
    said = public_events()
    unknown = [word for word in wanted if not any(fnmatchcase(event, word) for event in said)]
    if unknown:
        domains = ", ".join(sorted({event.partition(".")[0] + ".*" for event in said}))
        raise Exit(f"--events: nobody says {', '.join(unknown)}; there are {domains} and their events", USAGE)
    # The server refuses filters that overlap: a wide one makes its narrow ones needless.
    kept = ["*"] if "*" in wanted else [word for word in wanted if word.endswith(".*") or _family(word) not in wanted]
    return [f"pub.{account or '*'}.{'>' if word == '*' else word}" for word in kept]


def public_events() -> set[str]:
    """Wire names of all that is ever said on PUB."""
    unions = [importlib.import_module(f"proto.{service}.events").AnyEvent for service in SPEAKERS]
    return {event.__struct_config__.tag for union in unions for event in get_args(union) if event.public}


def _family(word: str) -> str:
    return word.partition(".")[0] + ".*"


def _own_server(state: State) -> tuple[Path, int]:
    """Folder and pid of the nats-server we run. An outside one has its users managed where it is run."""
    member = state.members.get("nats")
    if member is None:
        raise Exit("NATS is an outside server (DUMONT_NATS_URL): add the team to its own configuration (deploy/nats)")
    if member.pid == 0:
        raise Exit("nats-server is restarting; try again")
    return Path(state.data_dir) / "nats", member.pid


async def _asked(url: str, act: Callable[[JetStreamContext], Awaitable[T]], *, inbox: str = "_INBOX") -> T:
    """Connect and act, on a connection of its own.

    A server that is just reading its users again drops who comes in, does not know a new one yet, or has nobody to
    answer for the log. Each `act` may be done twice: asked again, for as long as that may take.
    """
    give_up_s = time.monotonic() + ADMITTED_WITHIN_S
    while True:
        client: Any = Client()  # its keyword arguments are untyped
        is_connected = False
        try:
            await client.connect(
                url,
                inbox_prefix=inbox.encode(),
                connect_timeout=CONNECT_TIMEOUT_S,
                allow_reconnect=False,
                error_cb=_raised_as_well,
            )
            is_connected = True
            return await act(client.jetstream())
        except NotFoundError as error:
            raise Exit(f"the stream {STREAM} is not there yet: {error.description}") from error
        except (NatsError, OSError) as error:
            is_refused = is_connected and not isinstance(error, (ServiceUnavailableError, NatsTimeoutError))
            if is_refused or time.monotonic() >= give_up_s:
                raise Exit(f"NATS: {words_of(error)}") from error
        finally:
            await client.close()
        await asyncio.sleep(PAUSE_S)


async def _raised_as_well(_error: Exception) -> None:
    """nats-py's own callback would print it."""


async def _nothing(_log: JetStreamContext) -> None:
    """To be let in is all."""


async def _create_consumer(log: Any, name: str, filters: list[str], since: Since) -> None:
    await log.add_consumer(
        STREAM,
        ConsumerConfig(
            durable_name=consumer_of(name),
            filter_subjects=filters,
            deliver_policy=DeliverPolicy.ALL if since is Since.start else DeliverPolicy.NEW,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_S,
            max_ack_pending=ACK_PENDING_MAX,
        ),
    )


async def _delete_consumer(log: JetStreamContext, name: str) -> None:
    with suppress(NotFoundError):  # deleted by the request that nobody answered
        await log.delete_consumer(STREAM, consumer_of(name))


async def _progress(log: JetStreamContext, names: list[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name in names:
        info = await log.consumer_info(STREAM, consumer_of(name))
        rows.append(
            {
                "team": name,
                "consumer": consumer_of(name),
                "subjects": info.config.filter_subjects or [info.config.filter_subject],
                "waiting": info.num_pending,
                "unacknowledged": info.num_ack_pending,
            }
        )
    return rows
