"""How the database carries out the queries of the program: which of them read every workflow."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

TABLES = ("workflow_status", "workflow_input", "workflow_output", "operation_outputs")
UNFINISHED = ("pending", "in_flight", "in_flight_v2", "delayed", "failed")
"""Indexes of the workflows that have not ended well, which are few."""
BY_TIME = "workflow_status_created_at_index"

Query = tuple[str, Any]


@contextmanager
def queries() -> Iterator[list[Query]]:
    """The queries of DBOS's tables of workflows that this process makes meanwhile."""
    found: dict[str, Any] = {}

    def note(
        _: sa.Connection, __: object, statement: str, parameters: Any, ___: object, many: bool
    ) -> None:
        is_query = statement.lstrip().startswith(("SELECT", "UPDATE", "DELETE"))
        if is_query and not many and any(table in statement for table in TABLES):
            found.setdefault(statement, parameters)

    noted: list[Query] = []
    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield noted
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
        noted += found.items()


def searches(engine: sa.Engine, made: list[Query]) -> list[str]:
    """The queries that read every workflow, or everybody's, and how the database does that."""
    is_sqlite = engine.dialect.name == "sqlite"
    found = []
    with engine.connect() as connection:
        if not is_sqlite:
            # Otherwise it reads the whole of a table that is small.
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        for statement, parameters in made:
            explain = "EXPLAIN QUERY PLAN " if is_sqlite else "EXPLAIN "
            rows = connection.exec_driver_sql(explain + statement, parameters).all()
            plan = [str(row[-1]).strip() for row in rows]
            read = _read_by_sqlite(plan) if is_sqlite else _read_by_postgres(plan)
            if any(not _is_few(index, statement) for index in read):
                found.append(f"{statement}\n{parameters}\n" + "\n".join(plan))
    return found


def _is_few(index: str | None, statement: str) -> bool:
    if index is None:
        return False
    if index == BY_TIME:
        return "LIMIT" in statement and "LIKE" not in statement
    return index in {f"idx_workflow_status_{each}" for each in UNFINISHED}


def _read_by_sqlite(plan: list[str]) -> Iterator[str | None]:
    """For each table or index that is read from end to end: the index, or None."""
    for line in plan:
        scan = re.match(rf"SCAN (?:main\.)?(?:{'|'.join(TABLES)})\b(?:.* INDEX (\w+))?", line)
        if scan is not None:
            yield scan[1]


def _read_by_postgres(plan: list[str]) -> Iterator[str | None]:
    for line, following in zip(plan, [*plan[1:], ""], strict=True):
        if re.search(rf"Seq Scan on (?:{'|'.join(TABLES)})\b", line):
            yield None
        scan = re.search(rf"Index .*using (\w+) on (?:{'|'.join(TABLES)})\b", line)
        scan = scan or re.search(r"Bitmap Index Scan on (\w+)", line)
        if scan is not None and not following.startswith("Index Cond"):
            yield scan[1]
