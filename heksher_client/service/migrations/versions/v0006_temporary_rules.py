"""Periods of rules, and who changed each rule last, and when."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("rules", sa.Column("starts_at", sa.DateTime(timezone=True)))
    op.add_column("rules", sa.Column("ends_at", sa.DateTime(timezone=True)))
    op.add_column("rules", sa.Column("in_effect", sa.Boolean, nullable=False, server_default=sa.true()))
    op.add_column("rules", sa.Column("changed_at", sa.DateTime(timezone=True)))
    op.add_column("rules", sa.Column("changed_by", sa.String))
    op.add_column("state", sa.Column("next_transition", sa.DateTime(timezone=True)))
    time = sa.DateTime(timezone=True)
    rules = sa.table("rules", sa.column("id"), sa.column("changed_at", time), sa.column("changed_by"))
    names = ("revision", "action", "new", "actor")
    changes = sa.table("changes", *(sa.column(name) for name in names), sa.column("at", time))
    log = sa.select(changes).where(changes.c.action.in_(["rule added", "rule changed"])).order_by(changes.c.revision)
    connection = op.get_bind()
    last = {json.loads(change.new)["rule_id"]: change for change in connection.execute(log)}
    for rule_id, change in last.items():
        values = {"changed_at": change.at, "changed_by": change.actor}
        connection.execute(sa.update(rules).where(rules.c.id == rule_id).values(**values))
