"""The rate limit: requests per minute of one principal. Anonymous callers count by network."""

import ipaddress
import time
from collections import OrderedDict

MAX_BUCKETS = 10_000


def network(address: str) -> str:
    """The caller with this address. With IPv6, a whole /64 counts as one caller."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    mapped = parsed.ipv4_mapped
    return str(mapped or ipaddress.IPv6Network((parsed, 64), strict=False))


class Buckets:
    """A bucket for each key. It holds a minute's requests and refills steadily."""

    def __init__(self, per_minute: int) -> None:
        self._capacity = float(per_minute)
        self._left: OrderedDict[object, tuple[float, float]] = OrderedDict()

    def take(self, key: object) -> float:
        """Seconds until there is room for this request; zero if there is room now."""
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
