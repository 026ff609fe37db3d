"""What Alembic runs for each command; `matl.coordinator.storage.upgrading` gives it the connection."""

from __future__ import annotations

from alembic import context

from matl.coordinator.storage.schema import METADATA

if __name__ == "env_py":  # the name that Alembic gives to this file; whoever only imports it wants no migration
    context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
    context.run_migrations()
