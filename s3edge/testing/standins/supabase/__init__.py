"""
A Supabase project for tests: its public keys, its API keys, and PostgREST over a real database.

It answers as PostgREST 14 behind Supabase's gateway, for what applications commonly use; what it does
not do it refuses with 501 and a message that says so, never with a guess. Policies, grants, functions and
timeouts are the database's own: each request is one transaction of the caller's role::

    with PostgresServer(tmp_path) as server:
        database = server.create_database("mine")
        database.apply(migration)
        with SupabaseProcess(tmp_path, database) as supabase:
            user_id = supabase.sign_up(email="a@example.com")
            client = create_client(supabase.url, supabase.anon_key)
            client.postgrest.auth(supabase.sign(user_id))

Differences from a live project:
    - tables and functions are looked up for each request, so there is no stale schema cache;
    - ``safeupdate`` is imitated for PATCH and DELETE, and not inside functions;
    - a serialization failure (40001) is answered at once, not tried again first;
    - ``PTxyz`` sets the status and not the reason phrase; ``db-pre-request`` is not run;
    - the JWKS is not cached by anything, so that a rotation is seen at once;
    - not done: embedding, JSON paths, casts and aggregates in ``select``, full-text search, planned
      counts, PUT, CSV and other media types, functions with unnamed or variadic parameters, OpenAPI.

What it does not do of Auth: signing in and everything else but the JWKS. ``control`` says how tests make
users and tokens, rotate keys and cause faults.
"""

from s3edge.testing.standins.supabase.process import SupabaseProcess


__all__ = ["SupabaseProcess"]
