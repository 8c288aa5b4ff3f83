"""Secrets stay out of logs: by field name, by look, however deep."""

from __future__ import annotations

import json
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from livery.runtime.redaction import HIDDEN, MAX_TEXT, _without_secrets, is_secret_name, redact, redact_text

TOKEN = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImEifQ.eyJzdWIiOiJzcGlmZmU6Ly90ZC9hIn0.c2lnbmF0dXJl"


def a_pem_key() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


SECRET_NAMES = """key token join_token Authorization proxy-authorization vault_token client_secret db_password
    x509_svid_key private_key Set-Cookie jwt dsn"""


@pytest.mark.parametrize("name", SECRET_NAMES.split())
def test_a_field_with_a_secret_name_is_hidden(name: str) -> None:
    assert redact({name: "harmless"}) == {name: HIDDEN}


@pytest.mark.parametrize("name", ["key_id", "public_key", "key_type", "keys", "event", "spiffe_id", "tokens", "path"])
def test_a_field_with_a_harmless_name_is_kept(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    "secret",
    [TOKEN, "hvs.CAESIJ1234567890abcdefghij", "s.abcdefghijklmnopqrstuvwx", f"Bearer {TOKEN}", "Basic dXNlcjpwYXNz"],
)
def test_a_token_inside_a_text_is_hidden(secret: str) -> None:
    cleaned = redact_text(f"upstream said {secret} and went away")
    assert secret.rsplit(maxsplit=1)[-1] not in cleaned
    assert cleaned.startswith("upstream said")


def test_a_private_key_inside_a_text_is_hidden_even_when_it_is_cut_short() -> None:
    pem = a_pem_key()
    assert redact_text(f"before\n{pem}after") == "before\n[hidden private key]\nafter"
    assert pem.splitlines()[1] not in redact_text(pem[:-60])


def test_a_join_token_id_keeps_its_first_four_characters() -> None:
    text = "spiffe://td/spire/agent/join_token/0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9 attested"
    assert redact_text(text) == "spiffe://td/spire/agent/join_token/0a1b… attested"


def test_secrets_are_found_at_any_depth_and_bytes_are_never_shown() -> None:
    event = {"a": [{"b": {"token": "x", "note": TOKEN}}], "c": b"\x01secret", "d": (1, None, True, 2.5)}
    cleaned = redact(event)
    assert cleaned == {
        "a": [{"b": {"token": HIDDEN, "note": "[hidden token]"}}],
        "c": "<7 bytes>",
        "d": [1, None, True, 2.5],
    }


def test_what_lies_too_deep_is_left_out_rather_than_followed() -> None:
    deep: dict[str, object] = {}
    deep["self"] = deep
    assert "…" in json.dumps(redact(deep), ensure_ascii=False)


def test_a_peer_cannot_write_to_the_terminal_of_who_reads_the_log() -> None:
    assert "\x1b" not in redact_text("\x1b[2J\x1b]0;pwned\x07\r\x9b1m")


@given(st.text(max_size=200), st.sampled_from(["hvs.CAESIJ1234567890abcdefghij", TOKEN, "s." + "a" * 24, "\x1b"]))
def test_a_secret_is_found_wherever_it_stands(around: str, secret: str) -> None:
    """The quick look that most texts get must not miss what the rules would find."""
    assert secret not in redact_text(f"{around} {secret} {around}")


SECRETS = [
    *("hvs.CAESIJ1234567890abcdefghij", "hvb.CAESIJ1234567890abcdefghij", "hvr.CAESIJ1234567890abcdefghij"),
    *("s." + "a" * 24, TOKEN, "bEARER abcdefgh", "BA\N{LATIN SMALL LETTER LONG S}IC abcdefgh", "join_token/0a1b2c3d"),
    *("-----BEGIN EC PRIVATE KEY-----xyz", "eyAiYWxnIjoiRVMyNTYi.eyJz", "ewoiYWxnIjoiRVMyNTYi.eyJz"),
    *("\x9b", "\x7f", "\u2028", "\x00"),
]


@pytest.mark.parametrize("secret", SECRETS)
@given(st.text(max_size=20))
def test_the_quick_look_that_most_texts_get_misses_nothing_that_the_rules_find(secret: str, around: str) -> None:
    text = f"{around}{secret}{around}"
    assert redact_text(text) == _without_secrets(text)


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_in_one_field_among_many_is_found(secret: str) -> None:
    others = {f"f{number}": f"value {number}" for number in range(10)}
    cleaned = redact({**others, "said": secret, "last": "x", "number": 1, "nothing": None})
    assert cleaned["said"] == _without_secrets(secret) != secret
    assert {**cleaned, "said": ""} == {**others, "said": "", "last": "x", "number": 1, "nothing": None}


def test_a_long_field_is_cut_though_nothing_in_the_event_is_secret() -> None:
    assert len(str(redact({"a": "x", "b": "x" * 10_000})["b"])) < MAX_TEXT + 50


def test_a_huge_text_is_cut_before_it_is_searched() -> None:
    assert len(redact_text("x" * 10_000_000)) < MAX_TEXT + 50


@given(st.integers(min_value=-120, max_value=20))
def test_a_secret_at_the_cut_is_not_shown_in_part(offset: int) -> None:
    """Another secret before it shrinks, and would pull the cut into what is shown."""
    pem = "-----BEGIN PRIVATE KEY-----" + "A" * 12_000 + "-----END PRIVATE KEY-----"
    text = (pem + " word" * 5000)[: 2 * MAX_TEXT + offset] + " " + TOKEN
    assert TOKEN[:20] not in redact_text(text)


@pytest.mark.parametrize(
    "piece", ["eyJ-", "eyJ", "-eyJaaaaaaaa", "eyJaaaaaaaa.a-", "Bearer ", "-----BEGIN ", "join_token/"]
)
def test_a_text_made_to_be_searched_for_long_is_not(piece: str) -> None:
    """Ten times longer than what is ever searched: minutes, if each beginning of a secret were followed to the end."""
    began = time.perf_counter()
    _without_secrets(piece * (20 * MAX_TEXT // len(piece)))
    assert time.perf_counter() - began < 2.0
