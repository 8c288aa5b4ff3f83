"""Bringing a store's tables to the form this version knows.

Owns: running the packaged migrations, all in one transaction. Does not own: the migrations (`migrations`).

Invariant: a store of a form this version does not know (a newer one) is refused before anything is changed.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from livery_ca.store.errors import StoreNewer

_SCRIPTS = Path(__file__).parent / "migrations"


def migrate(connection: Connection, path: Path) -> None:
    """Bring the tables up to date in the transaction under way. Raises `StoreNewer`."""
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    script = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(connection).get_current_revision()
    if current == script.get_current_head():
        return
    known = {revision.revision for revision in script.walk_revisions()}
    if current is not None and current not in known:
        why = f"its form {current!r} is not among the {len(known)} this version knows"
        fix = "run the newer version again, or restore the backup made before it was installed; the store is unchanged"
        raise StoreNewer(f"{path} was written by a newer livery", why=why, fix=fix)
    command.upgrade(config, "head")
