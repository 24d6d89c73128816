"""One HTTP request to the platform's API or to the sandbox cloud, with the stored key.

The standard library's client: a verb sends one request, and a better client takes 300 ms to import.
"""

from __future__ import annotations

import http.client
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from msgspec import Struct

from libs.embedded.state import State
from services.cli.exits import NOT_RUNNING, Exit, NotThere

TIMEOUT_S = 75.0  # a verb with --wait may be answered after 60 s
BODY_BYTES_MAX = 16 * 1024 * 1024


class _Problem(Struct, frozen=True):
    """What the sandbox cloud says, and what the platform says inside `error`."""

    code: str
    message: str = ""
    detail: str = ""


class _Enveloped(Struct, frozen=True):
    error: _Problem


class Api:
    """Requests to one base address with one bearer key."""

    def __init__(self, base_url: str, key: str) -> None:
        address = urlsplit(base_url)
        self._base_url = base_url
        self._host = address.hostname or ""
        self._port = address.port or 80
        self._path = address.path
        self._headers = {"Authorization": f"Bearer {key}", "Accept": "application/json", "Accept-Language": "en"}

    def ask(self, method: str, path: str, *, query: dict[str, Any] | None = None, body: Any = None) -> Any:
        """The decoded body of a 2xx answer. Exits with the answer's own words otherwise."""
        chosen = {name: value for name, value in (query or {}).items() if value not in (None, "")}
        target = self._path + quote(path) + ("?" + urlencode(chosen) if chosen else "")
        headers = dict(self._headers)
        payload = None
        if body is not None:
            payload = msgspec.json.encode(body)
            headers["Content-Type"] = "application/json"
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        try:
            connection.request(method, target, payload, headers)
            response = connection.getresponse()
            answer = response.read(BODY_BYTES_MAX)
        except OSError as error:
            raise Exit(f"{self._base_url} does not answer: {error}", NOT_RUNNING) from error
        finally:
            connection.close()
        if response.status >= 300:
            kind = NotThere if response.status == 404 else Exit
            raise kind(f"{method} {path}: {response.status} {problem_words(answer)}")
        return _decoded(answer)


def platform_api(state: State) -> Api:
    return Api(state.api_url + "/api/v1", state.api_key)


def data_of(answer: Any) -> Any:
    """What an answer of the Dumont dialect is about, without its envelope."""
    try:
        return answer["data"]
    except (KeyError, TypeError, IndexError):
        return answer


def _decoded(answer: bytes) -> Any:
    return msgspec.json.decode(answer) if answer else None


def problem_words(answer: bytes) -> str:
    """Code and message of an error body; both spellings of ours, or the beginning of anything else."""
    for wanted in (_Enveloped, _Problem):
        try:
            found = msgspec.json.decode(answer, type=wanted)
        except (msgspec.DecodeError, msgspec.ValidationError):
            continue
        problem = found.error if isinstance(found, _Enveloped) else found
        return " ".join(word for word in (problem.code, problem.message, problem.detail) if word)
    return answer[:200].decode(errors="replace")
