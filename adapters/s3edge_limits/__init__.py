"""
Rate limits by the ``limits`` library: a sliding window counter.

Stores: memory, where each process counts by itself, and Redis or Valkey (``s3edge_limits.redis_store``,
with the extra ``redis``), where all gateways count together. There a user needs to be allowed
``EVALSHA``, ``SCRIPT LOAD`` and what the scripts call (``GET``, ``SET``, ``INCRBY``, ``EXISTS``,
``PTTL``, ``RENAME``) on keys that begin with ``s3edge:sliding-window``. A store that is down makes
``hit`` raise ``SERVICE_UNAVAILABLE`` within a second.

The counter weighs the window before by what is left of it, as if its requests had come evenly. In
memory, windows are aligned to the clock, so around a subject's very first boundary up to twice the
quota may pass; in Redis they begin with a subject's first request.
https://limits.readthedocs.io/en/stable/strategies.html
"""

from s3edge_limits.limiter import LimitsRateLimiter, from_url


__all__ = ["LimitsRateLimiter", "from_url"]
