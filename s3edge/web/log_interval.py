"""What would be logged for every request of a flood is logged now and then."""

LOG_INTERVAL_S = 60.0


class LogInterval:
    """Lets a line be logged once in ``LOG_INTERVAL_S`` at most."""

    def __init__(self) -> None:
        self._logged_at: float | None = None

    def is_over(self, now: float) -> bool:
        """Tell whether the line may be logged; if so, the next interval begins."""
        if self._logged_at is not None and now - self._logged_at < LOG_INTERVAL_S:
            return False
        self._logged_at = now
        return True
