"""The tables of the history, beside DBOS's own, as `migrations` leaves them."""

import sqlalchemy as sa

PREFIX = "fivetran_state_"

metadata = sa.MetaData()

connections = sa.Table(
    f"{PREFIX}connections",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, primary_key=True),
)
"""One row for each connection with a history. Writers lock it, so one writes at a time."""

versions = sa.Table(
    f"{PREFIX}versions",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column("ordinal", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("first_seen", sa.BigInteger, nullable=False),
    sa.Column("sealed", sa.Text, nullable=False),
    sa.Index(f"{PREFIX}versions_by_time", "account", "owner", "first_seen", "ordinal", unique=True),
)
"""One row for each version. The columns beside `sealed` find the row; only `sealed` is believed."""

contents = sa.Table(
    f"{PREFIX}contents",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column("content_id", sa.Text, primary_key=True),
    sa.Column("sealed", sa.Text, nullable=False),
)
"""The JSON text of each state, once for each connection and text."""

layout = sa.Table(
    f"{PREFIX}layout",
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
)
"""One row: how many steps of `migrations` have been taken."""
