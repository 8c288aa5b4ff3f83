"""The verdict on a draft: all rules run, and every fault is named at once.

Owns: which rules a leaf and which a CA must keep, and the refusal. Does not own: the rules (`rules`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from livery.errors import Kind, LiveryError
from livery_ca.certificates.draft import Draft, Plan
from livery_ca.certificates.profile import CaPlan, LeafPlan
from livery_ca.certificates.rules import ca, common, leaf


class LintRefused(LiveryError):
    """The certificate as planned breaks a rule; nothing was signed. `findings` names each rule and its fault."""

    code = "lint_refused"
    kind = Kind.INVALID

    def __init__(self, findings: Sequence[str]) -> None:
        super().__init__("the certificate was refused before signing", why="; ".join(findings))
        self.findings = tuple(findings)


LeafRule = Callable[[Draft[LeafPlan]], str]
CaRule = Callable[[Draft[CaPlan]], str]

LEAF_RULES: tuple[LeafRule, ...] = (
    common.version_is_3,
    common.serial_is_positive_and_fits,
    common.signature_algorithm_is_the_issuers,
    common.issuer_is_named_exactly,
    common.subject_is_as_planned,
    common.key_is_as_planned,
    common.subject_key_identifier_is_the_keys,
    common.authority_key_identifier_is_the_issuers,
    common.validity_is_as_planned,
    common.validity_lies_within_the_issuers,
    leaf.lifetime_is_worth_issuing,
    leaf.extensions_are_the_leafs_and_no_others,
    leaf.one_uri_names_the_spiffe_id,
    leaf.leaf_id_has_a_path,
    leaf.leaf_id_is_of_its_profile,
    leaf.alternative_names_are_the_planned_ones,
    leaf.dns_names_are_well_formed,
    common.alternative_name_is_critical_when_the_subject_is_empty,
    leaf.leaf_is_no_ca,
    leaf.leaf_key_usage_is_exact,
    leaf.leaf_serves_and_calls,
    leaf.leaf_key_is_strong,
    leaf.leaf_key_is_not_the_issuers,
)

CA_RULES: tuple[CaRule, ...] = (
    common.version_is_3,
    common.serial_is_positive_and_fits,
    common.signature_algorithm_is_the_issuers,
    common.issuer_is_named_exactly,
    common.subject_is_as_planned,
    common.key_is_as_planned,
    common.subject_key_identifier_is_the_keys,
    common.authority_key_identifier_is_the_issuers,
    common.validity_is_as_planned,
    common.validity_lies_within_the_issuers,
    ca.extensions_are_the_cas_and_no_others,
    ca.one_uri_names_the_trust_domain,
    common.alternative_name_is_critical_when_the_subject_is_empty,
    ca.ca_is_a_ca,
    ca.ca_key_usage_is_exact,
    ca.ca_key_is_strong,
)


def lint_leaf(draft: Draft[LeafPlan]) -> None:
    """Raise `LintRefused` with every fault of the drafted leaf, or return."""
    _judge(draft, LEAF_RULES)


def lint_ca(draft: Draft[CaPlan]) -> None:
    """Raise `LintRefused` with every fault of the drafted CA certificate, or return."""
    _judge(draft, CA_RULES)


def _judge(draft: Draft[Plan], rules: Sequence[Callable[[Draft[Plan]], str]]) -> None:
    findings = [f"{rule.__name__}: {fault}" for rule in rules if (fault := rule(draft))]
    if findings:
        raise LintRefused(findings)
