"""What the agent is told when it starts. Read by `program`; the environment is handed in by whoever starts it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Struct

from libs.config import Secret, setting

VERSION = "1.0.0"
URL_CHARS_MAX = 2_000
# The gateway may ask for another pace, within these.
INTERVAL_MIN_S, INTERVAL_MAX_S = 1.0, 300.0


class AgentSettings(Struct, frozen=True):
    """One agent, one machine, one instance."""

    gateway_url: Annotated[str, setting("where heartbeats go", example="http://127.0.0.1:3000")]
    instance_id: Annotated[str, setting("the instance this machine carries", example="inst_abc123")]
    agent_gateway_file: Annotated[
        str, setting("file that says where heartbeats go now; read each time, before gateway_url", unit="path")
    ] = ""
    agent_token: Annotated[Secret, setting("the machine's token; or name a file that holds it")] = Secret("")
    agent_token_file: Annotated[str, setting("file with the token, read at every start", unit="path")] = ""
    agent_interval_s: Annotated[
        float, setting("pause between heartbeats", unit="s", ge=INTERVAL_MIN_S, le=INTERVAL_MAX_S)
    ] = 30.0
    agent_dir: Annotated[str, setting("where the agent keeps its status", unit="path")] = "."
    agent_workspace: Annotated[str, setting("the customer's files; their disk is reported", unit="path")] = "/workspace"
    agent_restore: Annotated[str, setting("the snapshot that this machine is to be filled from; empty: none")] = ""
    agent_start_command: Annotated[
        str, setting("the customer's command, run when the files are there and this machine carries the instance")
    ] = ""
    agent_start_env: Annotated[str, setting("the customer's variables for it, one JSON object")] = ""
    agent_gpu_file: Annotated[
        str, setting("file with the GPUs' readings where there is no driver to ask, read each time", unit="path")
    ] = ""
    agent_scope: Annotated[
        Literal["host", "parent"],
        setting("whose processes are the machine's: the whole host's, or those of the process that started the agent"),
    ] = "host"


def gateway_of(settings: AgentSettings) -> str:
    """Where the gateway is now. It may have moved since the machine was ordered."""
    if settings.agent_gateway_file:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            with Path(settings.agent_gateway_file).open(encoding="utf-8") as told:
                url = told.read(URL_CHARS_MAX).strip()
            if url.startswith(("http://", "https://")):
                return url.rstrip("/")
    return settings.gateway_url.rstrip("/")


class NoToken(Exception):
    """The agent has nothing to prove itself with."""


def token_of(settings: AgentSettings) -> str:
    """The token, from the environment or its file. Raises NoToken."""
    token = settings.agent_token.reveal()
    if not token and settings.agent_token_file:
        token = Path(settings.agent_token_file).read_text().strip()
    if not token:
        raise NoToken("neither DUMONT_AGENT_TOKEN nor DUMONT_AGENT_TOKEN_FILE gives a token")
    return token
