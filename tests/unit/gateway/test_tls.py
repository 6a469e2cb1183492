"""TLS, with certificates that are made here."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from serving.gateway.server import Drain, Server
from serving.gateway.settings import GatewaySettings
from serving.process import StartError
from tests.kit.bad_requests import GOOD
from tests.unit.gateway.running import running

RATE = "/gen/routine/rate"


def make_certificate(folder: Path, name: str) -> GatewaySettings:
    """Write a certificate for localhost; return settings that name it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(exist_ok=True)
    certificate, secret = folder / "tls.crt", folder / "tls.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return GatewaySettings(probe_interval_seconds=0.01, tls_certificate=certificate, tls_key=secret)


async def issuer(port: int, certificate: Path) -> str:
    """Return whom a new connection shows a certificate of."""
    trusted = ssl.create_default_context(cafile=certificate)
    _, writer = await asyncio.open_connection("localhost", port, ssl=trusted)
    found = writer.get_extra_info("peercert")["issuer"][0][0][1]
    writer.close()
    return str(found)


async def test_it_speaks_tls_and_reads_a_new_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.gateway.server.CERTIFICATE_TICKS", 1)
    settings = make_certificate(tmp_path, "first")
    certificate = settings.tls_certificate
    assert certificate
    async with running(settings) as (found, session):
        trusted = ssl.create_default_context(cafile=certificate)
        url = f"https://localhost:{found.port}{RATE}"
        async with session.post(url, json=GOOD, ssl=trusted) as answer:
            assert answer.status == 200
        assert await issuer(found.port, certificate) == "first"
        reader, writer = await asyncio.open_connection("localhost", found.port, ssl=trusted)
        writer.write(b"no HTTP\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 400 ")
        writer.close()
        with pytest.raises(aiohttp.ClientError):
            await session.post(f"http://localhost:{found.port}{RATE}", json=GOOD)
        make_certificate(tmp_path, "second")
        await asyncio.sleep(0.5)
        assert await issuer(found.port, certificate) == "second"
        kept = certificate.read_bytes()
        certificate.write_bytes(b"broken")
        await asyncio.sleep(0.5)
        certificate.write_bytes(kept)
        assert await issuer(found.port, certificate) == "second"
        found.server.should_exit = True


def test_a_certificate_that_cannot_be_used_ends_the_start(tmp_path: Path) -> None:
    one, other = make_certificate(tmp_path / "a", "a"), make_certificate(tmp_path / "b", "b")
    empty = tmp_path / "empty"
    empty.write_text("")
    wrong = [
        {"tls_certificate": tmp_path / "nowhere"},
        {"tls_certificate": empty},
        {"tls_key": tmp_path / "nowhere"},
        {"tls_key": empty},
        {"tls_key": other.tls_key},
    ]
    for update in wrong:
        with pytest.raises(StartError, match=r"^GATEWAY_TLS_CERTIFICATE=") as caught:
            Server(None, Drain(), one.model_copy(update=update))  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="go together"):
        GatewaySettings(tls_certificate=one.tls_certificate)
    with pytest.raises(ValueError, match="go together"):
        GatewaySettings(tls_key=one.tls_key)
