"""A small client for S3-compatible object storage: signs requests (AWS Signature Version 4) and presigns URLs.

Called by `services.instance.storage`; machines use the presigned URLs it makes and never see a key. Knows whole
objects only (put, get, delete, list by prefix): what is larger than one object is cut up by its owner. Path-style
addresses, because local and self-hosted servers have no name per bucket. Source of the algorithm: AWS documentation,
"Authenticating Requests (AWS Signature Version 4)"; tested against its published example.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, TypeAlias
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree  # parsed text comes from our own storage server

import aiohttp
from msgspec import Struct
from yarl import URL

from libs.bodies import read_at_most
from libs.config import Secret
from libs.refusal import Transient

Method: TypeAlias = Literal["GET", "PUT", "DELETE"]
ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
PRESIGNED_S_MAX = 7 * 24 * 3600  # S3's own limit
LIST_PAGE = 1000  # S3's own limit
LIST_PAGES_MAX = 100
BODY_BYTES_MAX = 64 * 1024 * 1024
TIMEOUT_S = 60.0
NOT_FOUND = 404


class Bucket(Struct, frozen=True):
    """One bucket of one server, and who we are there."""

    url: str
    name: str
    access_key: str
    secret_key: Secret
    region: str = "us-east-1"

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    def path(self, key: str) -> str:
        base = urlsplit(self.url).path.rstrip("/")
        return f"{base}/{_escaped(self.name)}" + (f"/{quote(key, safe='/~')}" if key else "")


def presign(bucket: Bucket, method: Method, key: str, *, now: datetime, valid_s: int) -> str:
    """A URL with which anybody may do this one thing to this one object until it expires."""
    assert 0 < valid_s <= PRESIGNED_S_MAX, "S3 allows at most seven days"
    query = {
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{bucket.access_key}/{_scope(bucket, now)}",
        "X-Amz-Date": _instant(now),
        "X-Amz-Expires": str(valid_s),
        "X-Amz-SignedHeaders": "host",
    }
    request = _Request(method, bucket.path(key), query, {"host": bucket.host}, UNSIGNED)
    signature = _signature(bucket, request, now)
    scheme = urlsplit(bucket.url).scheme
    return f"{scheme}://{bucket.host}{bucket.path(key)}?{_query(query)}&X-Amz-Signature={signature}"


def signed_headers(
    bucket: Bucket, method: Method, key: str, *, query: Mapping[str, str], body: bytes, now: datetime
) -> dict[str, str]:
    """The headers of one request of our own."""
    digest = hashlib.sha256(body).hexdigest()
    headers = {"host": bucket.host, "x-amz-content-sha256": digest, "x-amz-date": _instant(now)}
    signature = _signature(bucket, _Request(method, bucket.path(key), query, headers, digest), now)
    names = ";".join(sorted(headers))
    said = f"Credential={bucket.access_key}/{_scope(bucket, now)}, SignedHeaders={names}, Signature={signature}"
    return {**headers, "Authorization": f"{ALGORITHM} {said}"}


class Objects:
    """The objects of one bucket. Every call raises Transient when the server cannot be reached or is unwell."""

    def __init__(self, bucket: Bucket, session: aiohttp.ClientSession) -> None:
        self.bucket = bucket
        self._session = session

    async def make_bucket(self, now: datetime) -> None:
        """Idempotent: a bucket that is there stays as it is."""
        status, _ = await self._ask("PUT", "", now)
        if status not in (200, 204, 409):
            raise Transient(f"storage answered {status} when asked for its bucket")

    async def get(self, key: str, now: datetime) -> bytes | None:
        """None when there is no such object."""
        status, body = await self._ask("GET", key, now)
        if status == NOT_FOUND:
            return None
        _expect(status, "GET")
        return body

    async def put(self, key: str, body: bytes, now: datetime) -> None:
        status, _ = await self._ask("PUT", key, now, body=body)
        _expect(status, "PUT")

    async def delete(self, key: str, now: datetime) -> None:
        """Deleting what is not there is fine."""
        status, _ = await self._ask("DELETE", key, now)
        if status != NOT_FOUND:
            _expect(status, "DELETE")

    async def list(self, prefix: str, now: datetime) -> Sequence[str]:
        """All keys that begin with `prefix`, at most LIST_PAGE * LIST_PAGES_MAX."""
        keys: list[str] = []
        token = ""
        for _ in range(LIST_PAGES_MAX):
            query = {"list-type": "2", "prefix": prefix, "max-keys": str(LIST_PAGE)}
            if token:
                query["continuation-token"] = token
            status, body = await self._ask("GET", "", now, query=query)
            if status == NOT_FOUND:
                return keys
            _expect(status, "LIST")
            page, token = _listed(body)
            keys += page
            if not token:
                break
        return keys

    async def _ask(
        self, method: Method, key: str, now: datetime, *, query: Mapping[str, str] | None = None, body: bytes = b""
    ) -> tuple[int, bytes]:
        bucket, query = self.bucket, query or {}
        url = f"{urlsplit(bucket.url).scheme}://{bucket.host}{bucket.path(key)}"
        if query:
            url += f"?{_query(query)}"
        headers = signed_headers(bucket, method, key, query=query, body=body, now=now)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        try:
            async with self._session.request(
                method, URL(url, encoded=True), data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as answer:
                return answer.status, await read_at_most(answer, BODY_BYTES_MAX)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Transient(f"storage cannot be reached: {type(error).__name__}") from error


def _expect(status: int, what: str) -> None:
    if not 200 <= status < 300:
        raise Transient(f"storage answered {status} to {what}")


def _listed(body: bytes) -> tuple[list[str], str]:
    root = ElementTree.fromstring(body)  # noqa: S314 - from the storage server we are configured with
    space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
    keys = [element.text or "" for element in root.iter(f"{space}Key")]
    return keys, root.findtext(f"{space}NextContinuationToken") or ""


class _Request(Struct, frozen=True):
    method: Method
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    payload: str  # digest of the body

    @property
    def canonical(self) -> str:
        names = sorted(self.headers)
        lines = "".join(f"{name}:{self.headers[name]}\n" for name in names)
        return "\n".join([self.method, self.path, _query(self.query), lines, ";".join(names), self.payload])


def _signature(bucket: Bucket, request: _Request, now: datetime) -> str:
    digest = hashlib.sha256(request.canonical.encode()).hexdigest()
    text = "\n".join([ALGORITHM, _instant(now), _scope(bucket, now), digest])
    key = f"AWS4{bucket.secret_key.reveal()}".encode()
    for part in (f"{now:%Y%m%d}", bucket.region, "s3", "aws4_request"):
        key = _hmac(key, part)
    return _hmac(key, text).hex()


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def _scope(bucket: Bucket, now: datetime) -> str:
    return f"{now:%Y%m%d}/{bucket.region}/s3/aws4_request"


def _instant(now: datetime) -> str:
    return f"{now:%Y%m%dT%H%M%SZ}"


def _query(query: Mapping[str, str]) -> str:
    return "&".join(f"{_escaped(name)}={_escaped(query[name])}" for name in sorted(query))


def _escaped(text: str) -> str:
    return quote(text, safe="~")
