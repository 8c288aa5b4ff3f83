"""The first form of the store.

Owns: the tables as they were at the first release. Written out in full, without `store.schema`: that one moves on, this
one must not.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_INSTANT = sa.BigInteger  # microseconds since 1970
_SPAN = sa.Integer  # seconds


def upgrade() -> None:
    """Make every table."""
    _facts_and_changes()
    _bundles()
    _entries()
    _entry_members()
    _nodes()
    _join_tokens()
    _authorities()
    _intents()
    _jwt_records()


def _facts_and_changes() -> None:
    """What the store knows of itself, and the change feed."""
    op.create_table(
        "facts",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_facts")),
    )
    op.create_table(
        "changes",
        sa.Column("seq", _ROW_ID, autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("at", _INSTANT(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_changes")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_changes_at"), "changes", ["at"], unique=False)


def _bundles() -> None:
    """Trust bundles, one document each."""
    op.create_table(
        "bundles",
        sa.Column("row_id", _ROW_ID, autoincrement=True, nullable=False),
        sa.Column("trust_domain", sa.String(length=255), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("row_id", name=op.f("pk_bundles")),
        sa.UniqueConstraint("trust_domain", name=op.f("uq_bundles_trust_domain")),
        sqlite_autoincrement=True,
    )


def _entries() -> None:
    """Registration entries."""
    op.create_table(
        "entries",
        sa.Column("row_id", _ROW_ID, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("spiffe_id", sa.Text(), nullable=False),
        sa.Column("parent_id", sa.Text(), nullable=False),
        sa.Column("similarity", sa.LargeBinary(length=32), nullable=False),
        sa.Column("created_at", _INSTANT(), nullable=False),
        sa.Column("x509_svid_ttl", _SPAN(), nullable=True),
        sa.Column("jwt_svid_ttl", _SPAN(), nullable=True),
        sa.Column("admin", sa.Boolean(), nullable=False),
        sa.Column("downstream", sa.Boolean(), nullable=False),
        sa.Column("expires_at", _INSTANT(), nullable=True),
        sa.Column("dns_names", sa.Text(), nullable=False),
        sa.Column("revision_number", sa.BigInteger(), nullable=False),
        sa.Column("store_svid", sa.Boolean(), nullable=False),
        sa.Column("hint", sa.Text(), nullable=False),
        sa.Column("disable_x509_svid_prefetch", sa.Boolean(), nullable=False),
        sa.Column("jwt_svid_include_jti", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("row_id", name=op.f("pk_entries")),
        sa.UniqueConstraint("id", name=op.f("uq_entries_id")),
        sa.UniqueConstraint("similarity", name=op.f("uq_entries_similarity")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_entries_expires_at"), "entries", ["expires_at"], unique=False)
    op.create_index(op.f("ix_entries_parent_id"), "entries", ["parent_id"], unique=False)
    op.create_index(op.f("ix_entries_spiffe_id"), "entries", ["spiffe_id"], unique=False)


def _entry_members() -> None:
    """What entries hold sets of."""
    op.create_table(
        "entry_selectors",
        sa.Column("row_id", _ROW_ID, nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["row_id"], ["entries.row_id"], name=op.f("fk_entry_selectors_row_id_entries"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("row_id", "type", "value", name=op.f("pk_entry_selectors")),
    )
    op.create_index("ix_entry_selectors_type_value", "entry_selectors", ["type", "value"], unique=False)
    op.create_table(
        "entry_federations",
        sa.Column("row_id", _ROW_ID, nullable=False),
        sa.Column("trust_domain", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(
            ["row_id"], ["entries.row_id"], name=op.f("fk_entry_federations_row_id_entries"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["trust_domain"], ["bundles.trust_domain"], name=op.f("fk_entry_federations_trust_domain_bundles")
        ),
        sa.PrimaryKeyConstraint("row_id", "trust_domain", name=op.f("pk_entry_federations")),
    )
    op.create_index("ix_entry_federations_trust_domain", "entry_federations", ["trust_domain"], unique=False)


def _nodes() -> None:
    """Attested nodes."""
    op.create_table(
        "nodes",
        sa.Column("row_id", _ROW_ID, autoincrement=True, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("attestation_type", sa.String(length=255), nullable=False),
        sa.Column("serial", sa.String(length=64), nullable=False),
        sa.Column("serial_expires_at", _INSTANT(), nullable=False),
        sa.Column("new_serial", sa.String(length=64), nullable=False),
        sa.Column("new_expires_at", _INSTANT(), nullable=True),
        sa.Column("can_reattest", sa.Boolean(), nullable=False),
        sa.Column("agent_version", sa.String(length=255), nullable=False),
        sa.Column("bundle_sequence", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("row_id", name=op.f("pk_nodes")),
        sa.UniqueConstraint("id", name=op.f("uq_nodes_id")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "node_selectors",
        sa.Column("row_id", _ROW_ID, nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["row_id"], ["nodes.row_id"], name=op.f("fk_node_selectors_row_id_nodes"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("row_id", "type", "value", name=op.f("pk_node_selectors")),
    )
    op.create_index("ix_node_selectors_type_value", "node_selectors", ["type", "value"], unique=False)


def _join_tokens() -> None:
    """Join tokens and the keys they are bound to."""
    op.create_table(
        "join_tokens",
        sa.Column("value", sa.String(length=255), nullable=False),
        sa.Column("expires_at", _INSTANT(), nullable=False),
        sa.Column("bound_key", sa.LargeBinary(length=32), nullable=True),
        sa.PrimaryKeyConstraint("value", name=op.f("pk_join_tokens")),
    )
    op.create_index(op.f("ix_join_tokens_expires_at"), "join_tokens", ["expires_at"], unique=False)


def _authorities() -> None:
    """Signing authorities and their journal."""
    op.create_table(
        "authorities",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.Column("issued_at", _INSTANT(), nullable=False),
        sa.Column("not_before", _INSTANT(), nullable=False),
        sa.Column("not_after", _INSTANT(), nullable=False),
        sa.Column("chain", sa.LargeBinary(), nullable=False),
        sa.Column("roots", sa.LargeBinary(), nullable=False),
        sa.Column("jwt_key", sa.LargeBinary(), nullable=True),
        sa.Column("changed_at", _INSTANT(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_authorities")),
        sa.UniqueConstraint("key_id", name=op.f("uq_authorities_key_id")),
    )
    op.create_table(
        "authority_events",
        sa.Column("row_id", _ROW_ID, autoincrement=True, nullable=False),
        sa.Column("at", _INSTANT(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.Column("authority_id", sa.String(length=255), nullable=False),
        sa.Column("event", sa.String(length=32), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("row_id", name=op.f("pk_authority_events")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_authority_events_key_id"), "authority_events", ["key_id"], unique=False)


def _intents() -> None:
    """The issuance log and journal."""
    op.create_table(
        "log_leaves",
        sa.Column("idx", _ROW_ID, autoincrement=False, nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("idx", name=op.f("pk_log_leaves")),
    )
    op.create_table(
        "intents",
        sa.Column("idx", _ROW_ID, autoincrement=False, nullable=False),
        sa.Column("serial", sa.String(length=40), nullable=False),
        sa.Column("profile", sa.String(length=16), nullable=False),
        sa.Column("spiffe_id", sa.Text(), nullable=False),
        sa.Column("authority_id", sa.String(length=255), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("not_before", _INSTANT(), nullable=False),
        sa.Column("not_after", _INSTANT(), nullable=False),
        sa.Column("tbs", sa.LargeBinary(), nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("asked_by", sa.Text(), nullable=False),
        sa.Column("journalled_at", _INSTANT(), nullable=False),
        sa.Column("entry_id", sa.String(length=255), nullable=True),
        sa.Column("authorized_by", sa.Text(), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("settled_at", _INSTANT(), nullable=True),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("idx", name=op.f("pk_intents")),
        sa.UniqueConstraint("serial", name=op.f("uq_intents_serial")),
    )
    op.create_index(op.f("ix_intents_not_after"), "intents", ["not_after"], unique=False)
    op.create_index(
        "ix_intents_open",
        "intents",
        ["idx"],
        unique=False,
        sqlite_where=sa.text("outcome IS NULL"),
        postgresql_where=sa.text("outcome IS NULL"),
    )
    op.create_index(op.f("ix_intents_spiffe_id"), "intents", ["spiffe_id"], unique=False)
    op.create_index(
        "ix_intents_unissued",
        "intents",
        ["outcome", "idx"],
        unique=False,
        sqlite_where=sa.text("outcome <> 'issued'"),
        postgresql_where=sa.text("outcome <> 'issued'"),
    )


def _jwt_records() -> None:
    """What is kept of issued JWT-SVIDs."""
    op.create_table(
        "jwt_records",
        sa.Column("row_id", _ROW_ID, autoincrement=True, nullable=False),
        sa.Column("token_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("spiffe_id", sa.Text(), nullable=False),
        sa.Column("audience", sa.Text(), nullable=False),
        sa.Column("authority_id", sa.String(length=255), nullable=False),
        sa.Column("asked_by", sa.Text(), nullable=False),
        sa.Column("issued_at", _INSTANT(), nullable=False),
        sa.Column("expires_at", _INSTANT(), nullable=False),
        sa.Column("entry_id", sa.String(length=255), nullable=True),
        sa.Column("authorized_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("row_id", name=op.f("pk_jwt_records")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_jwt_records_token_hash")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_jwt_records_expires_at"), "jwt_records", ["expires_at"], unique=False)
    op.create_index(op.f("ix_jwt_records_spiffe_id"), "jwt_records", ["spiffe_id"], unique=False)
