"""What a trial's model has become, where training has emptied components of what was asked for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("rs_trial", sa.Column("settled", sa.JSON))
