"""Replays that were told."""

import sqlalchemy as sa
from alembic import op

revision = "scorer_0002"
down_revision = "scorer_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "scorer_replayed",
        sa.Column("pipeline", sa.String(), nullable=False),
        sa.Column("wish_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("pipeline"),
    )
