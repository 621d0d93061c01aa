"""What versions cost in their trials.

Trials that were passed before have no profile: they are done again, once.
"""

import sqlalchemy as sa
from alembic import op

revision = "scorer_0004"
down_revision = "scorer_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_table("scorer_tried")
    op.create_table(
        "scorer_tried",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("onnx_runtime", sa.String(), nullable=False),
        sa.Column("machine", sa.String(), nullable=False),
        sa.Column("profile", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("digest", "onnx_runtime", "machine"),
    )
