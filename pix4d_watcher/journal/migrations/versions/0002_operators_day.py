"""0002: the same thing again, joined and split folders, folder files, templates, what comes afterwards."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add columns to projects, and the outbox."""
    for column in (
        sa.Column("content_set", sa.LargeBinary()),
        sa.Column("members", sa.JSON()),
        sa.Column("split_part", sa.Integer()),
        sa.Column("split_of", sa.Integer()),
        sa.Column("overrides", sa.JSON()),
        sa.Column("template_key", sa.Text()),
        sa.Column("put_away", sa.Text()),
    ):
        op.add_column("projects", column)
    op.create_index("projects_by_content", "projects", ["content_set"])
    op.create_index("images_by_content", "images", ["sha256"])
    op.create_table(
        "outbox",
        sa.Column("id", _ID, nullable=False),
        sa.Column("project_id", _ID, nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("due_at", sa.Float(), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("done_at", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("outbox_by_work", "outbox", ["done_at", "due_at"])
