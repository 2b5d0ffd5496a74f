"""The environment that Alembic loads. It runs the migrations in the open transaction."""

from alembic import context

from heksher_client.service.schema import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
context.run_migrations()
