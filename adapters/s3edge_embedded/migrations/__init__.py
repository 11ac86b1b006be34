"""The SQLite schema, one script a version."""
