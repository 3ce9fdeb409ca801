"""Creates the tables of the history, and changes them in later versions.

The steps are SQL that both databases understand, and one row counts the steps that were taken.
Alembic would do the same with more: it takes no lock, so two processes that start at once would both
create the tables; it needs a folder of scripts and an environment of its own; and it could not take
the lock and look at the row in one transaction, which is all that makes this safe. The tables are few,
and every step has to work while servers of the version before still run, so a step only adds.

To change the tables: add a step at the end of `STEPS`, never change an earlier one, and describe
the result in `tables`. A test compares the two.
"""

import sqlalchemy as sa

from fivetran_state import database
from fivetran_state.errors import DatabaseUnavailable
from fivetran_state.history import tables

STEPS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE {schema}fivetran_state_connections ("
        "account TEXT NOT NULL, owner TEXT NOT NULL, PRIMARY KEY (account, owner))",
        "CREATE TABLE {schema}fivetran_state_versions ("
        "account TEXT NOT NULL, owner TEXT NOT NULL, ordinal BIGINT NOT NULL, "
        "first_seen BIGINT NOT NULL, sealed TEXT NOT NULL, "
        "PRIMARY KEY (account, owner, ordinal))",
        "CREATE UNIQUE INDEX fivetran_state_versions_by_time ON {schema}fivetran_state_versions "
        "(account, owner, first_seen, ordinal)",
        "CREATE TABLE {schema}fivetran_state_contents ("
        "account TEXT NOT NULL, owner TEXT NOT NULL, content_id TEXT NOT NULL, "
        "sealed TEXT NOT NULL, PRIMARY KEY (account, owner, content_id))",
    ),
)

_LOCK = 0x66697665_74726E31
"""The key of PostgreSQL's advisory lock: any number that nobody else uses."""


def upgrade(engine: sa.Engine, schema: str | None = None) -> None:
    """Take the steps that this database lacks. Several processes may call it at once.

    `schema` is PostgreSQL's, and has to exist. Raises `DatabaseUnavailable`, also if a newer version
    of this program has changed the tables.
    """
    with database.answering():
        with engine.connect() as connection:
            if _taken(connection, schema) == len(STEPS):
                return
        with engine.begin() as connection:
            lock(connection)
            _take_steps(connection, schema)


def is_current(engine: sa.Engine, schema: str | None = None) -> bool:
    """True if the database lacks no step. Raises as `upgrade` does, and changes nothing."""
    with database.answering(), engine.connect() as connection:
        return _taken(connection, schema) == len(STEPS)


def lock(connection: sa.Connection) -> None:
    """Wait until no other process changes the tables, until the end of the transaction."""
    if connection.dialect.name == "sqlite":
        # The driver begins no transaction before DDL.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))


def _take_steps(connection: sa.Connection, schema: str | None) -> None:
    quoted = connection.dialect.identifier_preparer.quote_schema
    prefix = "" if schema is None else f"{quoted(schema)}."
    taken = _taken(connection, schema)
    if taken is None:
        connection.exec_driver_sql(
            f"CREATE TABLE {prefix}{tables.layout.name} (number BIGINT NOT NULL PRIMARY KEY)"
        )
    for step in STEPS[taken or 0 :]:
        for statement in step:
            connection.exec_driver_sql(statement.format(schema=prefix))
    translated = connection.execution_options(schema_translate_map={None: schema})
    translated.execute(sa.delete(tables.layout))
    translated.execute(sa.insert(tables.layout).values(number=len(STEPS)))


def _taken(connection: sa.Connection, schema: str | None) -> int | None:
    """How many steps were taken; None before the first."""
    if not sa.inspect(connection).has_table(tables.layout.name, schema=schema):
        return None
    number: int = connection.execute(
        sa.select(tables.layout.c.number),
        execution_options={"schema_translate_map": {None: schema}},
    ).scalar_one()
    if number > len(STEPS):
        raise DatabaseUnavailable(
            "The tables of the state history were changed by a newer version of this program: "
            "update this one."
        )
    return number
