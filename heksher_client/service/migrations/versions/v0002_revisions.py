"""A revision, a log of all changes, and a tag for each setting."""

from secrets import token_hex

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    state = op.create_table(
        "state",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("context_features_tag", sa.String, nullable=False),
    )
    op.bulk_insert(state, [{"id": 1, "revision": 0, "context_features_tag": token_hex(8)}])
    op.create_table(
        "changes",
        sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("settings", sa.Text, nullable=False),
        sa.Column("former", sa.Text, nullable=False),
        sa.Column("new", sa.Text, nullable=False),
    )
    # With a default, which SQLite requires for new columns. To copy the table instead would delete all rules (CASCADE).
    op.add_column("settings", sa.Column("tag", sa.String, nullable=False, server_default=""))
    settings = sa.table("settings", sa.column("id"), sa.column("tag"))
    connection = op.get_bind()
    for key in connection.scalars(sa.select(settings.c.id)).all():
        connection.execute(sa.update(settings).where(settings.c.id == key).values(tag=token_hex(8)))
