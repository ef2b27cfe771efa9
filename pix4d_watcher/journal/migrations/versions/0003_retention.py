"""0003: the retention of a delivered folder is counted by the cloud's clock too."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; the retention of folders that were delivered before begins anew, which deletes nothing early."""
    op.add_column("projects", sa.Column("kept_since", sa.Float()))
