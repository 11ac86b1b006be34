"""
The zero-configuration default: SQLite, files and a token issuer of our own, all in one folder.

- ``s3edge.db``: credits, tasks and usage (SQLite in WAL mode; its ``-wal`` and ``-shm`` beside it).
- ``media/``: uploads and masks as plain image files, each written aside, synced and renamed into place.
- ``token-key.pem`` and ``media/.media-secret``: what tokens and media URLs are signed with, mode
  0600. Whoever reads them can sign in as anybody, so the folder belongs to the server's user alone.

Needs: a local file system with working locks; SQLite's WAL does not work over a network
file system. Limits: one machine. Failure: a full disk or a locked database is ``SERVICE_UNAVAILABLE``.
"""
