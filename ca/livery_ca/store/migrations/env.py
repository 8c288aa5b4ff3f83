"""What Alembic runs for each upgrade: on the connection it is given, in the transaction already begun there."""

from __future__ import annotations

from alembic import context

from livery_ca.store import schema

context.configure(connection=context.config.attributes["connection"], target_metadata=schema.metadata)
context.run_migrations()
