"""Messages of spire.api.types and our values say the same."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from livery.identity import IdentityError, InvalidBundle, Selector, SpiffeId
from livery.runtime.spire_types import (
    bundle_from_wire,
    bundle_to_wire,
    selectors_from_wire,
    selectors_to_wire,
    spiffe_id_from_wire,
    spiffe_id_to_wire,
)
from livery.wire import types_api
from tests.pki import TestCa, new_key


@pytest.mark.parametrize("text", ["spiffe://example.org", "spiffe://example.org/a/b"])
def test_a_spiffe_id_survives_the_wire(text):
    assert spiffe_id_from_wire(spiffe_id_to_wire(SpiffeId.parse(text))) == SpiffeId.parse(text)


@pytest.mark.parametrize(
    ("trust_domain", "path"), [("", "/a"), ("example.org", "a"), ("Example.org", "/a"), ("example.org", "/a/../b")]
)
def test_a_malformed_spiffe_id_is_refused_and_not_repaired(trust_domain, path):
    with pytest.raises(IdentityError):
        spiffe_id_from_wire(types_api.SPIFFEID(trust_domain=trust_domain, path=path))


def test_selectors_keep_their_order_and_their_colons():
    selectors = (Selector.parse("unix:uid:1000"), Selector.parse("k8s:ns:shop"))
    assert selectors_from_wire(selectors_to_wire(selectors)) == selectors


def test_a_bundle_survives_the_wire_with_taint_sequence_and_expiry():
    ca = TestCa()
    sound = ca.bundle(sequence=2**64 - 1, refresh_hint=timedelta(seconds=300))
    (x509_authority,), (jwt_authority,) = sound.x509_authorities, sound.jwt_authorities
    bundle = replace(
        sound,
        x509_authorities=(replace(x509_authority, tainted=True), *TestCa().bundle().x509_authorities),
        jwt_authorities=(replace(jwt_authority, tainted=True, expires_at=datetime(2030, 1, 1, tzinfo=UTC)),),
    )
    assert bundle_from_wire(bundle_to_wire(bundle)) == bundle


def test_several_certificates_in_one_field_are_read_as_several_authorities():
    one, two = (TestCa().bundle().x509_authorities[0] for _ in range(2))
    message = types_api.Bundle(trust_domain="example.org")
    message.x509_authorities.add(asn1=one.der() + two.der())
    assert bundle_from_wire(message).x509_authorities == (one, two)


def test_an_empty_bundle_is_a_bundle():
    assert bundle_from_wire(types_api.Bundle(trust_domain="example.org")).x509_authorities == ()


def _leaf() -> bytes:
    return TestCa().issue().chain_der()


def _ed25519() -> bytes:
    return new_key("ed25519").public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    "message",
    [
        types_api.Bundle(trust_domain="example.org", x509_authorities=[{"asn1": b"garbage"}]),
        types_api.Bundle(trust_domain="example.org", x509_authorities=[{"asn1": b""}]),
        types_api.Bundle(trust_domain="example.org", x509_authorities=[{"asn1": _leaf()}]),
        types_api.Bundle(trust_domain="example.org", jwt_authorities=[{"public_key": b"garbage", "key_id": "a"}]),
        types_api.Bundle(trust_domain="example.org", jwt_authorities=[{"public_key": bytes(5000), "key_id": "a"}]),
        types_api.Bundle(trust_domain="example.org", jwt_authorities=[{"public_key": _ed25519(), "key_id": "a"}]),
        types_api.Bundle(trust_domain="example.org", refresh_hint=-1),
        types_api.Bundle(trust_domain="example.org", refresh_hint=2**62),
    ],
    ids=["no x509", "empty x509", "leaf", "no key", "long key", "ed25519", "negative hint", "huge hint"],
)
def test_a_malformed_bundle_is_refused_with_our_error(message):
    with pytest.raises(InvalidBundle):
        bundle_from_wire(message)


def test_a_jwt_key_that_ends_at_no_date_is_refused():
    message = bundle_to_wire(TestCa().bundle())
    message.jwt_authorities[0].expires_at = 2**62
    with pytest.raises(InvalidBundle, match="no date"):
        bundle_from_wire(message)
