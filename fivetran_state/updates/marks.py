"""A table of numbers by which look-ups find their rows without a search through all of them.

**It is a hint; DBOS's rows decide.** Whoever can write to it can make a look-up slow. They can hide an
update only if they change its row or its neighbours' too, which needs no marks (see `Series`).
"""

import asyncio
from collections.abc import Collection, Mapping

import sqlalchemy as sa
from dbos import DBOSClient
from sqlalchemy.dialects import postgresql, sqlite

from fivetran_state import database, dbos_internals
from fivetran_state.history.migrations import lock

table = sa.Table(
    "fivetran_state_marks",
    sa.MetaData(),
    sa.Column("account", sa.Text, primary_key=True),
    # With this collation, the primary key serves look-ups of names that begin alike.
    sa.Column(
        "name", sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), primary_key=True
    ),
    sa.Column("number", sa.BigInteger, nullable=False),
)

_IS_FILLED = {"account": "", "name": ""}
"""The row that says that the table has the series that are older than itself."""
_LAST_CHARACTER = "\U0010ffff"


class Marks:
    """The marks of one account. Every method may raise `DatabaseUnavailable`, and those that are not
    asynchronous block."""

    def __init__(self, client: DBOSClient, account: str) -> None:
        """`account` is the DBOS application."""
        self._client = client
        self._account = account
        self._original, _ = dbos_internals.tables(client)
        self._schema = dbos_internals.schema(client)
        theirs = self._original.get_execution_options()["schema_translate_map"]
        self._options = {"schema_translate_map": {**theirs, None: self._schema}}
        self._engine = self._original.execution_options(**self._options)

    def prepare(self, names: Collection[str]) -> None:
        """Create the table, and mark the last number of each series of workflows with these names.

        DBOS's tables have to be there. Several processes may call it at once.
        """
        if self.is_prepared():
            return
        with database.answering(), self._original.begin() as connection:
            lock(connection)
            exists = self._exists(connection)
            connection.execution_options(**self._options)
            if not exists:
                table.create(connection, checkfirst=False)
            if not self._is_filled(connection):
                self._fill(connection, names)

    def is_prepared(self) -> bool:
        """True if `prepare` has nothing to do."""
        with database.answering(), self._original.connect() as connection:
            return self._exists(connection) and self._is_filled(connection)

    def _fill(self, connection: sa.Connection, names: Collection[str]) -> None:
        last = dbos_internals.last_of_series(self._client, names)
        columns = [column.name for column in table.columns]
        connection.execute(sa.delete(table))
        connection.execute(sa.insert(table).from_select(columns, last))
        connection.execute(sa.insert(table).values(**_IS_FILLED, number=0))

    def get(self, name: str) -> int:
        """0 if there is none."""
        return self.get_all([name]).get(name, 0)

    def get_all(self, names: Collection[str]) -> dict[str, int]:
        """Those that there are."""
        marks = sa.select(table.c.name, table.c.number).where(
            table.c.account == self._account, table.c.name.in_(names)
        )
        with database.answering(), self._engine.connect() as connection:
            return {row.name: row.number for row in connection.execute(marks)}

    def put(self, numbers: Mapping[str, int]) -> None:
        with database.answering(), self._engine.begin() as connection:
            insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
            row = insert(table)
            connection.execute(
                row.on_conflict_do_update(
                    index_elements=[table.c.account, table.c.name],
                    set_={"number": row.excluded.number},
                ),
                # In one order, so that no two processes wait for each other.
                [
                    {"account": self._account, "name": name, "number": number}
                    for name, number in sorted(numbers.items())
                ],
            )

    async def beginning(self, prefix: str, limit: int) -> dict[str, int]:
        """The marks whose names begin so, in the order of the names."""
        marks = (
            sa.select(table.c.name, table.c.number)
            .where(table.c.account == self._account)
            .where(table.c.name >= prefix, table.c.name < prefix + _LAST_CHARACTER)
            .order_by(table.c.name)
            .limit(limit)
        )

        def read() -> dict[str, int]:
            with database.answering(), self._engine.connect() as connection:
                return {row.name: row.number for row in connection.execute(marks)}

        return await asyncio.to_thread(read)

    def _exists(self, connection: sa.Connection) -> bool:
        # Without the options: SQLAlchemy caches its own queries by them.
        return sa.inspect(connection).has_table(table.name, schema=self._schema)

    def _is_filled(self, connection: sa.Connection) -> bool:
        row = sa.select(table.c.number).where(
            *(table.c[column] == value for column, value in _IS_FILLED.items())
        )
        return connection.execute(row, execution_options=self._options).first() is not None
