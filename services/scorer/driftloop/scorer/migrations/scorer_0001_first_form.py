"""First form."""

import sqlalchemy as sa
from alembic import op

revision = "scorer_0001"
down_revision = None
branch_labels = ("scorer",)
depends_on = None


def upgrade() -> None:
    op.create_table(
        "scorer_announced",
        sa.Column("replica", sa.String(), nullable=False),
        sa.Column("pipeline", sa.String(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("replica", "pipeline"),
    )
    op.create_table(
        "scorer_tally",
        sa.Column("replica", sa.String(), nullable=False),
        sa.Column("pipeline", sa.String(), nullable=False),
        sa.Column("tally", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("replica", "pipeline"),
    )
    op.create_table(
        "scorer_tried",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("onnx_runtime", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("digest", "onnx_runtime"),
    )
