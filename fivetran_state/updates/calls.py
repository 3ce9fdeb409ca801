"""Waiting while the account has too few calls left, by whatever Fivetran's answers tell of it."""

import asyncio
import math
from collections.abc import Callable

from fivetran_state.fivetran import Fivetran
from fivetran_state.fivetran_answers import RateLimit

_HOUR = 3600.0
_FIRST_PAUSE = 1.0
_LONGER = 1.25
"""By this factor, each pause is longer than the one before: so calls are noticed late only by a fraction
of the time that they were waited for, however long that was."""
_SHARE = 0.01
"""The share of the account's calls an hour that looks at the limit may take."""


async def are_enough(
    fivetran: Fivetran, under_way: Callable[[], int], seconds: float = math.inf
) -> bool:
    """Wait until the account has a tenth of its calls left, beside those `under_way`.

    Every answer tells how many calls are left. If there is none for a while, ask: that is a call too.
    False if that takes longer than `seconds`. True if Fivetran refuses the key, too: the next call says so.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    pause = _FIRST_PAUSE

    def leaves_a_tenth(limit: RateLimit) -> bool:
        return (limit.remaining - under_way()) * 10 >= limit.limit

    while (limit := fivetran.limit) is not None and not leaves_a_tenth(limit):
        wait = max(pause, limit.renewed_in)
        if loop.time() + wait > deadline:
            return False
        await fivetran.hear_of_limit(wait)
        if fivetran.limit is not limit or leaves_a_tenth(limit):
            continue
        if not await fivetran.accepts_key():
            return True
        longest = _HOUR / max(limit.limit * _SHARE, 1)
        pause = min(pause * _LONGER, max(longest, _FIRST_PAUSE))
    return True
