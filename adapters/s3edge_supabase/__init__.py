"""
Supabase: access tokens, and the database over its REST endpoint.

``tokens`` verifies what Supabase Auth signs, by the project's published keys, which ``jwks`` keeps.
``database`` calls PostgREST: users' calls with the user's own token and the publishable key, so that
row-level security applies; calls without a user with the service key alone. Needs the schema of
``s3edge_postgres``. Failure: keys that cannot be fetched are used on while they are known; a database
that is down is ``SERVICE_UNAVAILABLE`` within 5 seconds, never an empty answer, and calls are repeated
only where twice does no more than once.

Where Supabase's documentation says less than was needed: errors of its API gateway have no ``code`` and
sometimes no body (``postgrest`` takes them as an outage or a wrong key by their status), and the
gateway's own tokens may be "issued at future" for a second (that one refusal is repeated).
"""
