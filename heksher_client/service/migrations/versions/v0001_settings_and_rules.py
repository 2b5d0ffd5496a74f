"""Settings, rules and context features, in SQLite."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "context_features",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("position", sa.Integer, nullable=False, unique=True),
    )
    op.create_table(
        "settings",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String, nullable=False, unique=True),
        sa.Column("type", sa.String, nullable=False),
        sa.Column("default_value", sa.Text, nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("version", sa.String, nullable=False),
    )
    op.create_table(
        "configurable_features",
        sa.Column("setting_id", sa.Integer, sa.ForeignKey("settings.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("feature", sa.String, sa.ForeignKey("context_features.name"), primary_key=True),
    )
    op.create_table(
        "aliases",
        sa.Column("alias", sa.String, primary_key=True),
        sa.Column(
            "setting_id", sa.Integer, sa.ForeignKey("settings.id", ondelete="CASCADE"), nullable=False, index=True
        ),
    )
    op.create_table(
        "rules",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("setting_id", sa.Integer, sa.ForeignKey("settings.id", ondelete="CASCADE"), nullable=False),
        sa.Column("conditions", sa.String, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.UniqueConstraint("setting_id", "conditions"),
        sqlite_autoincrement=True,
    )
