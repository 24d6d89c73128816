"""URLs that customers give us to call: checked for credentials, and what of them may be a secret sealed at the edge.

Called by the routes that take one. What a query says (`?token=…`) and what of a path is no word leaves the gateway
sealed; the service that calls the URL opens it (libs/sealed_urls.py).
"""

from __future__ import annotations

from urllib.parse import urlsplit

from libs.refusal import Refused
from libs.sealed_urls import HIDDEN, hidden
from libs.sealing import Sealer
from proto.webhook_dispatch.words import SECRET_PURPOSE
from services.gateway.call import Call
from services.gateway.validation import refuse


def receiver_url(call: Call, field: str, url: str | None) -> str:
    """As it goes on the bus; empty for none. Refused with a user name or a password."""
    if not url:
        return ""
    try:
        has_userinfo = "@" in urlsplit(url).netloc
    except ValueError:
        refuse(field, "it is not a URL")
    if has_userinfo:
        raise Refused("WEBHOOK_URL_REFUSED", reason="a user name or password in the URL is not sent; use the secret")
    if HIDDEN in url:
        refuse(field, f"{HIDDEN} stands for what is not shown; send the whole URL, or leave it out")
    sealer = Sealer(call.gateway.settings.secret.reveal(), purpose=SECRET_PURPOSE)
    return hidden(url, sealer, owner=call.account_id)
