"""The composition root: the only part that reads the environment, and that knows every other part."""

from s3edge.config.build import (
    DATABASE,
    QUEUE,
    Deployment,
    OwnParts,
    Port,
    UncheckedError,
    build,
    build_database,
    build_parts,
    check_opens,
)
from s3edge.config.environment import read_environment
from s3edge.config.settings import Settings, SettingsError, parse_settings


__all__ = [
    "DATABASE",
    "QUEUE",
    "Deployment",
    "OwnParts",
    "Port",
    "Settings",
    "SettingsError",
    "UncheckedError",
    "build",
    "build_database",
    "build_parts",
    "check_opens",
    "parse_settings",
    "read_environment",
]
