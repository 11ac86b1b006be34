"""
Rate limits by the ``limits`` library: a sliding window counter.

Stores: memory (each process counts by itself). The counter weighs the window before by what is left of
it; in memory, windows are aligned to the clock, so around a subject's very first boundary up to twice
the quota may pass. https://limits.readthedocs.io/en/stable/strategies.html
"""

from s3edge_limits.limiter import LimitsRateLimiter, from_url


__all__ = ["LimitsRateLimiter", "from_url"]
