"""Contexts made from SVIDs: what is shown, what is trusted, and when a new one is made."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography import x509

from livery.identity import BundleMap, TrustBundle, X509Authority, X509Svid
from livery.runtime.transport.tls_contexts import (
    CurrentServerContext,
    authorities_of,
    chain_to_send,
    client_context,
    server_context,
)
from livery.runtime.transport.tls_engine import TlsEngine
from tests.pki import TestCa, new_key


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def subjects(context: ssl.SSLContext) -> set[str]:
    return {x509.load_der_x509_certificate(der).subject.rfc4514_string() for der in context.get_ca_certs(True)}


@pytest.mark.parametrize("kind", ["P-256", "P-384", "P-521", "rsa-2048"])
def test_every_kind_of_key_loads_without_a_file(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ca = TestCa()
    before = descriptors()
    svid = ca.issue("/a", key=new_key(kind))
    server_context(svid, BundleMap.of(ca.bundle()))
    client_context(svid, ca.bundle(), BundleMap.of(ca.bundle()))
    assert list(tmp_path.iterdir()) == []
    assert descriptors() == before


def test_only_tls_1_2_and_later_with_no_tickets_and_partial_chains():
    ca = TestCa()
    context = server_context(ca.issue("/a"), BundleMap.of(ca.bundle()))
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    for option in (ssl.OP_NO_TICKET, ssl.OP_NO_RENEGOTIATION, ssl.OP_NO_COMPRESSION):
        assert context.options & option
    assert context.num_tickets == 0
    assert context.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN
    assert context.verify_mode is ssl.CERT_OPTIONAL


def test_a_server_with_nobody_to_trust_is_a_server():
    ca = TestCa()
    context = server_context(ca.issue("/a"), BundleMap.of(TrustBundle(ca.trust_domain)))
    assert context.get_ca_certs() == []


def test_a_client_trusts_the_one_domain_it_calls():
    ours, theirs = TestCa(), TestCa("partner.test")
    context = client_context(ours.issue("/a"), theirs.bundle(), BundleMap.of(ours.bundle(), theirs.bundle()))
    assert subjects(context) == {theirs.subject.rfc4514_string()}


def twin(ca: TestCa, **alike) -> TrustBundle:
    other = TestCa("partner.test", **alike)
    return TrustBundle(other.trust_domain, (X509Authority(other.certificate),))


@pytest.mark.parametrize("alike", ["name", "key", "identifier"])
def test_a_foreign_authority_that_could_be_taken_for_ours_is_not_in_the_store(alike):
    ours = TestCa()
    identifier = ours.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    foreign = {
        "name": twin(ours, name=ours.name),
        "key": twin(ours, key=ours.key),
        "identifier": twin(ours, ski=False, extra=[(identifier, False)]),
    }[alike]
    assert authorities_of(ours.bundle(), [foreign]) == list(ours.bundle().x509_authorities)


def test_a_foreign_authority_unlike_ours_is_in_the_store_after_ours():
    ours, theirs = TestCa(), TestCa("partner.test")
    expected = [*ours.bundle().x509_authorities, *theirs.bundle().x509_authorities]
    assert authorities_of(ours.bundle(), [theirs.bundle()]) == expected


def test_a_lone_leaf_is_sent_with_the_authority_that_signed_it():
    ca, other = TestCa(), TestCa()
    both = TrustBundle(ca.trust_domain, other.bundle().x509_authorities + ca.bundle().x509_authorities)
    svid = ca.issue("/a")
    assert chain_to_send(svid, BundleMap.of(both)) == (svid.leaf, ca.certificate)


def test_a_chain_is_sent_as_it_is():
    ca = TestCa()
    svid = ca.intermediate().issue("/a")
    assert chain_to_send(svid, BundleMap.of(ca.bundle())) == svid.chain
    assert chain_to_send(svid, BundleMap.of()) == svid.chain


def test_a_leaf_whose_authority_nobody_knows_is_sent_alone():
    ca, other = TestCa(), TestCa()
    svid = ca.issue("/a")
    assert chain_to_send(svid, BundleMap.of(other.bundle())) == (svid.leaf,)


class Changing:
    """A `DoorIdentity` whose values are set from outside."""

    def __init__(self, svid: X509Svid, bundles: BundleMap) -> None:
        self.values = (svid, bundles)

    def svid(self) -> X509Svid:
        return self.values[0]

    def bundles(self) -> BundleMap:
        return self.values[1]


def test_a_new_context_is_made_when_something_changed_and_only_then():
    ca = TestCa()
    identity = Changing(ca.issue("/a"), BundleMap.of(ca.bundle()))
    current = CurrentServerContext(identity)
    first = current.get()
    assert current.get() is first
    identity.values = (ca.issue("/a"), identity.values[1])
    second = current.get()
    assert second is not first
    identity.values = (identity.values[0], BundleMap.of(ca.bundle()))
    assert current.get() is not second


def test_much_at_once_comes_out_whole():
    client, server = engines(TestCa())
    sent = client.encrypt(bytes(1024 * 1024))
    assert len(sent) > 1024 * 1024
    server.receive(sent)
    assert sum(len(part) for part in server.plaintext()) == 1024 * 1024


@pytest.mark.parametrize("size", [1, 16 * 1024, 16 * 1024 + 1, 100_000])
def test_a_goodbye_that_comes_with_the_last_bytes_is_heard_with_them(size):
    client, server = engines(TestCa())
    server.receive(client.encrypt(bytes(size)) + client.say_goodbye())
    assert sum(len(part) for part in server.plaintext()) == size
    assert server.ended


@pytest.mark.parametrize("cut", [1, 5, 20, 16_000])
def test_a_record_that_comes_in_pieces_comes_out_once_it_is_whole(cut):
    client, server = engines(TestCa())
    sent = client.encrypt(bytes(20_000))
    server.receive(sent[:-cut])
    before = sum(len(part) for part in server.plaintext())
    assert before < 20_000
    server.receive(sent[-cut:])
    assert before + sum(len(part) for part in server.plaintext()) == 20_000


def engines(ca: TestCa) -> tuple[TlsEngine, TlsEngine]:
    """A client and a server that have shaken hands."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client = TlsEngine(context, server_side=False)
    server = TlsEngine(server_context(ca.issue("/a"), BundleMap.of(ca.bundle())), server_side=True)
    while not (client.handshake() and server.handshake()):
        server.receive(client.outgoing())
        server.handshake()
        client.receive(server.outgoing())
    server.receive(client.outgoing())
    assert server.handshake()
    return client, server


def test_a_goodbye_is_heard_as_the_end():
    client, server = engines(TestCa())
    server.receive(client.say_goodbye())
    assert list(server.plaintext()) == []
    assert server.ended
