"""How tools are reached: which URL leads where, and what is told when nobody answers there or it is somebody else."""

import asyncio
import datetime
import socket
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.edges.test_http1_upstream import OK, Tool, called, failure, get

from whygate.core.reasons import Code
from whygate.transport import upstream as module
from whygate.transport.upstream import Origin, _split


@pytest.mark.parametrize(
    ("url", "origin", "host", "target"),
    [
        ("http://tool", Origin(False, "tool", 80), "tool", "/"),
        ("https://Tool/", Origin(True, "tool", 443), "Tool", "/"),
        ("http://tool:81/a%2fb//c/../%E4", Origin(False, "tool", 81), "tool:81", "/a%2fb//c/../%E4"),
        ("http://tool?a=/b?c", Origin(False, "tool", 80), "tool", "/?a=/b?c"),
        ("http://tool/x?", Origin(False, "tool", 80), "tool", "/x?"),
        ("http://tool/x?a#b/c", Origin(False, "tool", 80), "tool", "/x?a"),
        ("http://tool#b/c", Origin(False, "tool", 80), "tool", "/"),
        ("http://user:word@tool:81/x", Origin(False, "tool", 81), "tool:81", "/x"),
        ("http://[::1]:81/x", Origin(False, "::1", 81), "[::1]:81", "/x"),
        ("http://[::1]", Origin(False, "::1", 80), "[::1]", "/"),
    ],
)
def test_a_url_is_sent_as_it_stands(url: str, origin: Origin, host: str, target: str) -> None:
    """Nothing is normalised but where it leads to; no credential in it goes anywhere."""
    assert _split(url) == (origin, host, target)


@pytest.mark.parametrize("url", ["tool", "http://tool/a b", "http://tool/a\r\nb", "http://tool:x/", "http://tool/\x7f"])
def test_a_url_that_can_not_be_sent_is_an_error(url: str) -> None:
    """No line break, blank or odd port ever reaches a socket."""
    with pytest.raises(ValueError, match=r"."):
        _split(url)


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "nowhere.invalid", "x" * 64 + ".invalid", "[::1"])
async def test_a_tool_that_is_not_there_was_sent_nothing(host: str) -> None:
    """Refused, unknown, or no name at all: told at once, without the address."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound, but nobody listens
        async with called(Tool()) as pool:
            if host == "[::1":
                with pytest.raises(ValueError, match=r"."):
                    pool.send("GET", f"http://{host}/", [], b"")
                return
            error = await failure(pool, f"http://{host.format(port=held.getsockname()[1])}/")
    assert (error.code, error.sent) == (Code.UPSTREAM_FAILED, False)
    assert "127.0.0.1" not in error.note


async def test_a_connection_that_does_not_come_about_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that accepts and never shakes hands keeps nobody waiting."""
    monkeypatch.setattr(module, "CONNECT_TIMEOUT_S", 0.05)

    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    tool = Tool(act=act)
    async with called(tool) as pool:
        error = await failure(pool, f"https://127.0.0.1:{tool.port}/")
    assert (error.code, error.sent) == (Code.UPSTREAM_TIMEOUT, False)


class Authority:
    """A certificate authority that a system may or may not know."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._signed(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0)))

    def _signed(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, *extensions: x509.ExtensionType, days: int = 1
    ) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        made = x509.CertificateBuilder(self._name, name, key.public_key(), x509.random_serial_number())
        made = made.not_valid_before(now - datetime.timedelta(days=2)).not_valid_after(
            now + datetime.timedelta(days=days)
        )
        authority = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority), False)
        for extension in (own, *extensions):
            made = made.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def serving(self, host: str, *, days: int = 1) -> ssl.SSLContext:
        """What a server of that name shows; ``days`` below zero: expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName(host)])
        certificate = self._signed(x509.Name([]), key, names, days=days)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        both = self._folder / "server.pem"
        both.write_bytes(certificate + private)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(both)
        return context


@pytest.mark.parametrize("kind", ["good", "another authority", "another name", "expired", "no TLS"])
async def test_a_tool_is_who_its_certificate_says_or_gets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Only a certificate for that name, in its time, by an authority that the system knows."""
    known, other = Authority(tmp_path, "known"), Authority(tmp_path, "other")
    monkeypatch.setenv("SSL_CERT_FILE", str(known.file))
    context = (other if kind == "another authority" else known).serving(
        "elsewhere" if kind == "another name" else "localhost", days=-1 if kind == "expired" else 1
    )

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 What\r\n\r\n")
        await writer.drain()

    tool = Tool(OK, OK, act=plain if kind == "no TLS" else None)
    async with called(tool, tls=None if kind == "no TLS" else context) as pool:
        url = f"https://localhost:{tool.port}/x"
        if kind == "good":
            assert [await get(pool, url) for _ in range(2)] == [(200, b"ok")] * 2
            assert tool.connections == 1
            return
        error = await failure(pool, url)
    assert (error.code, error.sent, tool.requests) == (Code.UPSTREAM_FAILED, False, [])
