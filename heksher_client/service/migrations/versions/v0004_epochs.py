"""The identity of the database, and its epochs."""

import json
from secrets import token_hex
from time import time

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    # With defaults, which new columns need in a table that has a row.
    op.add_column("state", sa.Column("database", sa.String, nullable=False, server_default=""))
    op.add_column("state", sa.Column("epoch", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("state", sa.Column("epochs", sa.Text, nullable=False, server_default="[]"))
    state = sa.table("state", sa.column("revision"), sa.column("database"), sa.column("epoch"), sa.column("epochs"))
    connection, epoch = op.get_bind(), int(time() * 1000)
    number = connection.scalar(sa.select(state.c.revision))
    values = {"database": token_hex(8), "epoch": epoch, "epochs": json.dumps([[epoch, number]])}
    connection.execute(sa.update(state).values(values))
