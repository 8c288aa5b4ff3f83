"""Keys made on this node, and the requests that carry their public half to the CA.

Owns: key generation (EC P-256) and certificate requests. Does not own: what the certificate will say; the CA takes the
public key alone and everything else from what was attested.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from livery.identity import SpiffeId

# What SPIRE's agents write, so that every CA that serves them takes our requests too.
_SUBJECT = x509.Name(
    [x509.NameAttribute(NameOID.COUNTRY_NAME, "US"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SPIRE")]
)


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_der(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The key as unencrypted PKCS#8 DER."""
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def request(key: ec.EllipticCurvePrivateKey, spiffe_id: SpiffeId | None = None) -> bytes:
    """A DER certificate request signed by the key; with the SPIFFE ID as its URI SAN when there is one to ask for."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_SUBJECT)
    if spiffe_id is not None:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(spiffe_id))])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
