"""Blobs that are to be deleted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make their table."""
    op.create_table("doomed_blobs", sa.Column("blob", sa.Text, primary_key=True))
