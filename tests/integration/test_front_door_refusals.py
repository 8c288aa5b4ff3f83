"""Who is refused at the door: before one byte reaches grpc, before a caller exists, and with the reason on record."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509

from livery.identity import TrustBundle, X509Authority
from tests.fakes.clock import FakeClock
from tests.integration.doors import (
    PREFACE,
    SERVER,
    HeldIdentity,
    Shown,
    echo,
    eventually,
    hostile_context,
    knock,
    now,
    real_ca,
    tls_door,
)
from tests.pki import FederatedPair, TestCa, Twist, new_key, usage

HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Wrong:
    """A client certificate that must not come in, and what the record says about it."""

    shown: Shown
    reason: str
    why: str
    alert: str = ""  # the word the client hears; none where OpenSSL was content and the SPIFFE rules were not


def _shown(ca: TestCa, uri: str = "", /, **twists: Any) -> Shown:
    key = new_key()
    leaf = ca.sign_leaf(uri or f"spiffe://{ca.trust_domain}/a", Twist(key=key, **twists))
    return Shown((leaf, *ca.above()), key)


def expired(ca: TestCa) -> Wrong:
    """ours -> leaf that ended an hour ago."""
    shown = _shown(ca, not_before=now() - 2 * HOUR, not_after=now() - HOUR)
    return Wrong(shown, "certificate_refused", "certificate has expired", "SSLV3_ALERT_CERTIFICATE_EXPIRED")


def not_yet_valid(ca: TestCa) -> Wrong:
    """ours -> leaf that begins in an hour."""
    shown = _shown(ca, not_before=now() + HOUR, not_after=now() + 2 * HOUR)
    return Wrong(shown, "certificate_refused", "certificate is not yet valid", "SSLV3_ALERT_BAD_CERTIFICATE")


def wrong_domain(ca: TestCa) -> Wrong:
    """theirs -> leaf of theirs; their bundle is not at this door."""
    return Wrong(_shown(real_ca("partner.test")), "certificate_refused", "unable to", "TLSV1_ALERT_UNKNOWN_CA")


def minted_elsewhere(ca: TestCa) -> Wrong:
    """theirs -> leaf with an ID of ours; their bundle is not at this door."""
    shown = _shown(real_ca("partner.test"), "spiffe://example.org/a")
    return Wrong(shown, "certificate_refused", "unable to", "TLSV1_ALERT_UNKNOWN_CA")


def missing_intermediate(ca: TestCa) -> Wrong:
    """ours -> (intermediate, not sent) -> leaf."""
    whole = _shown(ca.intermediate())
    return Wrong(Shown(whole.chain[:1], whole.key), "certificate_refused", "unable to", "TLSV1_ALERT_UNKNOWN_CA")


def two_uri_sans(ca: TestCa) -> Wrong:
    """ours -> leaf with two SPIFFE IDs."""
    shown = _shown(ca, uris=["spiffe://example.org/a", "spiffe://example.org/admin"])
    return Wrong(shown, "invalid_x509_svid", "2 URI SANs")


def no_uri_san(ca: TestCa) -> Wrong:
    """ours -> leaf with a DNS name alone."""
    return Wrong(_shown(ca, uris=[], dns_names=["a.example.org"]), "invalid_x509_svid", "0 URI SANs")


def ca_as_leaf(ca: TestCa) -> Wrong:
    """ours -> a CA certificate with a workload's ID, used as a leaf."""
    return Wrong(_shown(ca, ca=True), "invalid_x509_svid", "it is a CA certificate")


def signing_leaf(ca: TestCa) -> Wrong:
    """ours -> leaf whose key may sign certificates."""
    both = usage(digital_signature=True, key_cert_sign=True)
    return Wrong(_shown(ca, key_usage=both), "invalid_x509_svid", "may sign certificates")


def root_id(ca: TestCa) -> Wrong:
    """ours -> leaf that names the trust domain itself."""
    return Wrong(_shown(ca, "spiffe://example.org"), "invalid_x509_svid", "names an authority")


CASES = [
    expired,
    not_yet_valid,
    wrong_domain,
    minted_elsewhere,
    missing_intermediate,
    two_uri_sans,
    no_uri_san,
    ca_as_leaf,
    signing_leaf,
    root_id,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS 1.2", "TLS 1.3"])
async def test_a_wrong_certificate_is_refused_with_its_reason_on_record(tmp_path, case, version):
    ca = real_ca()
    wrong = case(ca)
    async with tls_door(tmp_path, ca) as room:
        context = hostile_context(tmp_path, wrong.shown)
        context.maximum_version = version
        heard = await knock(room.port, context)
        await eventually(lambda: bool(room.audit.events))
        (event,) = room.audit.events
        assert heard == (wrong.alert or b"")
        assert (event["event"], event["outcome"], event["reason"]) == ("connection.open", "refused", wrong.reason)
        assert wrong.why in str(event["why"])
        assert str(event["address"]).startswith("127.0.0.1:")
        assert room.has_let_nobody_in()
        async with room.dial(ca.issue("/good"), ca.bundle()) as neighbour:
            assert await echo(neighbour) == b"hello"


async def test_certificates_that_anybody_can_make_do_not_fill_the_audit_trail(tmp_path):
    """Shown again and again within a second: ten records for an address, and the next one counts the rest."""
    clock, wrong = FakeClock(now()), hostile_context(tmp_path, _shown(real_ca("partner.test")))
    async with tls_door(tmp_path, real_ca(), clock=clock) as room:
        for _ in range(13):
            await knock(room.port, wrong)
        assert room.reasons == ["certificate_refused"] * 10
        clock.advance(timedelta(seconds=1))
        await knock(room.port, wrong)
        await eventually(lambda: len(room.reasons) == 11)
        assert room.audit.events[-1]["left_out"] == 3


async def test_an_expired_authority_vouches_for_nobody(tmp_path):
    """expired authority of ours -> leaf of today; it is still in the bundle, beside the one in use."""
    ca, old = real_ca(), TestCa("example.org", now=now() - 48 * HOUR, ttl=24 * HOUR)
    both = TrustBundle(ca.trust_domain, old.bundle().x509_authorities + ca.bundle().x509_authorities)
    async with tls_door(tmp_path, ca, identity=HeldIdentity(ca.issue(SERVER), both)) as room:
        shown = _shown(old, not_before=now() - HOUR, not_after=now() + HOUR)
        assert await knock(room.port, hostile_context(tmp_path, shown)) == "SSLV3_ALERT_CERTIFICATE_EXPIRED"
        await eventually(lambda: room.reasons == ["certificate_refused"])
        assert room.has_let_nobody_in()


async def test_a_sound_certificate_is_answered_by_the_same_knock(tmp_path):
    """So that the refusals above are refusals and not a knock that nobody ever answers."""
    ca = real_ca()
    async with tls_door(tmp_path, ca) as room:
        heard = await knock(room.port, hostile_context(tmp_path, _shown(ca)))
        assert isinstance(heard, bytes)
        assert heard[3] == 4  # a SETTINGS frame
        assert room.audit.events == []


class TestFederation:
    """The door also holds the bundle of a partner, because an administrator of theirs is named in `admin_ids`."""

    @pytest.fixture
    def pair(self) -> FederatedPair:
        pair = FederatedPair()
        pair.ours, pair.theirs = real_ca("example.org"), real_ca("partner.test")
        return pair

    @staticmethod
    def admits(spiffe_id):
        at_home = str(spiffe_id).startswith("spiffe://example.org/")
        return None if at_home or str(spiffe_id) == "spiffe://partner.test/admin" else "it is not in admin_ids"

    async def test_the_named_administrator_comes_in(self, tmp_path, pair):
        async with tls_door(tmp_path, pair.ours, pair.theirs.bundle(), admits_id=self.admits) as room:
            heard = await knock(
                room.port, hostile_context(tmp_path, _shown(pair.theirs, "spiffe://partner.test/admin"))
            )
            assert heard[3:4] == b"\4"

    async def test_nobody_else_of_theirs_comes_in(self, tmp_path, pair):
        async with tls_door(tmp_path, pair.ours, pair.theirs.bundle(), admits_id=self.admits) as room:
            assert await knock(room.port, hostile_context(tmp_path, _shown(pair.theirs))) == b""
            await eventually(lambda: room.reasons == ["not_admitted"])
            assert "spiffe://partner.test/a is not admitted: it is not in admin_ids" in str(room.audit.events[0]["why"])
            assert room.has_let_nobody_in()

    async def test_without_a_rule_only_our_own_domain_comes_in(self, tmp_path, pair):
        async with tls_door(tmp_path, pair.ours, pair.theirs.bundle()) as room:
            admin = _shown(pair.theirs, "spiffe://partner.test/admin")
            assert await knock(room.port, hostile_context(tmp_path, admin)) == b""
            await eventually(lambda: room.reasons == ["not_admitted"])

    async def test_their_authority_cannot_make_a_caller_of_ours(self, tmp_path, pair):
        """theirs -> leaf with an ID of ours: OpenSSL accepts it, because their authority is in the door's store."""
        async with tls_door(tmp_path, pair.ours, pair.theirs.bundle(), admits_id=self.admits) as room:
            forged = _shown(pair.theirs, "spiffe://example.org/a")
            assert await knock(room.port, hostile_context(tmp_path, forged)) == b""
            await eventually(lambda: room.reasons == ["untrusted_x509_svid"])
            assert room.has_let_nobody_in()

    async def test_an_authority_with_our_name_and_key_identifier_neither_shuts_us_out_nor_comes_in(
        self, tmp_path, pair
    ):
        """theirs' = (subject and key identifier of ours, key of theirs) -> leaf with an ID of ours."""
        twin = _twin_of(pair.ours)
        bundle = TrustBundle(twin.trust_domain, (X509Authority(twin.certificate),))
        identity = HeldIdentity(pair.ours.issue(SERVER), bundle, pair.ours.bundle())
        async with tls_door(tmp_path, pair.ours, identity=identity, admits_id=self.admits) as room:
            async with room.dial(pair.ours.issue("/a"), pair.ours.bundle()) as channel:
                assert await echo(channel) == b"hello"
            forged = _shown(twin, "spiffe://example.org/admin")
            room.service.callers.clear()
            assert isinstance(await knock(room.port, hostile_context(tmp_path, forged)), str)
            await eventually(lambda: room.reasons == ["certificate_refused"])
            assert not room.service.callers

    async def test_the_chain_we_send_is_ours_though_the_store_holds_a_twin(self, tmp_path, pair):
        twin = _twin_of(pair.ours)
        bundle = TrustBundle(twin.trust_domain, (X509Authority(twin.certificate),))
        identity = HeldIdentity(pair.ours.issue(SERVER), bundle, pair.ours.bundle())
        async with tls_door(tmp_path, pair.ours, identity=identity) as room:
            sent = await asyncio.to_thread(_chain_of, room.port, tmp_path)
            assert sent == [pair.ours.certificate.serial_number]


def _twin_of(ca: TestCa) -> TestCa:
    """An authority of partner.test with the subject and the key identifier of `ca`."""
    identifier = ca.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return real_ca("partner.test", name=ca.name, ski=False, extra=[(identifier, False)])


def _chain_of(port: int, folder) -> list[int]:
    with socket.create_connection(("127.0.0.1", port), 10) as raw, hostile_context(folder).wrap_socket(raw) as tls:
        chain = tls._sslobj.get_unverified_chain()
        ders = [ssl.PEM_cert_to_DER_cert(each.public_bytes()) for each in chain[1:]]
        return [x509.load_der_x509_certificate(der).serial_number for der in ders]


class TestTls:
    """What is wrong below certificates."""

    @pytest.mark.parametrize("alpn", [(), ("http/1.1",)], ids=["no ALPN", "http/1.1"])
    async def test_a_client_that_does_not_select_h2_is_refused(self, tmp_path, alpn):
        ca = real_ca()
        async with tls_door(tmp_path, ca) as room:
            assert await knock(room.port, hostile_context(tmp_path, alpn=alpn)) == b""
            await eventually(lambda: room.reasons == ["unsuitable_tls"])
            assert room.has_let_nobody_in()

    async def test_tls_1_1_is_refused(self, tmp_path):
        ca = real_ca()
        async with tls_door(tmp_path, ca) as room:
            context = hostile_context(tmp_path)
            context.set_ciphers("DEFAULT@SECLEVEL=0")
            with pytest.warns(DeprecationWarning):
                context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
            assert await knock(room.port, context) == "TLSV1_ALERT_PROTOCOL_VERSION"
            await eventually(lambda: room.reasons == ["tls_failed"])

    async def test_strangers_who_speak_no_h2_do_not_fill_the_audit_trail(self, tmp_path):
        """They show no certificate, so anybody can come again and again."""
        ca, clock = real_ca(), FakeClock(now())
        async with tls_door(tmp_path, ca, clock=clock) as room:
            for _ in range(13):
                await knock(room.port, hostile_context(tmp_path, alpn=()))
            assert room.reasons == ["unsuitable_tls"] * 10
            await knock(room.port, hostile_context(tmp_path, _shown(ca), alpn=()))
            await eventually(lambda: len(room.reasons) == 11)  # whoever showed one that is good is always recorded

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS 1.2", "TLS 1.3"])
    async def test_no_session_is_resumed(self, tmp_path, version):
        ca = real_ca()
        async with tls_door(tmp_path, ca) as room:
            context = hostile_context(tmp_path, _shown(ca))
            context.maximum_version = version
            assert await asyncio.to_thread(_resumes, room.port, context) is False

    async def test_a_session_that_openssl_does_resume_lets_nobody_in(self, tmp_path):
        """Of TLS 1.2, by a connection that was there before the session: its context is one that had none yet."""
        ca = real_ca()
        async with tls_door(tmp_path, ca) as room:
            context = hostile_context(tmp_path, _shown(ca))
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            address = "127.0.0.1", room.port
            with socket.create_connection(address, 10) as first, socket.create_connection(address, 10) as waiting:
                await eventually(lambda: room.door._opened.gate.admission.count("handshakes") == 2)
                assert await asyncio.to_thread(_resumed_by_one_who_waited, first, waiting, context) == b""
            await eventually(lambda: room.reasons == ["unsuitable_tls"])

    @pytest.mark.parametrize(
        "garbage",
        [
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            PREFACE,
            b"\x16\x03\x01\xff\xff" + bytes(70000),
            bytes(16),
            b"\xff" * 4096,
        ],
        ids=["HTTP/1.1", "HTTP/2 in the clear", "an endless ClientHello", "zeros", "ones"],
    )
    async def test_garbage_is_refused_and_a_neighbour_served(self, tmp_path, garbage):
        ca = real_ca()
        async with tls_door(tmp_path, ca) as room, room.dial(ca.issue("/a"), ca.bundle()) as neighbour:
            reader, writer = await asyncio.open_connection("127.0.0.1", room.port)
            writer.write(garbage)
            await asyncio.wait_for(reader.read(), 10)
            writer.close()
            await eventually(lambda: room.reasons == ["tls_failed"])
            assert await echo(neighbour) == b"hello"

    async def test_a_client_that_goes_away_in_its_handshake_is_counted_and_not_recorded(self, tmp_path):
        ca = real_ca()
        async with tls_door(tmp_path, ca) as room:
            _, writer = await asyncio.open_connection("127.0.0.1", room.port)
            writer.close()
            counted = 'door_refusals_total{door="tcp",reason="handshake_abandoned"} 1.0'
            await eventually(lambda: counted in room.metrics.render().decode())
            assert room.audit.events == []


def _resumes(port: int, context: ssl.SSLContext) -> bool:
    session = None
    for _ in range(2):
        with (
            socket.create_connection(("127.0.0.1", port), 10) as raw,
            context.wrap_socket(raw, session=session) as tls,
        ):
            tls.sendall(PREFACE)
            tls.recv(65536)  # a ticket would come with the first bytes
            session, reused = tls.session, bool(tls.session_reused)
            with suppress(ssl.SSLError):  # grpc may have more to say
                tls.unwrap()  # a session that ended otherwise is none to resume, to OpenSSL
    return reused


def _resumed_by_one_who_waited(first: socket.socket, waiting: socket.socket, context: ssl.SSLContext) -> bytes:
    with context.wrap_socket(first) as tls, suppress(ssl.SSLError):  # grpc has a first word to say, too
        session = tls.session
        tls.unwrap()
    with context.wrap_socket(waiting, session=session) as tls:
        assert tls.session_reused
        tls.sendall(PREFACE)
        return tls.recv(65536)
