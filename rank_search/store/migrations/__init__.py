"""The history of the schema, for Alembic: `env.py` runs it, `versions` holds its steps."""
