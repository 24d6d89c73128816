"""`webhooks listen`: what a webhook would be sent, to a program on this machine that no platform can reach.

Follows the account's event stream and POSTs each event as a webhook is posted: the same body, signed with a secret that
is printed at the start. A delivery that fails is told and not repeated: this is for writing a receiver.
"""

from __future__ import annotations

import base64
import http.client
import secrets
import time
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
import typer

from libs.clock import SystemClock
from libs.ids import derive_id
from libs.signing import SECRET_PREFIX, Keys, keys_of, signed_headers
from services.cli import output
from services.cli.exits import USAGE, Exit
from services.cli.running import DEFAULT_DATA_DIR, DataDir
from services.cli.stream import After, ApiKey, ApiUrl, EventTypes, account_of, follow

app = typer.Typer(no_args_is_help=True, help="Try out webhooks.")
SECRET_BYTES = 32
ATTEMPT_TIMEOUT_S = 15.0  # as long as the platform waits
ANSWER_BYTES_MAX = 16 * 1024
SHOWN_CHARS_MAX = 120


@app.callback()
def webhooks() -> None:
    """Try out webhooks."""


@dataclass(frozen=True)
class Receiver:
    """A program that wants to hear: where it is, and what signs."""

    url: str
    keys: Keys

    def post(self, event_id: str, event_type: str, body: bytes) -> dict[str, Any]:
        """What came of it: `status_code` and the answer's first words, or `error`."""
        address = urlsplit(self.url)
        kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
        headers = signed_headers(
            derive_id("msg", "listen", event_id),
            event_type,
            body,
            timestamp_s=int(SystemClock().now().timestamp()),
            keys=self.keys,
        )
        target = (address.path or "/") + (f"?{address.query}" if address.query else "")
        connection = kind(address.hostname or "", address.port, timeout=ATTEMPT_TIMEOUT_S)
        began_s = time.monotonic()
        try:
            connection.request("POST", target, body, headers)
            response = connection.getresponse()
            words = response.read(ANSWER_BYTES_MAX).decode(errors="replace")
            outcome: dict[str, Any] = {"status_code": response.status, "response": words[:SHOWN_CHARS_MAX]}
        except (OSError, http.client.HTTPException) as error:
            outcome = {"error": f"{type(error).__name__}: {error}"}
        finally:
            connection.close()
        return {"took_ms": round((time.monotonic() - began_s) * 1000), **outcome}


@app.command("listen")
def listen(
    forward_to: Annotated[str, typer.Option(help="URL of the receiver, e.g. http://localhost:3001/webhook.")],
    events: EventTypes = "",
    after: After = "now",
    secret: Annotated[str, typer.Option(help="What signs; default: one is made and printed.")] = "",
    count: Annotated[int, typer.Option(min=0, help="End after this many; 0: never.")] = 0,
    api: ApiUrl = "",
    key: ApiKey = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: output.AsJson = False,
) -> None:
    """Forward the account's events to a local URL, signed, until Ctrl-C; prints what it answers."""
    address = urlsplit(forward_to)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise Exit(f"{forward_to} is no http or https URL", USAGE)
    account = account_of(api, key, data_dir)
    signs = secret or SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
    receiver = Receiver(forward_to, keys_of(signs))
    if json:
        output.as_json({"listening": account.url, "forward_to": forward_to, "secret": signs})
    else:
        output.tell(f"signing with {signs}")
        output.tell(f"forwarding events of {account.url} to {forward_to}")
    try:
        for number, (event_id, body) in enumerate(follow(account, types=events, after=after), 1):
            event_type = str(msgspec.json.decode(body)["type"])
            _show(event_id, event_type, receiver.post(event_id, event_type, body), json=json)
            if number == count:
                return
    except KeyboardInterrupt:
        return


def _show(event_id: str, event_type: str, outcome: dict[str, Any], *, json: bool) -> None:
    if json:
        output.as_json({"id": event_id, "type": event_type, **outcome})
        return
    said = outcome.get("error") or f"{outcome['status_code']} {outcome['response']}"
    output.tell(f"{event_type:<28}  {event_id}  {outcome['took_ms']:>5} ms  {said.splitlines()[0]}")
