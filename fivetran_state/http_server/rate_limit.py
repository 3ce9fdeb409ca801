"""The rate limit: a minute's requests of one principal; anonymous callers count by network."""

import ipaddress
import time
from collections import OrderedDict

MAX_BUCKETS = 10_000


def network(address: str) -> str:
    """The caller behind an address. One caller has a whole /64 of IPv6."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    mapped = parsed.ipv4_mapped
    return str(mapped or ipaddress.IPv6Network((parsed, 64), strict=False))


class Buckets:
    """A bucket of a minute's requests for each key, which refills steadily."""

    def __init__(self, per_minute: int) -> None:
        self._capacity = float(per_minute)
        self._left: OrderedDict[object, tuple[float, float]] = OrderedDict()

    def take(self, key: object) -> float:
        """Zero, or the seconds after which there is room for this request."""
        if not self._capacity:
            return 0.0
        a_second = self._capacity / 60
        now = time.monotonic()
        left, at = self._left.pop(key, (self._capacity, now))
        left = min(self._capacity, left + (now - at) * a_second)
        wait = max(0.0, (1 - left) / a_second)
        self._left[key] = (left if wait else left - 1, now)
        if len(self._left) > MAX_BUCKETS:
            self._left.popitem(last=False)
        return wait
