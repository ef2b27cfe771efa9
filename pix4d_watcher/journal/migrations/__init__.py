"""Numbered migrations of the journal; Alembic runs them."""
