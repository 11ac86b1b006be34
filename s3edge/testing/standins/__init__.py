"""
Real or faithful counterparts of what runs in the cloud, so that tests need no account and no network.

``postgres`` runs a real PostgreSQL whose roles and schemas are laid out as Supabase does it.
``supabase`` answers in front of it as a Supabase project does. ``object_store`` speaks S3,
``gpu_process`` the inference API. ``fault_proxy`` takes any of them away and brings it back. ``cloud``
starts them all. Each needs the ``stand-ins`` extra, listens on this machine only, and ends with its
``with`` block or with the process that started it.
"""
