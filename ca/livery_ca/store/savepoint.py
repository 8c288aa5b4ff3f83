"""A part of a transaction that can be taken back by itself.

Owns: when a savepoint is rolled back, and when it must not be touched. Does not own: the transaction around it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError


def is_doubtful(error: BaseException) -> bool:
    """Whether the error leaves the transaction's own state in doubt: the database failed, and not just a constraint."""
    return isinstance(error, DBAPIError) and not isinstance(error, IntegrityError)


@contextmanager
def savepoint(connection: Connection) -> Iterator[None]:
    """Take back what is done within, if it raises.

    A database that fails (a full disk, an I/O error) may have rolled the whole transaction back already, and its
    savepoints are gone: to ask for one would hide the failure behind "no such savepoint". So that error passes as it is
    and ends the transaction.
    """
    # As plain SQL, which SQLite and PostgreSQL share: SQLAlchemy compiles its own savepoints anew each time. One name
    # serves all depths, since the innermost of that name is meant.
    connection.exec_driver_sql("SAVEPOINT part")
    try:
        yield
    except BaseException as error:
        if not is_doubtful(error):
            connection.exec_driver_sql("ROLLBACK TO SAVEPOINT part")
            connection.exec_driver_sql("RELEASE SAVEPOINT part")
        raise
    connection.exec_driver_sql("RELEASE SAVEPOINT part")
