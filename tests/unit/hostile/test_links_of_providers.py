"""A link from a provider's reply reaches nothing but the provider, whatever its name resolves to. A listener on this
machine counts who comes."""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
import respx
from app.ai_clients.errors import Refused
from app.ai_clients.http.client import free_client, guarded_client
from app.ai_clients.tripo.api import Pace, TripoApi
from app.ai_clients.tripo.client import TripoModels
from app.ai_clients.tripo.downloads import Hosts
from app.domain.addresses import is_public, parse_address
from app.errors import ErrorCode

from tests.unit.ai_clients.support import TRIPO_BASE, file_input, make_settings


@pytest.fixture(scope="module")
def context() -> ssl.SSLContext:
    return ssl.create_default_context()


@dataclass
class Listener:
    port: int
    connections: int = 0


@asynccontextmanager
async def listener() -> AsyncGenerator[Listener]:
    """Answers anybody with a redirect to itself and counts them."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.connections += 1
        await reader.read(65_536)
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        found = Listener(server.sockets[0].getsockname()[1])
        yield found


@pytest.mark.parametrize(
    "text",
    [
        *("127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
        *("0.0.0.0", "255.255.255.255", "224.0.0.1", "240.0.0.1", "198.18.0.1", "192.0.0.192", "192.0.2.1"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1", "2001:db8::1"),
        # addresses that stand for one of the above
        *("::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1"),
        *("2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:7f00:1::"),
    ],
)
def test_addresses_inside(text: str) -> None:
    address = parse_address(text)
    assert address is not None
    assert not is_public(address)


@pytest.mark.parametrize(
    "text",
    ["8.8.8.8", "104.18.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::"],
)
def test_addresses_outside(text: str) -> None:
    assert is_public(ip_address(text))


def test_names_are_no_addresses() -> None:
    for name in ("localhost", "2130706433", "0x7f.1", "127.1", "017700000001", "evil.example", ""):
        assert parse_address(name) is None


# spellings that a resolver takes for 127.0.0.1, and names that have that address
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "127.0.1"])
async def test_names_that_lead_inside_are_not_connected_to(context: ssl.SSLContext, host: str) -> None:
    async with listener() as inside:
        url = f"http://{host}:{inside.port}/"
        async with guarded_client(context, timeout_seconds=5, loopback_too=False) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(url)
        assert inside.connections == 0
        # the listener counts: to a client without the guard the name is as good as any
        async with free_client(context, timeout_seconds=5) as client:
            assert (await client.get(url)).status_code == 302
        assert inside.connections == 1  # and no redirect was followed


async def test_a_stand_in_on_this_machine_can_be_reached(context: ssl.SSLContext) -> None:
    async with listener() as inside, guarded_client(context, timeout_seconds=5, loopback_too=True) as client:
        assert (await client.get(f"http://localhost:{inside.port}/")).status_code == 302
        with pytest.raises(httpx.ConnectError):
            await client.get("http://10.255.255.1/")


async def test_a_name_that_does_not_exist_is_an_unreachable_one(context: ssl.SSLContext) -> None:
    async with guarded_client(context, timeout_seconds=5, loopback_too=False) as client:
        for name in ("no-such-name.invalid", "a..b", f"{'x' * 70}.example"):
            with pytest.raises(httpx.ConnectError):
                await client.get(f"https://{name}/")


async def test_a_listed_host_that_resolves_to_this_machine_is_not_fetched(
    context: ssl.SSLContext, tmp_path: Path
) -> None:
    """The allow-list speaks of names; what a name leads to is the business of whoever runs its DNS."""
    tripo = TripoModels(make_settings(tripo_download_hosts="localhost"), context)
    async with listener() as inside:
        for link in ("https://localhost/x", f"https://localhost:{inside.port}/x", f"http://localhost:{inside.port}/x"):
            with pytest.raises(Refused):
                await tripo.download(link, tmp_path / "model", max_bytes=1024)
        assert inside.connections == 0
    await tripo.aclose()


UPLOAD_LINKS = [
    *("https://127.0.0.1/x", "https://[::1]/x", "https://169.254.169.254/latest", "https://10.0.0.1/x"),
    *("https://[::ffff:127.0.0.1]/x", "https://[fd00:ec2::254]/x", "https://2130706433/x", "https://localhost/x"),
    *("https://metadata.google.internal/x", "https://metadata.google.internal./x", "https://host.local/x"),
    *("https://bucket.s3.example:8443/x", "http://bucket.s3.example/x", "ftp://bucket.s3.example/x", "file:///x"),
    *(
        "https://user:secret@bucket.s3.example/x",
        "https://project@evil.example/x",
        "//bucket.s3.example/x",
        "gopher://x",
    ),
]


@pytest.mark.parametrize("link", UPLOAD_LINKS)
async def test_files_are_sent_to_no_such_link(context: ssl.SSLContext, tmp_path: Path, link: str) -> None:
    settings = make_settings()
    tripo = TripoApi(settings, context, Hosts(settings), Pace(base=0.001, cap=0.01))
    large = file_input(tmp_path / "large.glb", b"glTF", "model/gltf-binary")
    with large.path.open("r+b") as sink:
        sink.truncate(60 * 1024 * 1024)  # large ones go by a signed link
    with respx.mock(assert_all_called=False) as routes:
        presign = routes.post(f"{TRIPO_BASE}/files/presign").respond(
            json={"code": 0, "data": {"presigned_url": link, "file_token": "t"}}
        )
        anywhere = routes.route().respond(200)
        with pytest.raises(Refused) as caught:
            await tripo.upload(large, is_model=True)
    assert presign.call_count == 1
    assert anywhere.call_count == 0
    assert caught.value.code is ErrorCode.PROVIDER_UNAVAILABLE
    assert link not in str(caught.value)
    await tripo.aclose()


# --- what a reply may unpack to ---------------------------------------------------------------------------------


def packed(times: int) -> bytes:
    """Zeros that every unpacking makes about a thousand times as many."""
    content = bytes(32 * 1024 * 1024)
    for _ in range(times):
        packer = zlib.compressobj(9, wbits=31)
        content = packer.compress(content) + packer.flush()
    return content


@asynccontextmanager
async def serving(content: bytes, encoding: str) -> AsyncGenerator[str]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(content)}\r\n\r\n"
        writer.write(head.encode() + content)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


@pytest.mark.parametrize("encoding", ["gzip, gzip", "gzip,gzip,gzip", "identity, gzip, gzip", "br, gzip"])
async def test_a_coding_inside_a_coding_stays_packed(context: ssl.SSLContext, encoding: str) -> None:
    content = packed(2)
    async with serving(content, encoding) as url, free_client(context, timeout_seconds=5) as client:
        assert (await client.get(url)).content == content


async def test_one_coding_is_unpacked(context: ssl.SSLContext) -> None:
    async with serving(packed(1)[:40_000], "gzip") as url, free_client(context, timeout_seconds=5) as client:
        assert len((await client.get(url)).content) > 1_000_000
