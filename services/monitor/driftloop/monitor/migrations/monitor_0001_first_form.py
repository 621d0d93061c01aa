"""First form."""

import sqlalchemy as sa
from alembic import op

revision = "monitor_0001"
down_revision = None
branch_labels = ("monitor",)
depends_on = None


def upgrade() -> None:
    op.create_table(
        "monitor_batch",
        sa.Column("pipeline", sa.String(), nullable=False),
        sa.Column("batch_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("good_count", sa.Integer(), nullable=True),
        sa.Column("bad_expected", sa.Integer(), nullable=True),
        sa.Column("bad_count", sa.Integer(), nullable=False),
        sa.Column("row_count", sa.Integer(), nullable=False),
        sa.Column("is_complete", sa.Boolean(), nullable=False),
        sa.Column("reasons", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("pipeline", "batch_id"),
    )
    with op.batch_alter_table("monitor_batch", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_monitor_batch_end"), ["end"], unique=False)

    op.create_table(
        "monitor_block",
        sa.Column("pipeline", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("row_count", sa.Integer(), nullable=False),
        sa.Column("loss", sa.Float(), nullable=False),
        sa.Column("no_skill", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("pipeline", "number"),
    )
    op.create_table(
        "monitor_label",
        sa.Column("pipeline", sa.String(), nullable=False),
        sa.Column("row_id", sa.String(), nullable=False),
        sa.Column("time_us", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Float(), nullable=True),
        sa.Column("text", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("pipeline", "row_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "monitor_prediction",
        sa.Column("pipeline", sa.String(), nullable=False),
        sa.Column("row_id", sa.String(), nullable=False),
        sa.Column("time_us", sa.BigInteger(), nullable=False),
        sa.Column("champion_version", sa.Integer(), nullable=False),
        sa.Column("candidate_version", sa.Integer(), nullable=True),
        sa.Column("champion", sa.Float(), nullable=True),
        sa.Column("candidate", sa.Float(), nullable=True),
        sa.Column("champion_shares", sa.String(), nullable=True),
        sa.Column("candidate_shares", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("pipeline", "row_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "monitor_sample",
        sa.Column("pipeline", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("pipeline"),
    )
    op.create_table(
        "monitor_slice",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("pipeline", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("row_count", sa.Integer(), nullable=False),
        sa.Column("is_faulty", sa.Boolean(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    with op.batch_alter_table("monitor_slice", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_monitor_slice_pipeline"), ["pipeline"], unique=False
        )

    op.create_table(
        "monitor_wanted",
        sa.Column("pipeline", sa.String(), nullable=False),
        sa.Column("row_id", sa.String(), nullable=False),
        sa.Column("place", sa.BigInteger(), nullable=False),
        sa.Column("window_number", sa.Integer(), nullable=False),
        sa.Column("time_us", sa.BigInteger(), nullable=False),
        sa.Column("score", sa.Float(), nullable=False),
        sa.Column("reasons", sa.String(), nullable=False),
        sa.Column("model_version", sa.Integer(), nullable=True),
        sa.Column("is_settled", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("pipeline", "row_id"),
    )
    op.create_table(
        "monitor_watch",
        sa.Column("pipeline", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("pipeline"),
    )
