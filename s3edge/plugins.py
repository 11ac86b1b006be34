"""Finds the adapter that a setting's scheme names, among the installed packages' entry points."""

import re
from collections import Counter
from collections.abc import Callable
from importlib.metadata import entry_points, requires
from typing import Any

from s3edge.ports import Wiring


AUTHENTICATORS = "s3edge.authenticators"
DATABASES = "s3edge.databases"
STORAGES = "s3edge.storages"
BACKENDS = "s3edge.backends"
RATE_LIMITERS = "s3edge.rate_limiters"
QUEUES = "s3edge.queues"
PREDICTORS = "s3edge.predictors"
"""What an inference server runs: no port of the gateway's, and made of other things."""

_OF_EXTRA = re.compile(r"(?P<name>[\w-]+).*;.*\bextra == ['\"](?P<extra>[\w-]+)['\"].*")

_FOR_OURSELVES = frozenset({"dev-check", "dev-test", "stand-ins", "testing"})

AdapterFactory = Callable[[str, Wiring], Any]
"""Takes the setting's whole value and the wiring; returns the port's implementation."""


class UnknownAdapterError(LookupError):
    """No installed package serves a scheme, or the one that does cannot be loaded."""


def scheme_of(value: str) -> str:
    """Return what is before the colon: ``sqlite:///x`` gives ``sqlite``, ``supabase`` itself."""
    return value.partition(":")[0].lower()


def installed(group: str) -> list[str]:
    """Return the schemes that installed packages serve."""
    return sorted(entry_points(group=group).names)


def load(group: str, scheme: str) -> AdapterFactory:
    """
    Return the factory of a scheme.

    Raises:
        UnknownAdapterError: Says which schemes there are, or what to install.
    """
    found = list(entry_points(group=group, name=scheme))
    if not found:
        message = f"no adapter for {scheme!r}; installed: {', '.join(installed(group))}"
        raise UnknownAdapterError(message)
    try:
        factory: AdapterFactory = found[0].load()
    except ModuleNotFoundError as error:
        if not is_of_an_extra(error):
            raise
        message = f"the adapter for {scheme!r} needs {missing(error.name)}"
        raise UnknownAdapterError(message) from error
    return factory


def is_of_an_extra(error: ModuleNotFoundError) -> bool:
    """Tell whether an extra may bring what is missing; if it is our own, the installation is broken."""
    return error.name is not None and not error.name.startswith("s3edge")


def missing(module: str | None) -> str:
    """Say which package is not installed, and which of the extras brings it, the smallest of them."""
    name = (module or "").partition(".")[0].replace("_", "-").lower()
    found = [_OF_EXTRA.fullmatch(requirement) for requirement in requires("s3edge") or ()]
    pairs = [(match["name"].lower(), match["extra"]) for match in found if match]
    sizes = Counter(extra for _, extra in pairs)
    bringing = {extra for package, extra in pairs if package == name} - _FOR_OURSELVES
    extra = min(bringing, key=lambda extra: (sizes[extra], extra), default="all")
    return f"the package {module!r}; pip install 's3edge[{extra}]'"
