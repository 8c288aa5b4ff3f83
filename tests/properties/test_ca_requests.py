"""Whatever bytes a stranger sends to be attested or certified, the answer is one of ours and never a crash."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from livery.errors import Kind, LiveryError
from livery.identity import InvalidSpiffeId, TrustDomain
from livery.wire import types_api
from livery_ca.attest import join_token, pop_chain, pop_forms
from livery_ca.attest.attestor import AttestationRefused, MalformedEvidence
from livery_ca.attest.pop_chain import ChainLimits
from livery_ca.attest.x509pop import check_proof
from livery_ca.doors.messages import csrs, entry_form, node_form, paging
from livery_ca.doors.refusals import InvalidArgument
from livery_ca.entries import validation
from tests.fakes.clock import START
from tests.fakes.node_agent import new_csr, new_key
from tests.pki import TestCa, Twist, usage
from tests.pki import new_key as key_of

OURS = TrustDomain("example.org")
ROOT = TestCa("nodes.test", now=START, spiffe_id=None)
SITE = ROOT.intermediate(name="Site", spiffe_id=None)
TWIST = Twist(subject="node", key_usage=usage(digital_signature=True), uris=["x509pop://example.org/role/web"])
CHAIN = [cert.public_bytes(Encoding.DER) for cert in (SITE.sign_leaf("", TWIST), SITE.certificate)]
CSR = new_csr(new_key(), x509.UniformResourceIdentifier("spiffe://example.org/w"), x509.DNSName("w.example"))

# Changes of single bytes: what is almost right goes deeper than what is garbage.
CHANGES = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=4)
THOROUGH = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def changed(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    found = bytearray(data)
    for place, value in changes:
        found[place % len(found)] = value
    return bytes(found)


def attested(ders: list[bytes]) -> None:
    """Everything that happens to a chain before the challenge."""
    chain = pop_chain.read_chain(ders, ChainLimits())
    node = pop_chain.verify_chain(chain, [ROOT.certificate], START)
    pop_chain.selectors_of(node, OURS)


def refused_in_order(work: Any, *allowed: type[Exception]) -> None:
    """Whatever goes wrong is one of the allowed errors."""
    try:
        work()
    except allowed:
        return


def test_the_chain_that_is_changed_below_is_sound() -> None:
    attested(CHAIN)
    assert csrs._read(CSR, csrs.MINTED).dns_names == ("w.example",)


@THOROUGH
@given(st.integers(0, 1), CHANGES)
def test_a_chain_with_changed_bytes_is_refused_or_true(which: int, changes: list[tuple[int, int]]) -> None:
    ders = list(CHAIN)
    ders[which] = changed(ders[which], changes)
    refused_in_order(lambda: attested(ders), MalformedEvidence, AttestationRefused)


@pytest.mark.parametrize("which", [0, 1])
def test_a_serial_that_is_not_positive_is_refused(which: int) -> None:
    """With two's complement in mind: the first bit of its first byte."""
    ders = list(CHAIN)
    number = x509.load_der_x509_certificate(ders[which]).serial_number
    serial = number.to_bytes((number.bit_length() + 8) // 8)
    ders[which] = ders[which].replace(serial, bytes([serial[0] | 0x80]) + serial[1:], 1)
    with pytest.raises(MalformedEvidence):
        attested(ders)


@THOROUGH
@given(CHANGES)
def test_a_csr_with_changed_bytes_is_refused_or_true(changes: list[tuple[int, int]]) -> None:
    refused_in_order(lambda: csrs._read(changed(CSR, changes), csrs.MINTED), InvalidArgument)


@THOROUGH
@given(st.binary(max_size=300))
def test_bytes_are_no_csr(data: bytes) -> None:
    with pytest.raises(InvalidArgument):
        csrs._read(data, csrs.WORKLOAD)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary().map(lambda b: base64.b64encode(b).decode()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["certificates", "nonce"]), inner),
    max_leaves=10,
)
PAYLOADS = st.binary() | JSON.map(lambda value: json.dumps(value).encode())


@THOROUGH
@given(PAYLOADS)
def test_attestation_data_is_read_or_malformed(payload: bytes) -> None:
    refused_in_order(lambda: pop_forms.read_data(payload, max_intermediates=4), MalformedEvidence)


@THOROUGH
@given(
    PAYLOADS
    | st.binary(max_size=80).map(
        lambda b: json.dumps(
            {"ecdsa_signature": {n: base64.b64encode(b).decode() for n in ("nonce", "r", "s")}}
        ).encode()
    ),
    st.sampled_from(["P-256", "rsa-2048"]),
)
def test_a_response_nobody_signed_is_never_a_proof(payload: bytes, kind: str) -> None:
    with pytest.raises((MalformedEvidence, AttestationRefused)):
        check_proof(key_of(kind).public_key(), b"n" * 32, pop_forms.read_response(payload))


@given(st.text(max_size=300))
def test_a_token_makes_an_agents_id_or_none(token: str) -> None:
    try:
        agent = join_token.agent_of(OURS, token)
    except InvalidSpiffeId:
        return
    assert agent.segments == ("spire", "agent", "join_token", token)


@given(
    st.builds(
        types_api.Entry,
        id=st.text(),
        spiffe_id=st.builds(types_api.SPIFFEID, trust_domain=st.sampled_from(["example.org", "", "x"]), path=st.text()),
        parent_id=st.builds(types_api.SPIFFEID, trust_domain=st.just("example.org"), path=st.sampled_from(["/a", "/"])),
        selectors=st.lists(st.builds(types_api.Selector, type=st.text(), value=st.text()), max_size=3),
        x509_svid_ttl=st.integers(-(2**31), 2**31 - 1),
        expires_at=st.integers(-(2**63), 2**63 - 1),
        dns_names=st.lists(st.text(), max_size=3),
        hint=st.text(),
        federates_with=st.lists(st.text(), max_size=2),
    )
)
def test_an_entry_is_read_or_invalid(message: types_api.Entry) -> None:
    try:
        fields = entry_form.read_fields(message, OURS, entry_form.ALL_FIELDS)
        entry_form.check(entry_form.new_entry(message, fields, START))
    except LiveryError as error:
        assert error.kind is Kind.INVALID


@given(st.text())
def test_a_page_token_is_read_or_refused(token: str) -> None:
    refused_in_order(lambda: paging.read_page(5, token), InvalidArgument)


@given(st.text() | st.from_regex(node_form._GO_TIME, fullmatch=True))
def test_a_time_is_read_or_is_no_filter(text: str) -> None:
    node_form.read_time(text)


@given(st.from_regex(r"[a-zA-Z0-9.*_-]{0,80}", fullmatch=True) | st.text())
def test_a_dns_name_that_is_accepted_is_one(name: str) -> None:
    try:
        validation.check_dns_name(name)
    except validation.InvalidEntry:
        return
    labels = name.removeprefix("*.").split(".")
    # Letters, digits and hyphens, and the underscores that SPIRE takes and real host names carry.
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,63}", label) for label in labels)
    assert not any(label.startswith("-") or label.endswith("-") for label in labels)
