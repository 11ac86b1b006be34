"""What a database can keep of a model's own words."""

from s3edge.values import Json


def without_nul(value: Json) -> Json:
    """Return a value without NUL characters, which Postgres keeps in no text."""
    if isinstance(value, str):
        return value.replace("\x00", "")
    if isinstance(value, list):
        return [without_nul(item) for item in value]
    if isinstance(value, dict):
        return {without_nul(name): without_nul(item) for name, item in value.items()}
    return value
