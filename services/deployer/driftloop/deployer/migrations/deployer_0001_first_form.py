"""First form."""

import sqlalchemy as sa
from alembic import op

revision = "deployer_0001"
down_revision = None
branch_labels = ("deployer",)
depends_on = None


def upgrade() -> None:
    op.create_table(
        "deployer_serving",
        sa.Column("pipeline", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("pipeline"),
    )
