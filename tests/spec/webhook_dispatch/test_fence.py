"""The fence, purely: over a hundred spellings of addresses that must not be dialled, and some that may."""

from __future__ import annotations

import pytest

from services.webhook_dispatch.effects.address import LOOPBACK, PUBLIC, UNKNOWN, classify, classify_host
from services.webhook_dispatch.effects.fence import Fence, NotAllowed

PRODUCTION = Fence([], is_loopback_allowed=False, is_http_allowed=False)
CLOSED = Fence(["10.1.0.0/16"], is_loopback_allowed=True, is_http_allowed=True, is_public_allowed=False)
DEVELOPERS = Fence([], is_loopback_allowed=True, is_http_allowed=True)
# Addresses as a socket is given them.
INSIDE = """
0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 127.0.0.1 127.255.255.254 169.254.169.254
169.254.170.2 168.63.129.16 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.8 192.0.0.170 192.0.2.1 192.31.196.1
192.52.193.1 192.88.99.1 192.168.0.1 192.168.255.255 192.175.48.1 198.18.0.1 198.19.255.255 198.51.100.7
203.0.113.9 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
:: ::1 ::127.0.0.1 ::10.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:7f00:1
::ffff:0:127.0.0.1 64:ff9b::127.0.0.1 64:ff9b::10.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b:1::1 64:ff9b:1:ffff::7f00:1
100::1 100:0:0:1::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:2::1 2001:10::1 2001:20::1 2001:1ff::1
2001:db8::1 2002:7f00:1:: 2002:a00:1:: 2002:a9fe:a9fe::1 2002:808:808::1 2620:4f:8000::1 3fff::1 3fff:fff::1
5f00::1 fc00::1 fd00:ec2::254 fdff::1 fe80::1 fe80::1%eth0 febf::1 fec0::1 ff02::1 ff0e::1 4000::1 8000::1 e000::1
1::1 200::1
""".split()
# Hosts of URLs in the spellings that resolvers or browsers take for addresses.
SPELLED = """
localhost LOCALHOST localhost. foo.localhost 127.1 127.0.1 127.0.0.1. 2130706433 017700000001 0177.0.0.1 0x7f000001
0x7f.0.0.1 0x7f.1 0X7F.0x0.0.0x1 00.0.0.0 0 0x0 0x 10.1 012.1 167772161 0xa9fea9fe 2852039166 0251.0376.0251.0376
169.254.43518 192.168.257 3232235777 \u2460\u2461\u2466.\u24ea.\u24ea.\u2460 \uff11\uff12\uff17.\uff10.\uff10.\uff11
127\u30020\u30020\u30021 [::1] [::ffff:7f00:1] [fe80::1%25eth0]
[::] [0:0:0:0:0:0:0:1] [::ffff:0x7f.1]
""".split()
OUTSIDE = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.1 100.63.255.255 100.128.0.1 126.255.255.255 128.0.0.1 172.15.255.255 172.32.0.1
192.167.255.255 198.17.255.255 198.20.0.1 223.255.255.255 2606:4700:4700::1111 2a00:1450:4001::1 ::ffff:8.8.8.8
64:ff9b::808:808 2001:4860:4860::8888 2400::1
""".split()


def test_the_corpus_is_large() -> None:
    assert len(INSIDE) + len(SPELLED) >= 100


@pytest.mark.parametrize("address", INSIDE)
def test_a_special_purpose_address_is_not_dialled(address: str) -> None:
    assert classify(address) not in (PUBLIC, UNKNOWN)
    assert PRODUCTION.refusal(address)


@pytest.mark.parametrize("host", SPELLED)
def test_a_url_with_a_disguised_address_is_refused(host: str) -> None:
    assert classify_host(host.strip("[]")) != PUBLIC
    assert PRODUCTION.url_refusal(f"https://{host}/hook")


@pytest.mark.parametrize("address", OUTSIDE)
def test_a_public_address_is_dialled(address: str) -> None:
    assert classify(address) == PUBLIC
    assert not PRODUCTION.refusal(address)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "http://example.com/",
        "https://user@example.com/", "https://user:pass@example.com/", "https://example.com:22/", "https:///x",
        "https://example.com:99999/", "https://exa mple.com/", "https://example.com/\n", "https://127.0.0.1#@example.com/",
        "https://example.com@127.0.0.1/", "//example.com/", "https://[::1", "",
    ],
)  # fmt: skip
def test_a_url_that_is_not_a_receivers_is_refused(url: str) -> None:
    assert PRODUCTION.url_refusal(url)


@pytest.mark.parametrize(
    "url", ["https://example.com/hook", "https://8.8.8.8:8443/", "https://[2606:4700::1111]/x?y=1"]
)
def test_a_receivers_url_is_taken(url: str) -> None:
    assert PRODUCTION.url_refusal(url) == ""


def test_a_developers_platform_delivers_to_loopback_and_to_nothing_else_inside() -> None:
    assert DEVELOPERS.url_refusal("http://127.0.0.1:3001/webhook") == ""
    assert DEVELOPERS.url_refusal("http://localhost:3001/webhook") == ""
    assert DEVELOPERS.refusal("::1") == ""
    assert DEVELOPERS.refusal("10.0.0.1")
    assert classify("127.0.0.1") == classify("::ffff:127.0.0.1") == LOOPBACK


def test_the_operator_may_list_networks_of_his_own() -> None:
    fence = Fence(["10.1.0.0/16", "fd00::/8"], is_loopback_allowed=False, is_http_allowed=False)
    assert fence.refusal("10.1.2.3") == "" and fence.url_refusal("http://10.1.2.3/") == ""
    assert fence.refusal("fd00::1") == ""
    assert fence.refusal("10.2.0.1")


@pytest.mark.parametrize("address", INSIDE)
def test_no_socket_is_made_for_what_may_not_be_dialled(address: str) -> None:
    with pytest.raises(NotAllowed):
        PRODUCTION.socket_factory()((2, 1, 6, "", (address, 443)))


def test_a_closed_site_dials_only_what_is_listed() -> None:
    assert CLOSED.refusal("93.184.215.14") == "public"
    assert CLOSED.refusal("10.1.2.3") == ""
    assert CLOSED.refusal("127.0.0.1") == ""
