"""The tables, as SQLAlchemy Core sees them.

Owns: names, types, keys and indexes; the two column types that turn numbers into instants and spans. Does not own: how
a table came to be so (`migrations`; a test holds the two together), nor any statement.

Every instant is a whole number of microseconds since 1970 in UTC, so that one column type sorts and compares alike in
every database.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine.interfaces import Dialect

from livery_ca.store.rows import decodes

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Instant(TypeDecorator[datetime]):
    """An aware datetime as microseconds since 1970."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        """Instant to number."""
        return None if value is None else (value - EPOCH) // MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Number to instant."""
        return None if value is None else _instant(value)


@decodes
def _instant(microseconds: int) -> datetime:
    return EPOCH + microseconds * MICROSECOND


class Span(TypeDecorator[timedelta]):
    """A timedelta as whole seconds."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: timedelta | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        """Span to seconds."""
        return None if value is None else int(value.total_seconds())

    def process_result_value(self, value: int | None, dialect: Dialect) -> timedelta | None:  # noqa: ARG002
        """Seconds to span."""
        return None if value is None else _span(value)


@decodes
def _span(seconds: int) -> timedelta:
    return timedelta(seconds=seconds)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite gives 64-bit row ids to INTEGER keys only; elsewhere INTEGER is 32 bits.
RowId = BigInteger().with_variant(Integer(), "sqlite")

facts = Table(
    "facts",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

entries = Table(
    "entries",
    metadata,
    Column("row_id", RowId, primary_key=True, autoincrement=True),
    Column("id", String(255), nullable=False, unique=True),
    Column("spiffe_id", Text, nullable=False, index=True),
    Column("parent_id", Text, nullable=False, index=True),
    # SHA-256 over SPIFFE ID, parent and selector set: makes "similar entry" a matter of one unique index.
    Column("similarity", LargeBinary(32), nullable=False, unique=True),
    Column("created_at", Instant, nullable=False),
    Column("x509_svid_ttl", Span),
    Column("jwt_svid_ttl", Span),
    Column("admin", Boolean, nullable=False),
    Column("downstream", Boolean, nullable=False),
    Column("expires_at", Instant, index=True),
    Column("dns_names", Text, nullable=False),
    Column("revision_number", BigInteger, nullable=False),
    Column("store_svid", Boolean, nullable=False),
    Column("hint", Text, nullable=False),
    Column("disable_x509_svid_prefetch", Boolean, nullable=False),
    Column("jwt_svid_include_jti", Boolean, nullable=False),
    sqlite_autoincrement=True,  # a deleted row's id is never given out again: page tokens stay true
)

entry_selectors = Table(
    "entry_selectors",
    metadata,
    Column("row_id", RowId, ForeignKey("entries.row_id", ondelete="CASCADE"), primary_key=True),
    Column("type", Text, primary_key=True),
    Column("value", Text, primary_key=True),
    Index("ix_entry_selectors_type_value", "type", "value"),
)

bundles = Table(
    "bundles",
    metadata,
    Column("row_id", RowId, primary_key=True, autoincrement=True),
    Column("trust_domain", String(255), nullable=False, unique=True),
    Column("document", Text, nullable=False),  # one document: a bundle is read and written whole
    sqlite_autoincrement=True,
)

entry_federations = Table(
    "entry_federations",
    metadata,
    Column("row_id", RowId, ForeignKey("entries.row_id", ondelete="CASCADE"), primary_key=True),
    Column("trust_domain", String(255), ForeignKey("bundles.trust_domain"), primary_key=True),
    Index("ix_entry_federations_trust_domain", "trust_domain"),
)

nodes = Table(
    "nodes",
    metadata,
    Column("row_id", RowId, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("attestation_type", String(255), nullable=False),
    Column("serial", String(64), nullable=False),
    Column("serial_expires_at", Instant, nullable=False),
    Column("new_serial", String(64), nullable=False),
    Column("new_expires_at", Instant),
    Column("can_reattest", Boolean, nullable=False),
    Column("agent_version", String(255), nullable=False),
    Column("bundle_sequence", BigInteger),
    sqlite_autoincrement=True,
)

node_selectors = Table(
    "node_selectors",
    metadata,
    Column("row_id", RowId, ForeignKey("nodes.row_id", ondelete="CASCADE"), primary_key=True),
    Column("type", Text, primary_key=True),
    Column("value", Text, primary_key=True),
    Index("ix_node_selectors_type_value", "type", "value"),
)

join_tokens = Table(
    "join_tokens",
    metadata,
    Column("value", String(255), primary_key=True),
    Column("expires_at", Instant, nullable=False, index=True),
    Column("bound_key", LargeBinary(32)),
)

authorities = Table(
    "authorities",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("key_id", String(64), nullable=False, unique=True),
    Column("issued_at", Instant, nullable=False),
    Column("not_before", Instant, nullable=False),
    Column("not_after", Instant, nullable=False),
    Column("chain", LargeBinary, nullable=False),
    Column("roots", LargeBinary, nullable=False),
    Column("jwt_key", LargeBinary),
    Column("changed_at", Instant),
)

authority_events = Table(
    "authority_events",
    metadata,
    Column("row_id", RowId, primary_key=True, autoincrement=True),
    Column("at", Instant, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("key_id", String(64), nullable=False, index=True),
    Column("authority_id", String(255), nullable=False),
    Column("event", String(32), nullable=False),
    Column("why", Text, nullable=False),
    sqlite_autoincrement=True,
)

log_leaves = Table(
    "log_leaves",
    metadata,
    # RFC 6962 2.1: leaves are numbered from 0 without a gap. The number is given by the store, not by the database.
    Column("idx", RowId, primary_key=True, autoincrement=False),
    Column("leaf_hash", LargeBinary(32), nullable=False),
)

intents = Table(
    "intents",
    metadata,
    Column("idx", RowId, primary_key=True, autoincrement=False),
    Column("serial", String(40), nullable=False),
    Column("profile", String(16), nullable=False),
    Column("spiffe_id", Text, nullable=False, index=True),
    Column("authority_id", String(255), nullable=False),
    Column("key_hash", LargeBinary(32), nullable=False),
    Column("not_before", Instant, nullable=False),
    Column("not_after", Instant, nullable=False, index=True),
    Column("tbs", LargeBinary, nullable=False),
    Column("leaf_hash", LargeBinary(32), nullable=False),
    Column("asked_by", Text, nullable=False),
    Column("journalled_at", Instant, nullable=False),
    Column("entry_id", String(255)),
    Column("authorized_by", Text, nullable=False),
    Column("outcome", String(16)),
    Column("settled_at", Instant),
    Column("reason", Text, nullable=False, server_default=""),
    Column("signature", LargeBinary),
    UniqueConstraint("serial"),
)
# What is open is found at start without reading the journal through; what is not issued is listed without it too.
Index("ix_intents_open", intents.c.idx, sqlite_where=text("outcome IS NULL"), postgresql_where=text("outcome IS NULL"))
Index(
    "ix_intents_unissued",
    intents.c.outcome,
    intents.c.idx,
    sqlite_where=text("outcome <> 'issued'"),
    postgresql_where=text("outcome <> 'issued'"),
)

jwt_records = Table(
    "jwt_records",
    metadata,
    Column("row_id", RowId, primary_key=True, autoincrement=True),
    Column("token_hash", LargeBinary(32), nullable=False, unique=True),
    Column("spiffe_id", Text, nullable=False, index=True),
    Column("audience", Text, nullable=False),
    Column("authority_id", String(255), nullable=False),
    Column("asked_by", Text, nullable=False),
    Column("issued_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False, index=True),
    Column("entry_id", String(255)),
    Column("authorized_by", Text, nullable=False),
    sqlite_autoincrement=True,
)

changes = Table(
    "changes",
    metadata,
    Column("seq", RowId, primary_key=True, autoincrement=True),
    Column("kind", String(16), nullable=False),
    Column("key", Text, nullable=False),
    Column("at", Instant, nullable=False, index=True),
    sqlite_autoincrement=True,  # a sequence number is never used twice, even after pruning
)
