"""
Postgres: the schema of the contract's tables, the functions that move money, and who may do what.

``migrations`` holds the SQL for Supabase and for plain Postgres alike. Applying it needs the role that
owns the tables (``postgres`` on Supabase). Failure: a script is applied whole or not at all.
"""
