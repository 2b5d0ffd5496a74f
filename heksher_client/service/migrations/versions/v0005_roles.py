"""The role `declare`: tokens with the role `read` could declare settings before, as programs do."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.execute("UPDATE tokens SET role = 'declare' WHERE role = 'read'")
