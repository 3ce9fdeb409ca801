"""Callers with tokens of an OAuth issuer."""

from collections.abc import Iterator

import pytest

from tests.support.issuer import AUDIENCE, OAuthIssuer


@pytest.fixture
def issuer() -> Iterator[OAuthIssuer]:
    with OAuthIssuer().running() as issuer:
        yield issuer


@pytest.fixture
def trusting(issuer: OAuthIssuer) -> dict[str, str]:
    """The variables of a server that accepts this issuer's tokens."""
    return {
        "FIVETRAN_STATE_OAUTH_ISSUER": issuer.url,
        "FIVETRAN_STATE_PUBLIC_URL": AUDIENCE,
    }
