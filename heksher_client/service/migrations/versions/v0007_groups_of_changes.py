"""Groups of changes that were made together."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("changes", sa.Column("group_id", sa.Integer))
    op.create_index("ix_changes_group_id", "changes", ["group_id"])
    changes = sa.table("changes", *(sa.column(name) for name in ("revision", "at", "actor", "group_id")))
    # The changes of one batch have the same time and author, and revisions without a gap.
    first, last = sa.func.min(changes.c.revision), sa.func.max(changes.c.revision)
    is_batch = sa.and_(sa.func.count() > 1, sa.func.count() == last - first + 1)
    batches = sa.select(first, last).group_by(changes.c.at, changes.c.actor).having(is_batch)
    connection = op.get_bind()
    for batch, end in connection.execute(batches).all():
        its = changes.c.revision.between(batch, end)
        connection.execute(sa.update(changes).where(its).values(group_id=batch))
