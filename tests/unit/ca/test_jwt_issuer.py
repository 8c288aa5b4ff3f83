"""JWT-SVIDs as they are really issued: the issuer's rows of JWT-SVID, SPIRE's form, and a stranger's verdict."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt as other_jwt
from joserfc.jwk import KeySet
from sqlalchemy import select

from livery.errors import Kind
from livery.identity import SpiffeId, verify_jwt
from livery_ca.authorities import AuthoritySettings
from livery_ca.certificates.algorithm import KeyType
from livery_ca.issuance import jwt as issuing
from livery_ca.issuance.errors import AuthorityEnding, ClockBehind, NotSound, RequestRefused
from livery_ca.keys import KeyStoreUnavailable
from livery_ca.keys.memory import MemoryKeyStore
from livery_ca.model import AuthorityKind
from livery_ca.store import schema
from livery_ca.store.errors import StoreClosed
from tests.fakes.clock import START, FakeClock
from tests.fakes.key_store import FakeKeyStore
from tests.unit.ca.house import TD, House, house, token


def parts(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, payload, _ = text.split(".")
    return tuple(json.loads(base64.urlsafe_b64decode(p + "=" * (-len(p) % 4))) for p in (header, payload))  # type: ignore[return-value]


async def test_JWT_1_and_4_the_token_is_compact_and_its_header_holds_alg_kid_and_typ_alone(ca: House) -> None:
    issued = await ca.jwt_issuer.issue(token())
    header, _ = parts(issued.token)
    assert header == {"alg": "ES256", "kid": ca.authorities.jwt_signer().authority_id, "typ": "JWT"}


@pytest.mark.parametrize(
    ("key_type", "algorithm"), [(KeyType.EC_P256, "ES256"), (KeyType.EC_P384, "ES384"), (KeyType.RSA_2048, "RS256")]
)
async def test_JWT_2_the_algorithm_follows_the_key_and_another_library_accepts_the_token(
    tmp_path: Path, clock: FakeClock, key_type: KeyType, algorithm: str
) -> None:
    """joserfc shares no code with PyJWT; it reads our bundle's JWKS and the token."""
    settings = AuthoritySettings(TD, jwt_key_type=key_type)
    async with house(tmp_path / "s", clock, settings=settings, keys=MemoryKeyStore()) as ca:
        issued = await ca.jwt_issuer.issue(token())
        keys = KeySet.import_key_set(json.loads(ca.authorities.current_bundle().jwt_jwks()))
        decoded = other_jwt.decode(issued.token, keys, algorithms=[algorithm])
        assert decoded.claims["sub"] == "spiffe://example.org/w"
        assert verify_jwt(issued.token, ca.authorities.bundles(), "audience", clock.now()).id == issued.spiffe_id


async def test_JWT_5_the_subject_is_the_spiffe_id_and_never_the_trust_domains_own(ca: House) -> None:
    _, claims = parts((await ca.jwt_issuer.issue(token("/ns/a"))).token)
    assert claims["sub"] == "spiffe://example.org/ns/a"
    with pytest.raises(RequestRefused):
        await ca.jwt_issuer.issue(replace(token(), spiffe_id=SpiffeId(TD)))


async def test_JWT_6_the_audience_is_an_array_of_what_was_asked_for_and_never_empty(ca: House) -> None:
    """SPIRE always writes an array; so do we."""
    _, claims = parts((await ca.jwt_issuer.issue(token(audience=("one",)))).token)
    assert claims["aud"] == ["one"]
    _, claims = parts((await ca.jwt_issuer.issue(token(audience=("b", "a")))).token)
    assert claims["aud"] == ["b", "a"]
    for bad in ((), ("",), ("a", ""), ("x" * 2049,), tuple(str(i) for i in range(65))):
        with pytest.raises(RequestRefused):
            await ca.jwt_issuer.issue(token(audience=bad))


async def test_JWT_7_the_token_ends_when_asked_and_never_after_its_key(ca: House, clock: FakeClock) -> None:
    clock.advance(0.5)
    issued = await ca.jwt_issuer.issue(token(ttl=timedelta(seconds=90)))
    _, claims = parts(issued.token)
    assert (claims["iat"], claims["exp"]) == (START.timestamp(), START.timestamp() + 90)
    assert (issued.issued_at, issued.expires_at) == (START, START + timedelta(seconds=90))
    assert "nbf" not in claims
    clock.advance(timedelta(hours=23, minutes=59))
    signer = ca.authorities.jwt_signer()
    assert (await ca.jwt_issuer.issue(token())).expires_at == signer.not_after
    clock.advance(55)
    with pytest.raises(AuthorityEnding):
        await ca.jwt_issuer.issue(token())
    with pytest.raises(RequestRefused):
        await ca.jwt_issuer.issue(token(ttl=timedelta(seconds=9)))


async def test_JWT_9_the_signing_key_is_in_the_bundle_with_its_use_and_kid(ca: House) -> None:
    keys = json.loads(ca.authorities.current_bundle().to_jwks())["keys"]
    (entry,) = [key for key in keys if key["use"] == "jwt-svid"]
    assert entry["kid"] == parts((await ca.jwt_issuer.issue(token())).token)[0]["kid"]


async def test_JWT_11_iss_and_jti_are_there_when_asked_for_and_nothing_else_is(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with house(tmp_path / "s", clock, jwt_issuer="https://ca.example.org") as ca:
        _, plain = parts((await ca.jwt_issuer.issue(token())).token)
        assert set(plain) == {"sub", "aud", "iat", "exp", "iss"}
        assert plain["iss"] == "https://ca.example.org"
        _, numbered = parts((await ca.jwt_issuer.issue(token(jti=True))).token)
        assert set(numbered) == {*plain, "jti"}
        assert len(base64.urlsafe_b64decode(numbered["jti"] + "==")) == 16
        _, again = parts((await ca.jwt_issuer.issue(token(jti=True))).token)
        assert again["jti"] != numbered["jti"]


async def test_a_token_of_the_default_authority_has_no_issuer(ca: House) -> None:
    _, claims = parts((await ca.jwt_issuer.issue(token())).token)
    assert "iss" not in claims


async def test_an_issued_token_is_on_record_without_the_token(ca: House, tmp_path: Path) -> None:
    """By its hash: the record says who got what, and is no use to whoever reads it."""
    request = token(entry_id="e", authorized_by="policy 3", audience=("a", "b"))
    issued = await ca.jwt_issuer.issue(request)
    (row,) = await ca.store._database.read(lambda c: c.execute(select(schema.jwt_records)).all())
    assert row.token_hash == hashlib.sha256(issued.token.encode()).digest()
    assert (row.spiffe_id, json.loads(row.audience)) == (str(request.spiffe_id), ["a", "b"])
    assert (row.asked_by, row.entry_id, row.authorized_by) == (request.asked_by, "e", "policy 3")
    signature = issued.token.rpartition(".")[2].encode()
    for file in (tmp_path / "state").rglob("*"):
        assert not file.is_file() or signature not in file.read_bytes()
    assert issued.token not in repr(issued)


async def test_two_who_ask_an_rsa_authority_for_the_same_at_once_get_the_same_token_and_one_record(
    tmp_path: Path, clock: FakeClock
) -> None:
    """RSA signs the same claims the same way, and claims count whole seconds: the second is as good as the first."""
    settings = AuthoritySettings(TD, jwt_key_type=KeyType.RSA_2048)
    async with house(tmp_path / "s", clock, settings=settings, keys=MemoryKeyStore()) as ca:
        asked = [token(), token(), token("/other"), token()]
        first, second, other, third = await asyncio.gather(*(ca.jwt_issuer.issue(each) for each in asked))
        assert first.token == second.token == third.token != other.token
        rows = await ca.store._database.read(lambda c: c.execute(select(schema.jwt_records)).all())
        recorded = {row.token_hash for row in rows}
        assert recorded == {hashlib.sha256(each.token.encode()).digest() for each in (first, other)}


async def test_a_token_that_cannot_be_recorded_is_not_handed_out(ca: House) -> None:
    await ca.store.close()
    with pytest.raises(StoreClosed):
        await ca.jwt_issuer.issue(token())


async def test_a_token_that_does_not_verify_is_withheld(tmp_path: Path, clock: FakeClock) -> None:
    keys = FakeKeyStore()
    async with house(tmp_path / "s", clock, keys=keys) as ca:
        other = await ca.authorities.prepare(AuthorityKind.JWT, "test")
        keys.tamper = lambda _: MemoryKeyStore.sign(keys, other.key_id, keys.signed[-1:])
        with pytest.raises(NotSound) as refusal:
            await ca.jwt_issuer.issue(token())
        assert refusal.value.kind is Kind.INTERNAL
        assert not await ca.store._database.read(lambda c: c.execute(select(schema.jwt_records)).all())
        keys.tamper, keys.error = None, KeyStoreUnavailable("sealed", why="test")
        with pytest.raises(KeyStoreUnavailable):
            await ca.jwt_issuer.issue(token())


@pytest.mark.parametrize("change", [{"id": SpiffeId.of(TD, "/other")}, {"audience": ("audience", "more")}])
async def test_a_token_that_says_something_else_than_was_asked_is_withheld(
    ca: House, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    """Whatever a validator is content with: it must be for whom, and for what, was authorized."""
    monkeypatch.setattr(issuing, "verify_jwt", lambda *asked: replace(verify_jwt(*asked), **change))
    with pytest.raises(NotSound, match="something else"):
        await ca.jwt_issuer.issue(token())
    assert not await ca.store._database.read(lambda c: c.execute(select(schema.jwt_records)).all())


async def test_no_token_is_issued_behind_the_journal(ca: House, clock: FakeClock) -> None:
    from tests.unit.ca.house import workload

    await ca.issue(workload())
    clock.set_wall(START - timedelta(minutes=1))
    with pytest.raises(ClockBehind):
        await ca.jwt_issuer.issue(token())
