"""The request that an update stores, and the key that is derived from it."""

import hashlib
import json
from dataclasses import dataclass, replace

from fivetran_state.plan import Wanted
from fivetran_state.updates.records import UpdateRequest, request_fingerprint


@dataclass(frozen=True)
class Options:
    """The options of a request, besides its change."""

    expected_version: str | None
    reason: str | None
    idempotency_key: str | None
    then_sync: bool
    allow_resync: bool

    def with_version(self, expected_version: str | None) -> "Options":
        return replace(self, expected_version=expected_version)


def fingerprint_of(request: UpdateRequest) -> str:
    """The same for an equal request, whatever key it has."""
    return hashlib.sha256(json.dumps(request_fingerprint(request)).encode()).hexdigest()


def derived_key(options: Options, wanted: Wanted, text: str) -> str:
    what = wanted.source or f"{wanted.change.kind}\n{text}"
    sync = "\nthen_sync" if options.then_sync else ""
    return hashlib.sha256(f"{options.expected_version}\n{what}{sync}".encode()).hexdigest()
