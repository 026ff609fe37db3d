"""The steps that bring a database from one version of `matl.coordinator.storage.schema` to the next, for Alembic."""
