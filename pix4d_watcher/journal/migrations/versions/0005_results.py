"""0005: where the results of a project lie, whatever its folder is called later."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; results that were fetched before are looked for under the folder's name, as they were."""
    op.add_column("projects", sa.Column("results_folder", sa.LargeBinary()))
    op.create_index("one_project_per_results", "projects", ["root", "results_folder"], unique=True)
