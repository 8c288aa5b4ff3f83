"""The second form of a certificate that was signed with ECDSA: the same certificate under another fingerprint.

Owns: writing that form. Does not own: what follows for a node of either name (`doors.joining`).

Where (r, s) is a signature, (r, n - s) is one too (SEC 1 4.1.4), and it takes no key to compute it. So whoever holds
such a certificate holds two of them, alike in everything but their last bytes and the name made of all bytes. Neither
is the right one: issuers choose at random.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from livery_ca.certificates import encoding


def twin_of(cert: x509.Certificate, issuer: x509.Certificate) -> bytes | None:
    """The other form of a certificate that this issuer signed, as DER; None where a signature has one form only."""
    key = issuer.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return None
    r, s = decode_dss_signature(cert.signature)
    whole, tbs = cert.public_bytes(Encoding.DER), cert.tbs_certificate_bytes
    after_tbs = whole.index(tbs) + len(tbs)
    algorithm = whole[after_tbs : -len(encoding.bits(cert.signature))]
    other = encode_dss_signature(r, key.curve.group_order - s)
    return encoding.value(encoding.SEQUENCE, tbs + algorithm + encoding.bits(other))
