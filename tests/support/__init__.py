"""Shared by the tests."""

import pkgutil

import pytest

# An assertion that fails in a shared function shows its values too.
pytest.register_assert_rewrite(
    *(f"{__name__}.{each.name}" for each in pkgutil.iter_modules(__path__))
)
