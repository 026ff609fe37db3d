"""The steps that bring a database from one version of `matl.coordinator.schema` to the next, for Alembic."""
