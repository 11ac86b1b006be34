"""
Supabase: access tokens.

``tokens`` verifies what Supabase Auth signs, by the project's published keys; ``jwks`` keeps those keys.
Needs no permission: the keys are public. Failure: keys that cannot be fetched are used on while they
are known, and are ``SERVICE_UNAVAILABLE`` when none ever were.
"""
