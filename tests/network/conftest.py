"""Databases of both kinds, as the coordinator's tests have them."""

from tests.coordinator.conftest import database_url, postgres, postgres_url, sqlite_url

__all__ = ["database_url", "postgres", "postgres_url", "sqlite_url"]
