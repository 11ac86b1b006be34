"""
Real or faithful counterparts of what runs in the cloud, so that tests need no account and no network.

``postgres`` runs a real PostgreSQL whose roles and schemas are laid out as Supabase does it.
``supabase`` answers in front of it as a Supabase project does. Each needs the ``stand-ins`` extra.
"""
