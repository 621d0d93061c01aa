"""First form."""

import sqlalchemy as sa
from alembic import op

revision = "ingest_0001"
down_revision = None
branch_labels = ("ingest",)
depends_on = None


def upgrade() -> None:
    op.create_table(
        "ingest_erasure_confirmation",
        sa.Column("proposal_id", sa.String(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("proposal_id"),
    )
    op.create_table(
        "ingest_erasure_proposal",
        sa.Column("proposal_id", sa.String(), nullable=False),
        sa.Column("pipeline", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("proposed_by", sa.String(), nullable=False),
        sa.Column("sides", sa.JSON(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("proposal_id"),
    )
    with op.batch_alter_table("ingest_erasure_proposal", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_ingest_erasure_proposal_pipeline"),
            ["pipeline"],
            unique=False,
        )

    op.create_table(
        "ingest_event_time",
        sa.Column("pipeline", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("newest_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("pipeline", "kind", "source"),
    )
    op.create_table(
        "ingest_payload_owner",
        sa.Column("pipeline", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("pipeline", "sha256", "subject"),
    )
    op.create_table(
        "ingest_pull_lease",
        sa.Column("pipeline", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("pipeline", "source"),
    )
    op.create_table(
        "ingest_pulled_object",
        sa.Column("pipeline", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("next_message", sa.Integer(), nullable=False),
        sa.Column("is_done", sa.Boolean(), nullable=False),
        sa.Column("problem", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("pipeline", "source", "name"),
    )
    op.create_table(
        "ingest_pulled_table",
        sa.Column("pipeline", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("mark", sa.String(), nullable=False),
        sa.Column("ties", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("pipeline", "source"),
    )
    op.create_table(
        "ingest_seen",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "ingest_subject_key",
        sa.Column("pipeline", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary(), nullable=True),
        sa.Column("erased_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("pipeline", "subject"),
    )
    op.create_table(
        "ingest_token",
        sa.Column("pipeline", sa.String(), nullable=False),
        sa.Column("field", sa.String(), nullable=False),
        sa.Column("value_id", sa.String(), nullable=False),
        sa.Column("token", sa.String(), nullable=False),
        sa.Column("wrapped_value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("pipeline", "field", "value_id"),
    )
    with op.batch_alter_table("ingest_token", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_ingest_token_token"), ["token"], unique=False
        )
