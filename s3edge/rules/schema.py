"""The version of the Postgres schema that this package speaks to, whichever way it is reached."""

SCHEMA_VERSION = 3
"""What ``s3edge_schema_version()`` returns once ``s3edge_postgres/migrations`` are applied."""
