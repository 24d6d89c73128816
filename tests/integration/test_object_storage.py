"""Object storage over HTTP: requests are signed as AWS publishes it, and a listing is read to its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import aiohttp
import pytest
from aiohttp import web

from libs.config import Secret
from libs.s3 import LIST_PAGE, Bucket, Objects, presign, signed_headers

NOW = datetime(2013, 5, 24, tzinfo=UTC)
# From AWS, "Authenticating Requests". Its server names the bucket by host: here the object plays the bucket.
PUBLISHED = ("AKIAIOSFODNN7EXAMPLE", Secret("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"))
PUBLISHED_URL = "https://examplebucket.s3.amazonaws.com"


def test_a_presigned_url_has_the_signature_that_aws_publishes() -> None:
    url = presign(Bucket(PUBLISHED_URL, "test.txt", *PUBLISHED), "GET", "", now=NOW, valid_s=86_400)
    signature = "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    assert url.startswith(f"{PUBLISHED_URL}/test.txt?")
    assert url.endswith(f"&X-Amz-Signature={signature}")


def test_a_request_of_our_own_has_the_signature_that_aws_publishes() -> None:
    bucket, query = Bucket(PUBLISHED_URL, "", *PUBLISHED), {"max-keys": "2", "prefix": "J"}
    headers = signed_headers(bucket, "GET", "", query=query, body=b"", now=NOW)
    signature = "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
    assert headers["Authorization"].endswith(f"Signature={signature}")


@pytest.fixture
async def long_listing() -> AsyncIterator[tuple[Objects, list[str]]]:
    """Two full pages, each many times what one read of a socket brings."""
    keys = [f"instances/inst_1/packs/{number:04}-{'x' * 600}" for number in range(2 * LIST_PAGE)]

    async def listed(request: web.Request) -> web.Response:
        first = int(request.query.get("continuation-token", "0"))
        page = keys[first : first + LIST_PAGE]
        after = first + len(page)
        more = f"<NextContinuationToken>{after}</NextContinuationToken>" if after < len(keys) else ""
        contents = "".join(f"<Contents><Key>{key}</Key></Contents>" for key in page)
        return web.Response(text=f"<ListBucketResult>{contents}{more}</ListBucketResult>", content_type="text/xml")

    application = web.Application()
    application.router.add_get("/snapshots", listed)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as http:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield Objects(Bucket(url, "snapshots", *PUBLISHED), http), keys
    await runner.cleanup()


async def test_a_listing_is_read_to_its_end(long_listing: tuple[Objects, list[str]]) -> None:
    objects, keys = long_listing
    assert await objects.list("instances/inst_1/", NOW) == keys
