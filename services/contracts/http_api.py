"""`proto/generated/openapi.json`: the gateway's own description of its route table, as text."""

from __future__ import annotations

import json

from services.gateway.openapi_document import openapi_document


def open_api() -> str:
    return json.dumps(openapi_document(), indent=2, ensure_ascii=False) + "\n"
