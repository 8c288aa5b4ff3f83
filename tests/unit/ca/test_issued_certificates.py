"""Certificates as they are really issued: every issuer's row of X509-SVID, SPIRE's form, and a stranger's verdict.

Each test looks at a certificate that came out of the pipeline, not at a plan.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from operator import and_, or_
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from livery.errors import LiveryError
from livery.identity import SpiffeId, verify_x509
from livery_ca.authorities import AuthoritySettings
from livery_ca.certificates import algorithm
from livery_ca.certificates.algorithm import KeyType
from livery_ca.certificates.draft import Window
from livery_ca.certificates.lint import LintRefused
from livery_ca.certificates.profile import Profile, new_serial
from livery_ca.issuance.errors import AuthorityEnding, RequestRefused
from livery_ca.issuance.prepare import validity
from livery_ca.issuance.request import Issued, IssueRequest, Refused
from livery_ca.keys.memory import MemoryKeyStore
from tests.fakes.clock import START, FakeClock
from tests.fakes.upstream import RootAbove
from tests.pki import TestCa
from tests.unit.ca.house import TD, House, house, workload

URI = x509.UniformResourceIdentifier


async def leaf(ca: House, request: IssueRequest | None = None) -> x509.Certificate:
    (issued,) = await ca.issue(request or workload())
    return x509.load_der_x509_certificate(issued.chain_ders[0])


async def refusal(ca: House, request: IssueRequest) -> LiveryError:
    (answer,) = await ca.issuer.issue([request])
    assert isinstance(answer, Refused)
    return answer.error


def san(certificate: x509.Certificate) -> x509.Extension[x509.SubjectAlternativeName]:
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)


def root(ca: House) -> x509.Certificate:
    return ca.authorities.x509_signer().certificate


async def test_X509_1_a_leaf_has_exactly_one_uri_san_and_it_is_the_spiffe_id(ca: House) -> None:
    """DNS names may stand beside it."""
    certificate = await leaf(ca, workload("/ns/a", dns_names=("a.example.org", "*.b.example.org")))
    assert san(certificate).value.get_values_for_type(URI) == ["spiffe://example.org/ns/a"]
    assert san(certificate).value.get_values_for_type(x509.DNSName) == ["a.example.org", "*.b.example.org"]


async def test_X509_3_a_leaf_for_the_trust_domains_own_id_is_refused(ca: House) -> None:
    error = await refusal(ca, replace(workload(), spiffe_id=SpiffeId(TD)))
    assert isinstance(error, LintRefused)
    assert any(finding.startswith("leaf_id_has_a_path") for finding in error.findings)


@pytest.mark.parametrize(("subject", "critical"), [(x509.Name([]), True), (None, False)])
async def test_X509_4_the_san_is_critical_exactly_when_the_subject_is_empty(
    ca: House, subject: x509.Name | None, critical: bool
) -> None:
    certificate = await leaf(ca, workload(profile=Profile.MINT, subject=subject))
    assert san(certificate).critical is critical


async def test_X509_5_a_leaf_is_no_ca_and_a_signing_certificate_is_one(ca: House) -> None:
    constraints = (await leaf(ca)).extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.value.ca, constraints.value.path_length, constraints.critical) == (False, None, True)
    of_root = root(ca).extensions.get_extension_for_class(x509.BasicConstraints)
    assert (of_root.value.ca, of_root.value.path_length, of_root.critical) == (True, None, True)


async def test_X509_6_the_signing_certificate_is_an_svid_of_the_trust_domain_without_a_path(ca: House) -> None:
    assert san(root(ca)).value.get_values_for_type(URI) == ["spiffe://example.org"]


async def test_X509_7_no_leaf_gets_the_signing_key(ca: House) -> None:
    """And the signing certificate's usages authenticate nobody."""
    key = ca.keys.public_key(ca.authorities.x509_signer().key_id)
    error = await refusal(ca, workload(public_key=key))
    assert isinstance(error, LintRefused)
    assert any(finding.startswith("leaf_key_is_not_the_issuers") for finding in error.findings)
    usage = root(ca).extensions.get_extension_for_class(x509.KeyUsage).value
    assert not (usage.digital_signature or usage.key_encipherment or usage.key_agreement)


async def test_X509_8_key_usage_is_present_and_critical_on_leaf_and_ca(ca: House) -> None:
    for certificate in (await leaf(ca), root(ca)):
        assert certificate.extensions.get_extension_for_class(x509.KeyUsage).critical


async def test_X509_9_key_usages_are_those_of_leaf_and_ca(ca: House) -> None:
    usage = (await leaf(ca)).extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.digital_signature, usage.key_encipherment, usage.key_agreement) == (True, True, True)
    assert (usage.key_cert_sign, usage.crl_sign, usage.content_commitment) == (False, False, False)
    of_root = root(ca).extensions.get_extension_for_class(x509.KeyUsage).value
    assert (of_root.key_cert_sign, of_root.crl_sign) == (True, True)


async def test_X509_10_a_leaf_is_for_serving_and_calling_and_a_ca_has_no_extended_usage(ca: House) -> None:
    usage = (await leaf(ca)).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    with pytest.raises(x509.ExtensionNotFound):
        root(ca).extensions.get_extension_for_class(x509.ExtendedKeyUsage)


async def test_X509_11_a_signing_certificate_has_no_name_constraints(ca: House) -> None:
    """Validators disagree about them; who may sign what is enforced by bundles."""
    with pytest.raises(x509.ExtensionNotFound):
        root(ca).extensions.get_extension_for_class(x509.NameConstraints)


async def test_X509_14_the_bundles_jwk_has_one_self_signed_ca_in_x5c_and_no_kid(ca: House) -> None:
    keys = json.loads(ca.authorities.current_bundle().to_jwks())["keys"]
    (entry,) = [key for key in keys if key["use"] == "x509-svid"]
    assert "kid" not in entry
    assert len(entry["x5c"]) == 1
    assert {"kty", "crv", "x", "y"} <= set(entry)
    certificate = root(ca)
    assert certificate.issuer == certificate.subject
    certificate.verify_directly_issued_by(certificate)


async def test_a_leaf_is_in_spires_form(ca: House) -> None:
    """Subject C=US, O=SPIRE; key identifiers; a positive serial of at most 159 bits."""
    certificate = await leaf(ca)
    assert certificate.subject.rfc4514_string() == "O=SPIRE,C=US"
    assert certificate.version is x509.Version.v3
    assert 0 < certificate.serial_number < 2**159
    identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert identifier == x509.SubjectKeyIdentifier.from_public_key(certificate.public_key())
    authority = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    of_root = root(ca).extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert authority.key_identifier == of_root.digest
    assert (authority.authority_cert_issuer, authority.authority_cert_serial_number) == (None, None)


def test_a_serial_number_is_of_159_random_bits() -> None:
    """Hazard 20: every bit is drawn. (That a sound source fails this has a chance of 2^-191.)"""
    drawn = [new_serial() for _ in range(200)]
    assert len(set(drawn)) == 200
    assert reduce(or_, drawn) == 2**159 - 1
    assert reduce(and_, drawn) == 0


async def test_a_ca_is_in_spires_form(ca: House) -> None:
    """C=US, O=SPIFFE and its own serial number in the subject; SHA-1 key identifier; no authority key identifier."""
    certificate = root(ca)
    serial = certificate.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)[0].value
    assert serial == str(certificate.serial_number)
    assert certificate.subject.rfc4514_string().endswith("O=SPIFFE,C=US")
    assert ca.authorities.x509_signer().authority_id == (
        x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest.hex()  # type: ignore[arg-type]
    )
    with pytest.raises(x509.ExtensionNotFound):
        certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)


async def test_a_ca_below_a_root_hands_out_its_chain_without_the_root_and_outlives_neither(
    tmp_path: Path, clock: FakeClock
) -> None:
    """SPIRE's chain: the leaf, then what stands between it and the bundle. Our CA signs, the root is the anchor."""
    above = TestCa("example.org", now=START, ttl=timedelta(hours=12))
    async with house(tmp_path / "s", clock, upstream=lambda _: RootAbove(above)) as ca:
        signer = ca.authorities.x509_signer()
        assert signer.not_after == START + timedelta(hours=12), "the root ends before the CA it signed"
        (issued,) = await ca.issue(workload(ttl=timedelta(hours=20)))
        assert issued.not_after == signer.not_after
        chain = [x509.load_der_x509_certificate(der) for der in issued.chain_ders]
        assert chain[1:] == [signer.certificate] != [above.certificate]
        assert [a.certificate for a in ca.authorities.current_bundle().x509_authorities] == [above.certificate]
        verified = verify_x509(chain, ca.authorities.bundles(), clock.now())
        assert (verified.id, verified.authority) == (SpiffeId.of(TD, "/w"), above.certificate)


async def test_the_first_dns_name_becomes_the_common_name_where_it_fits(ca: House) -> None:
    """RFC 5280 bounds a common name by 64 characters, a DNS name by 253."""
    certificate = await leaf(ca, workload(dns_names=("a.example.org", "b.example.org")))
    assert certificate.subject.rfc4514_string() == "CN=a.example.org,O=SPIRE,C=US"
    long = f"{'a' * 60}.example.org"
    certificate = await leaf(ca, workload(dns_names=(long,)))
    assert certificate.subject.rfc4514_string() == "O=SPIRE,C=US"
    assert san(certificate).value.get_values_for_type(x509.DNSName) == [long]


async def test_a_minted_certificate_keeps_its_subject_but_for_the_common_name(ca: House) -> None:
    asked = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Shop"), x509.NameAttribute(NameOID.COMMON_NAME, "mine")]
    )
    certificate = await leaf(ca, workload(profile=Profile.MINT, subject=asked, dns_names=("a.example.org",)))
    assert certificate.subject.rfc4514_string() == "CN=a.example.org,O=Shop"


async def test_validity_is_backdated_ten_seconds_and_in_whole_seconds(ca: House, clock: FakeClock) -> None:
    clock.advance(0.75)
    certificate = await leaf(ca, workload(ttl=timedelta(seconds=90)))
    assert certificate.not_valid_before_utc == START - timedelta(seconds=10)
    assert certificate.not_valid_after_utc == START + timedelta(seconds=90)


async def test_no_leaf_outlives_its_authority(ca: House, clock: FakeClock) -> None:
    """NotAfter is cut to the authority's."""
    clock.advance(timedelta(hours=23))
    signer = ca.authorities.x509_signer()
    certificate = await leaf(ca, workload(ttl=timedelta(days=30)))
    assert certificate.not_valid_after_utc == signer.not_after


def test_no_leaf_begins_before_its_authority_nor_is_signed_by_one_that_is_not_valid_yet() -> None:
    """An upstream may give a CA certificate that begins later than the ten seconds of ours."""
    window = Window(START - timedelta(seconds=3), START + timedelta(hours=1))
    assert validity(timedelta(minutes=1), START, window) == (window.not_before, START + timedelta(minutes=1))
    with pytest.raises(AuthorityEnding):
        validity(timedelta(minutes=1), START - timedelta(seconds=4), window)


async def test_an_authority_about_to_end_signs_nothing_that_lasts_less_than_ten_seconds(
    ca: House, clock: FakeClock
) -> None:
    clock.advance(timedelta(hours=24, seconds=-10))
    assert (await leaf(ca)).not_valid_after_utc == START + timedelta(hours=24)
    clock.advance(1)
    assert isinstance(await refusal(ca, workload()), AuthorityEnding)
    clock.advance(timedelta(hours=2))
    assert isinstance(await refusal(ca, workload()), AuthorityEnding)


async def test_a_lifetime_under_ten_seconds_is_refused(ca: House) -> None:
    assert isinstance(await refusal(ca, workload(ttl=timedelta(seconds=9))), RequestRefused)
    for nonsense in (timedelta(0), timedelta(days=-1)):
        assert isinstance(await refusal(ca, workload(ttl=nonsense)), RequestRefused)
    await leaf(ca, workload(ttl=timedelta(seconds=10)))


async def test_profiles_are_held_to_their_paths(ca: House) -> None:
    """A workload cannot be issued the server's or an agent's ID, nor the reverse."""
    wrong = [
        (Profile.WORKLOAD, "/spire/server"),
        (Profile.WORKLOAD, "/spire"),
        (Profile.MINT, "/spire/agent/x"),
        (Profile.AGENT, "/w"),
        (Profile.AGENT, "/spire/agent"),
        (Profile.SERVER, "/spire/server/x"),
        (Profile.SERVER, "/w"),
    ]
    for profile, path in wrong:
        error = await refusal(ca, workload(path, profile=profile))
        assert isinstance(error, LintRefused), (profile, path)
    for profile, path in (
        (Profile.AGENT, "/spire/agent/x"),
        (Profile.SERVER, "/spire/server"),
        (Profile.MINT, "/spired"),
    ):
        await leaf(ca, workload(path, profile=profile))


@pytest.mark.parametrize(
    "names", [("-a.org",), ("a..org",), ("a b",), ("*",), ("a.*.org",), ("",), ("x", "x"), ("ä.org",), ("a" * 64,)]
)
async def test_ill_formed_or_repeated_dns_names_are_refused(ca: House, names: tuple[str, ...]) -> None:
    assert isinstance(await refusal(ca, workload(dns_names=names)), LintRefused | RequestRefused)


@pytest.mark.parametrize("kind", ["P-384", "P-521", "rsa-2048"])
async def test_every_key_type_of_a_workload_is_served(ca: House, kind: str) -> None:
    from tests.pki import new_key

    key = new_key(kind).public_key()
    certificate = await leaf(ca, workload(public_key=key))
    assert certificate.public_key() == key


@pytest.mark.parametrize("kind", ["secp256k1", "rsa-1024"])
async def test_weak_and_foreign_key_types_are_refused(ca: House, kind: str) -> None:
    from tests.pki import new_key

    error = await refusal(ca, workload(public_key=new_key(kind).public_key()))
    assert isinstance(error, LintRefused)


@pytest.mark.parametrize("key_type", [KeyType.EC_P256, KeyType.EC_P384, KeyType.RSA_2048])
async def test_openssl_accepts_an_issued_chain(tmp_path: Path, clock: FakeClock, key_type: KeyType) -> None:
    """A verifier that shares no code with us; under each type of authority, as server and as client."""
    settings = AuthoritySettings(TD, ca_key_type=key_type)
    clock.set_wall(datetime.now(UTC))
    async with house(tmp_path / "s", clock, settings=settings, keys=MemoryKeyStore()) as ca:
        (issued,) = await ca.issue(workload("/ns/shop/sa/orders", dns_names=("orders.example.org",)))
        anchors, chain = tmp_path / "root.pem", tmp_path / "chain.pem"
        anchors.write_bytes(ca.authorities.current_bundle().to_pem())
        chain.write_bytes(pem(issued))
        for purpose in ("sslserver", "sslclient"):
            run = ["openssl", "verify", "-x509_strict", "-check_ss_sig", "-purpose", purpose, "-CAfile", anchors, chain]
            done = subprocess.run(run, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr + done.stdout


async def test_openssl_reads_the_same_certificate_as_we_do(ca: House, tmp_path: Path) -> None:
    """The hand-joined DER is canonical: OpenSSL writes it out as it was."""
    (issued,) = await ca.issue(workload())
    path = tmp_path / "leaf.der"
    path.write_bytes(issued.chain_ders[0])
    run = ["openssl", "x509", "-inform", "DER", "-outform", "DER", "-in", path]
    assert subprocess.run(run, capture_output=True, check=True).stdout == issued.chain_ders[0]


async def test_an_issued_certificate_ends_when_it_says(ca: House, clock: FakeClock) -> None:
    (issued,) = await ca.issue(workload(ttl=timedelta(minutes=1)))
    chain = [x509.load_der_x509_certificate(der) for der in issued.chain_ders]
    verified = verify_x509(chain, ca.authorities.bundles(), clock.now())
    assert (verified.id, verified.serial) == (SpiffeId.of(TD, "/w"), issued.serial)
    with pytest.raises(LiveryError):
        verify_x509(chain, ca.authorities.bundles(), clock.now() + timedelta(seconds=61))


async def test_the_signature_is_by_the_authoritys_key_and_not_by_the_throw_away_one(ca: House) -> None:
    certificate = await leaf(ca)
    key = root(ca).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256()))
    algorithm.check_signature(key, certificate.signature, certificate.tbs_certificate_bytes)


def pem(issued: Issued) -> bytes:
    return b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in issued.chain_ders)
