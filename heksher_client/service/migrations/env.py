"""What Alembic runs: the migrations, in the transaction that is open."""

from alembic import context

from heksher_client.service.schema import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
context.run_migrations()
