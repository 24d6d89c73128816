"""`events …`: watch public events (or any subject) as they happen, or read PUB from the beginning.

An operator reads the bus; with `--key` (or `--api`) a customer reads the account's own events over HTTP.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, cast

import msgspec
import typer
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError

from libs.embedded.state import State
from services.cli import output
from services.cli.exits import USAGE, Exit, words_of
from services.cli.running import DEFAULT_DATA_DIR, DataDir, running_state
from services.cli.stream import Account, After, ApiKey, ApiUrl, EventTypes, account_of, follow

app = typer.Typer(no_args_is_help=True, help="Watch events.")
CONNECT_TIMEOUT_S = 5
PUBLIC_EVENTS = "pub.>"
# Said by the line already, or of no use to a person; --json gives all of it.
NOT_TOLD = frozenset({"id", "type", "account_id", "instance_id"})


@app.callback()
def events() -> None:
    """Watch events."""


@app.command("tail")
def tail(
    subject: Annotated[str, typer.Option(help="Subjects to hear, with wildcards.")] = PUBLIC_EVENTS,
    from_start: Annotated[
        bool, typer.Option("--all", metavar=output.FLAG, help="Begin with the oldest stored event.")
    ] = False,
    count: Annotated[int, typer.Option(min=0, help="End after this many; 0: never.")] = 0,
    events: EventTypes = "",
    after: After = "now",
    api: ApiUrl = "",
    key: ApiKey = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: output.AsJson = False,
) -> None:
    """Print events, one per line, until Ctrl-C; with --json each is an object.

    With --key or --api those of one account, as its webhooks tell them; --events and --after are for these.

    Else all of the platform running here, with subject, id, type, time and data.
    """
    if api or key:
        if subject != PUBLIC_EVENTS:
            raise Exit("--subject is for the operator; with --key or --api choose by --events", USAGE)
        _tail_account(account_of(api, key, data_dir), events, "start" if from_start else after, count, json=json)
        return
    if events or after != "now":
        raise Exit("--events and --after go with --key; an operator chooses by --subject and --all", USAGE)
    state = running_state(data_dir)
    try:
        asyncio.run(_tail(state, subject, from_start=from_start, count=count, json=json))
    except KeyboardInterrupt:
        pass
    except (NatsError, JetStreamError, OSError) as error:
        raise Exit(f"NATS: {words_of(error)}") from error


def _tail_account(account: Account, types: str, after: str, count: int, *, json: bool) -> None:
    output.warn(f"listening to {account.url}")
    try:
        for number, (_, data) in enumerate(follow(account, types=types, after=after), 1):
            if json:
                output.tell(data.decode())
            else:
                event = msgspec.json.decode(data)
                _print_line(event["timestamp"], event["type"], event["data"])
            if number == count:
                return
    except KeyboardInterrupt:
        return


async def _tail(state: State, subject: str, *, from_start: bool, count: int, json: bool) -> None:
    heard: asyncio.Queue[Msg] = asyncio.Queue()
    client: Any = Client()  # its keyword arguments are untyped
    await client.connect(state.nats_url, connect_timeout=CONNECT_TIMEOUT_S, max_reconnect_attempts=-1)
    try:
        if from_start:
            await client.jetstream().subscribe(subject, cb=heard.put, ordered_consumer=True)
        else:
            await client.subscribe(subject, cb=heard.put)
            await client.flush()
        output.warn(f"listening on {subject}")
        printed = 0
        while count == 0 or printed < count:
            _print(await heard.get(), json=json)
            printed += 1
    finally:
        await client.close()


def _print(message: Msg, *, json: bool) -> None:
    event = described(message.subject, message.headers or {}, message.data)
    if json:
        output.as_json(event)
        return
    _print_line(event["time"], event["type"] or event["subject"], event["data"])


def _print_line(time: str, kind: str, data: Any) -> None:
    output.tell(f"{time:<24}  {kind:<28}  {facts_line(data)}")


def facts_line(data: Any) -> str:
    """Whom it is about, and what a person wants to know of it."""
    if not isinstance(data, dict):
        return msgspec.json.encode(data).decode()
    facts = cast("dict[str, Any]", data)
    who = facts.get("instance_id", "")
    unsaid = NOT_TOLD | {"name"} if facts.get("name") == who else NOT_TOLD  # one without a name is called by its id
    return "  ".join(part for part in (who, output.facts_of(facts, but=unsaid)) if part)


def described(subject: str, headers: dict[str, str], data: bytes) -> dict[str, Any]:
    """An event as one object; data that is not JSON comes as text."""
    try:
        body = msgspec.json.decode(data) if data else None
    except msgspec.DecodeError:
        body = data.decode(errors="replace")
    return {
        "subject": subject,
        "id": headers.get("ce-id", ""),
        "type": headers.get("ce-type", ""),
        "time": headers.get("ce-time", ""),
        "data": body,
    }
