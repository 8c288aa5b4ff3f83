"""The words a policy may use beyond the fixed ones: which request headers, which token claims.

Owns: `Vocabulary` and the schema's text for it. Does not own: what a header or claim means; reading them
(`model.context`).

Invariant: a header's name is lower case, and every name stands in the schema as an optional `Set<String>`: a header
has as many values as the request has lines of it, a claim of one string is a set of one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources

from livery_policy.errors import InvalidVocabulary

NAMESPACE = "Livery"
_HEADERS = "type Headers = {};"
_CLAIMS = "type Claims = { iss: String, sub: String, aud: Set<String> };"
# RFC 9110 5.1: a field name is a token. Without the characters that would need escapes in Cedar or lower-casing.
_HEADER = re.compile(r"[a-z0-9!#$%&'*+.^_|~-]{1,64}")
_CLAIM = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")
_FIXED_CLAIMS = frozenset({"iss", "sub", "aud"})


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Header names (lower case) and claim names that policies may read, each without duplicates."""

    headers: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.headers:
            if not _HEADER.fullmatch(name):
                raise InvalidVocabulary(f"{name!r} is no header a policy can read", fix="write it in lower case")
        for name in self.claims:
            if not _CLAIM.fullmatch(name):
                raise InvalidVocabulary(f"{name!r} is no claim a policy can read")
        if clash := _FIXED_CLAIMS & set(self.claims):
            raise InvalidVocabulary(f"the claim {min(clash)!r} is always known", fix="leave it out of the list")
        for names in (self.headers, self.claims):
            if len(set(names)) != len(names):
                raise InvalidVocabulary("a name is listed twice", why=", ".join(names))

    def schema_text(self) -> str:
        """The Cedar schema with these headers and claims in it."""
        text = resources.files("livery_policy.model").joinpath("schema.cedarschema").read_text("utf-8")
        headers = "".join(f" {_quoted(n)}?: Set<String>," for n in sorted(self.headers))
        claims = "".join(f", {_quoted(n)}?: Set<String>" for n in sorted(self.claims))
        text = _replaced(text, _HEADERS, f"type Headers = {{{headers} }};")
        return _replaced(text, _CLAIMS, f"{_CLAIMS.removesuffix(' };')}{claims} }};")


def _quoted(name: str) -> str:
    return f'"{name}"'


def _replaced(text: str, old: str, new: str) -> str:
    if text.count(old) != 1:
        raise InvalidVocabulary("the schema file is not the one this release was built with", why=f"no single {old!r}")
    return text.replace(old, new)
