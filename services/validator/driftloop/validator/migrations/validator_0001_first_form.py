"""First form."""

import sqlalchemy as sa
from alembic import op

revision = "validator_0001"
down_revision = None
branch_labels = ("validator",)
depends_on = None


def upgrade() -> None:
    op.create_table(
        "validator_dataset_count",
        sa.Column("pipeline", sa.String(), nullable=False),
        sa.Column("observation_count", sa.Integer(), nullable=False),
        sa.Column("label_count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("pipeline"),
    )
    op.create_table(
        "validator_erasure",
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("event", sa.JSON(), nullable=False),
        sa.Column("origin", sa.JSON(), nullable=False),
        sa.Column("is_traced", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("event_id"),
    )
    with op.batch_alter_table("validator_erasure", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_validator_erasure_is_traced"), ["is_traced"], unique=False
        )

    op.create_table(
        "validator_job",
        sa.Column("pipeline", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("observations", sa.Integer(), nullable=True),
        sa.Column("labels", sa.Integer(), nullable=True),
        sa.Column("has_model", sa.Boolean(), nullable=False),
        sa.Column("has_failed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("pipeline", "job_id"),
    )
    op.create_table(
        "validator_known",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("has", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "validator_learned",
        sa.Column("pipeline", sa.String(), nullable=False),
        sa.Column("features", sa.String(), nullable=False),
        sa.Column("classes", sa.String(), nullable=False),
        sa.Column("row_count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("pipeline"),
    )
    op.create_table(
        "validator_maintenance",
        sa.Column("pipeline", sa.String(), nullable=False),
        sa.Column("newest", sa.String(), nullable=False),
        sa.Column("cutoff", sa.String(), nullable=False),
        sa.Column("vacuumed_at", sa.String(), nullable=False),
        sa.Column("observations", sa.Integer(), nullable=True),
        sa.Column("labels", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("pipeline"),
    )
    op.create_table(
        "validator_reference",
        sa.Column("pipeline", sa.String(), nullable=False),
        sa.Column("made_for", sa.String(), nullable=False),
        sa.Column("rows", sa.LargeBinary(), nullable=False),
        sa.Column("profile", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("pipeline"),
    )
    op.create_table(
        "validator_schema",
        sa.Column("pipeline", sa.String(), nullable=False),
        sa.Column("proposed_version", sa.Integer(), nullable=False),
        sa.Column("proposed", sa.String(), nullable=False),
        sa.Column("base", sa.String(), nullable=False),
        sa.Column("accepted_version", sa.Integer(), nullable=False),
        sa.Column("accepted", sa.String(), nullable=False),
        sa.Column("told", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("pipeline"),
    )
    op.create_table(
        "validator_shard",
        sa.Column("pipeline", sa.String(), nullable=False),
        sa.Column("shard", sa.String(), nullable=False),
        sa.Column("made_for", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("pipeline", "shard"),
    )
