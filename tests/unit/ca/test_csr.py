"""CSRs: what is taken from them, and that hostile ones cost little and raise only our errors."""

from __future__ import annotations

import time
from ipaddress import IPv6Address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from livery_ca.certificates import encoding
from livery_ca.certificates.csr import CsrError, CsrKeyRefused, CsrMalformed, CsrSignatureInvalid, read_csr
from tests.pki import new_key

NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "me")])
KEY = new_key("P-256")


def csr(key: object = KEY, *names: x509.GeneralName, ca: bool = False) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(NAME)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)  # type: ignore[arg-type]


SOUND = csr()


def test_a_csr_gives_its_key_and_what_it_asks_for() -> None:
    uri = x509.UniformResourceIdentifier("spiffe://example.org/w")
    request = read_csr(csr(KEY, uri, x509.DNSName("a.org"), x509.IPAddress(IPv6Address("::1"))))
    assert request.public_key == KEY.public_key()
    assert (request.uris, request.dns_names) == (("spiffe://example.org/w",), ("a.org",))
    assert request.subject == NAME


def test_a_csr_that_wants_to_be_a_ca_gives_its_key_and_nothing_more() -> None:
    """There is no field for it to say so in what comes out."""
    request = read_csr(csr(ca=True))
    assert (request.uris, request.dns_names, request.public_key) == ((), (), KEY.public_key())


@pytest.mark.parametrize("kind", ["P-256", "P-384", "P-521", "rsa-2048", "rsa-4096"])
def test_keys_we_issue_to_are_taken(kind: str) -> None:
    key = new_key(kind)
    assert read_csr(csr(key)).public_key == key.public_key()


@pytest.mark.parametrize("kind", ["secp256k1", "rsa-1024"])
def test_other_keys_are_refused(kind: str) -> None:
    with pytest.raises(CsrKeyRefused) as refusal:
        read_csr(csr(new_key(kind)))
    assert refusal.value.fix


def test_ed25519_is_refused() -> None:
    der = x509.CertificateSigningRequestBuilder().subject_name(NAME).sign(new_key("ed25519"), None)
    with pytest.raises(CsrKeyRefused):
        read_csr(der.public_bytes(Encoding.DER))


def test_a_huge_rsa_key_is_refused_before_its_signature_is_computed() -> None:
    """RSA of 16,384 bits: the numbers are made up, since making such a key takes minutes; it is refused by size."""
    small = rsa.generate_private_key(65537, 2048)
    modulus = (1 << 16383) | small.public_key().public_numbers().n
    spki = _spki(modulus)
    der = _with_key(csr(new_key("rsa-2048")), new_key("rsa-2048"), spki)
    started = time.process_time()
    with pytest.raises(CsrKeyRefused):
        read_csr(der)
    assert time.process_time() - started < 0.5


def test_a_csr_signed_by_another_key_is_refused() -> None:
    """Whoever asks must hold the key."""
    other = new_key("P-256")
    der = _with_key(SOUND, KEY, _der_of(other))
    with pytest.raises(CsrSignatureInvalid):
        read_csr(der)
    broken = bytearray(SOUND)
    broken[-1] ^= 1
    with pytest.raises(CsrError):
        read_csr(bytes(broken))


@pytest.mark.parametrize("der", [b"", b"x", b"0\x80", SOUND[:-1], SOUND + b"\x00", b"\x30\x82" + b"\xff" * 100])
def test_what_is_no_csr_is_malformed(der: bytes) -> None:
    with pytest.raises(CsrMalformed):
        read_csr(der)


def test_a_csr_beyond_the_bound_is_not_even_parsed() -> None:
    with pytest.raises(CsrMalformed, match="more than"):
        read_csr(SOUND + b"\x00" * 65536)


@given(
    st.binary(max_size=200)
    | st.builds(
        lambda i, b: SOUND[:i] + b + SOUND[i + len(b) :], st.integers(0, 300), st.binary(min_size=1, max_size=4)
    )
)
def test_whatever_the_bytes_a_csr_is_read_or_refused_with_our_error(der: bytes) -> None:
    try:
        assert read_csr(der).public_key is not None
    except CsrError as error:
        assert error.what


def _der_of(key: object) -> bytes:
    from cryptography.hazmat.primitives.serialization import PublicFormat

    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined, no-any-return]


def _with_key(der: bytes, old: object, spki: bytes) -> bytes:
    """The CSR with another SubjectPublicKeyInfo in it, lengths mended, signature as it was."""
    request = x509.load_der_x509_csr(der)
    info = request.tbs_certrequest_bytes
    header = 4 if info[1] == 0x82 else 3 if info[1] == 0x81 else 2
    body = info[header:].replace(_der_of(old), spki)
    rest_at = der.index(info) + len(info)
    return encoding.value(encoding.SEQUENCE, encoding.value(encoding.SEQUENCE, body) + der[rest_at:])


def _spki(modulus: int) -> bytes:
    number = modulus.to_bytes(modulus.bit_length() // 8 + 1, "big")
    key = encoding.value(encoding.SEQUENCE, encoding.value(0x02, number) + bytes.fromhex("0203010001"))
    return encoding.value(encoding.SEQUENCE, bytes.fromhex("300d06092a864886f70d0101010500") + encoding.bits(key))
