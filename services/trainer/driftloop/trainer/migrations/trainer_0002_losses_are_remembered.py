"""Losses and faults are remembered."""

import sqlalchemy as sa
from alembic import op

revision = "trainer_0002"
down_revision = "trainer_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("trainer_pipeline", schema=None) as batch_op:
        batch_op.add_column(sa.Column("losses", sa.String(), nullable=True))
        batch_op.add_column(sa.Column("faults", sa.String(), nullable=True))
