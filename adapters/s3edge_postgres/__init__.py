"""
Postgres: the schema of the contract's tables, and the database that calls it directly.

``migrations`` holds the SQL for Supabase and for plain Postgres alike; ``applying`` applies it, each
script once, all or none. ``database`` connects as the role that applied it and so owns the tables:
row-level security does not hold for an owner, so every read names its user. A call is one statement, a
transaction of its own, prepared unless a pooler in transaction mode stands between. ``ends`` listens for
tasks that ended. Failure: a server that is down, frozen, out of connections or the primary no more is
``SERVICE_UNAVAILABLE`` within 5 seconds, never a hang; when it is back, the next call works.

Where the documentation of psycopg's pool says less than was needed: its queue keeps everybody who ever
asked in vain until a connection comes, so calls queue in front of it (``connections``), and a cancelled
query waits for the server, so time limits hang up instead (``time_limit``).
"""
