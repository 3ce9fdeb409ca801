"""Shared by the tests."""

import pkgutil

import pytest

# Show values when an assertion in a shared function fails.
pytest.register_assert_rewrite(
    *(f"{__name__}.{each.name}" for each in pkgutil.iter_modules(__path__))
)
