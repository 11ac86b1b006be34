"""
The Starlette door: a native route for each path of the route table.

``create_app`` makes an application that runs alone or is mounted under a prefix of another; its
lifespan starts and drains the gateway. A host application whose lifespan should do that itself holds
``gateway.running()`` open and mounts ``create_app(web, runs_gateway=False)``.
"""

from s3edge_starlette.app import create_app, create_routes


__all__ = ["create_app", "create_routes"]
