"""Which process the database belongs to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make room for it in the row that every write locks."""
    op.add_column("counters", sa.Column("owner", sa.Text))
