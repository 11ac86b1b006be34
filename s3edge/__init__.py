"""
One public API in front of a GPU that segments images by a text prompt.

The package is a framework-free core. Import the part that is needed: ``s3edge.gateway`` to hold the
ports together, ``s3edge.web`` for HTTP without a framework, ``s3edge.memory`` for every port in
memory, ``s3edge.config`` to build a gateway from settings. Doors and adapters are packages of their
own (``s3edge_starlette``, ``s3edge_wsgi``, ``s3edge_embedded``, ...).
"""

__version__ = "0.1.0"
