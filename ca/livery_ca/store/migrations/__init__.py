"""How the store's tables came to be what they are: one module per step, run by Alembic in one transaction."""
