"""States as the examples of the public Connector SDK keep them, and how their syncs move them.

Most classes are modelled on one example of github.com/fivetran/fivetran_connector_sdk, which the docstring
names; the others on the state of several.
"""

import copy
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

State = dict[str, Any]
Path = tuple[str | int, ...]

SECOND = 1000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def _moment(at: int) -> datetime:
    return datetime.fromtimestamp(at // SECOND, timezone.utc) + timedelta(milliseconds=at % SECOND)


def zulu(at: int) -> str:
    return _moment(at).strftime("%Y-%m-%dT%H:%M:%SZ")


def zulu_with_milliseconds(at: int) -> str:
    return _moment(at).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def offset(at: int) -> str:
    return _moment(at).isoformat(timespec="microseconds")


def naive(at: int) -> str:
    return _moment(at).strftime("%Y-%m-%dT%H:%M:%S")


def spaced(at: int) -> str:
    return _moment(at).strftime("%Y-%m-%d %H:%M:%S")


def date(at: int) -> str:
    return _moment(at).strftime("%Y-%m-%d")


def seconds(at: int) -> int:
    return at // SECOND


def fractional_seconds(at: int) -> float:
    return at / SECOND


def milliseconds(at: int) -> int:
    return at


def microseconds(at: int) -> int:
    return at * 1000


def in_new_york(at: int) -> str:
    return _moment(at).astimezone(timezone(timedelta(hours=-4))).isoformat(timespec="seconds")


def in_berlin(at: int) -> str:
    return _moment(at).astimezone(timezone(timedelta(hours=2))).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Cursor:
    """A time that a person may set back: its place, and how it is written."""

    path: Path
    written: Callable[[int], Any]


class Connector(ABC):
    """A connection: its state, which `sync` moves."""

    def __init__(self, chance: random.Random, at: int) -> None:
        self.chance = chance
        self.state: State = {}
        self.begin(at)

    @abstractmethod
    def begin(self, at: int) -> None: ...

    @abstractmethod
    def sync(self, at: int) -> None: ...

    def cursors(self) -> list[Cursor]:
        return []

    def numbers(self) -> list[Path]:
        """Numeric cursors that are not times."""
        return []

    def resets(self) -> list[tuple[Path, Any]]:
        """Places that syncs themselves sometimes reset, and to what."""
        return []

    def lately(self, at: int) -> int:
        """When the newest row of the source was changed."""
        return at - self.chance.randrange(5 * MINUTE)


class KeyBased(Connector):
    """key_based_replication"""

    def begin(self, at: int) -> None:
        self.sync(at)

    def sync(self, at: int) -> None:
        self.state = {"last_updated_at": zulu(self.lately(at))}

    def cursors(self) -> list[Cursor]:
        return [Cursor(("last_updated_at",), zulu)]


class DataHandling(Connector):
    """data_handling_patterns: the time of the sync itself"""

    def begin(self, at: int) -> None:
        self.sync(at)

    def sync(self, at: int) -> None:
        self.state = {"last_synced_at": offset(at)}

    def cursors(self) -> list[Cursor]:
        return [Cursor(("last_synced_at",), offset)]


class NewsApi(Connector):
    """newsapi: no zone"""

    def begin(self, at: int) -> None:
        self.sync(at)

    def sync(self, at: int) -> None:
        self.state = {"to_ts": naive(at)}

    def cursors(self) -> list[Cursor]:
        return [Cursor(("to_ts",), naive)]


class Informix(Connector):
    """ibm_informix_using_ibm_db: a database's spelling"""

    def begin(self, at: int) -> None:
        self.sync(at)

    def sync(self, at: int) -> None:
        self.state = {"last_created": spaced(self.lately(at))}

    def cursors(self) -> list[Cursor]:
        return [Cursor(("last_created",), spaced)]


class Clerk(Connector):
    """clerk: milliseconds"""

    def begin(self, at: int) -> None:
        self.sync(at)

    def sync(self, at: int) -> None:
        self.state = {"last_created_at": milliseconds(self.lately(at))}

    def cursors(self) -> list[Cursor]:
        return [Cursor(("last_created_at",), milliseconds)]


class Zigpoll(Connector):
    """zigpoll: seconds"""

    def begin(self, at: int) -> None:
        self.sync(at)

    def sync(self, at: int) -> None:
        self.state = {"last_sync_timestamp": seconds(at)}

    def cursors(self) -> list[Cursor]:
        return [Cursor(("last_sync_timestamp",), seconds)]


class Toast(Connector):
    """toast: a token, and when it expires, which is in the future"""

    def begin(self, at: int) -> None:
        self.state = {"to_ts": "", "encrypted_token": "", "token_ttl": 0}
        self.sync(at)

    def sync(self, at: int) -> None:
        self.state["to_ts"] = zulu_with_milliseconds(at)
        if self.state["token_ttl"] < at // SECOND:
            self.state["encrypted_token"] = f"gAAAAAB{self.chance.getrandbits(128):x}=="
            self.state["token_ttl"] = at // SECOND + 86_400

    def cursors(self) -> list[Cursor]:
        return [Cursor(("to_ts",), zulu_with_milliseconds)]


class Marketstack(Connector):
    """marketstack: dates, and an offset that begins again"""

    def begin(self, at: int) -> None:
        self.state = {
            "ticker_offset": 0,
            "ticker_start_cursor": date(at - 15 * DAY),
            "ticker_end_cursor": date(at),
        }

    def sync(self, at: int) -> None:
        if self.chance.random() < 0.4:
            self.state["ticker_offset"] = 0
            self.state["ticker_start_cursor"] = self.state["ticker_end_cursor"]
        else:
            self.state["ticker_offset"] += 1000
        if self.state["ticker_offset"] == 0:
            self.state["ticker_end_cursor"] = date(at)

    def cursors(self) -> list[Cursor]:
        return [Cursor(("ticker_start_cursor",), date), Cursor(("ticker_end_cursor",), date)]


class Meilisearch(Connector):
    """meilisearch: keys that are there only while a sync is half done"""

    def begin(self, at: int) -> None:
        self.state = {"last_sync_timestamp": at, "synced_indexes": [], "indexes_synced": True}

    def sync(self, at: int) -> None:
        if "current_sync_timestamp" in self.state or self.chance.random() < 0.8:
            self.begin(self.state.get("current_sync_timestamp", at))
            return
        self.state |= {
            "synced_indexes": [f"index_{n}" for n in range(self.chance.randrange(1, 5))],
            "indexes_synced": False,
            "current_sync_timestamp": at,
        }

    def cursors(self) -> list[Cursor]:
        return [Cursor(("last_sync_timestamp",), milliseconds)]


class Redis(Connector):
    """redis: the cursor of a scan jumps about; one time for each series"""

    def begin(self, at: int) -> None:
        self.state = {
            "cursor": 0,
            "timeseries_state": {f"sensor:{n}": at for n in range(5)},
            "last_sync_time": offset(at),
        }

    def sync(self, at: int) -> None:
        self.state["cursor"] = self.chance.choice([0, self.chance.randrange(2**20)])
        for key in self.state["timeseries_state"]:
            if self.chance.random() < 0.6:
                self.state["timeseries_state"][key] = self.lately(at)
        if self.chance.random() < 0.05:
            self.state["timeseries_state"][f"sensor:{self.chance.randrange(100)}"] = at
        self.state["last_sync_time"] = offset(at)

    def cursors(self) -> list[Cursor]:
        return [
            Cursor(("last_sync_time",), offset),
            *(Cursor(("timeseries_state", f"sensor:{n}"), milliseconds) for n in range(5)),
        ]


class Discord(Connector):
    """discord: ids of twenty digits as text, counters, and channels that come and go"""

    def begin(self, at: int) -> None:
        self.state = {"last_sync_time": offset(at), "guilds": {}, "total_processed_count": 0}
        for guild in ("974519864045756446", "1057322114"):
            channels = {str(10**18 + n): self._message(at) for n in range(6)}
            self.state["guilds"][guild] = {
                "last_message_sync": channels,
                "processed_count": 0,
                "last_sync_time": offset(at),
            }

    def _message(self, at: int) -> str:
        return str((at - 1_420_070_400_000) << 22)

    def sync(self, at: int) -> None:
        for guild in self.state["guilds"].values():
            channels = guild["last_message_sync"]
            for channel in channels:
                if self.chance.random() < 0.3:
                    channels[channel] = self._message(self.lately(at))
            if self.chance.random() < 0.02:
                channels[str(10**18 + self.chance.randrange(10**6))] = self._message(at)
            if self.chance.random() < 0.01 and len(channels) > 2:
                del channels[self.chance.choice(list(channels))]
            guild["processed_count"] = self.chance.randrange(2000)
            self.state["total_processed_count"] += guild["processed_count"]
            guild["last_sync_time"] = offset(at)
        self.state["last_sync_time"] = offset(at)

    def cursors(self) -> list[Cursor]:
        guilds = [("guilds", guild, "last_sync_time") for guild in self.state["guilds"]]
        return [Cursor(path, offset) for path in [("last_sync_time",), *guilds]]


class Db2(Connector):
    """ibm_db2_log_based_replication: positions in a log, in hexadecimal"""

    def begin(self, at: int) -> None:
        self.state = {
            "initial_load_complete": False,
            "last_commit_sequence": "0",
            "last_intent_sequence": "0",
        }

    def sync(self, at: int) -> None:
        self.state = {
            "initial_load_complete": True,
            "last_commit_sequence": f"{at * 1000:020x}",
            "last_intent_sequence": f"{self.chance.getrandbits(40):020x}",
        }


class Smartsheets(Connector):
    """smartsheets: a time and the ids of all rows, for each sheet"""

    def begin(self, at: int) -> None:
        self.state = {"sheet_states": {}}
        for sheet in range(4):
            self.state["sheet_states"][str(4583173393803140 + sheet)] = {
                "last_modified": zulu(at),
                "row_ids": [str(self.chance.getrandbits(50)) for _ in range(20)],
            }

    def sync(self, at: int) -> None:
        for sheet in self.state["sheet_states"].values():
            if self.chance.random() < 0.5:
                sheet["last_modified"] = zulu(self.lately(at))
                rows = [row for row in sheet["row_ids"] if self.chance.random() > 0.05]
                sheet["row_ids"] = [*rows, str(self.chance.getrandbits(50))]

    def cursors(self) -> list[Cursor]:
        sheets = self.state["sheet_states"]
        return [Cursor(("sheet_states", sheet, "last_modified"), zulu) for sheet in sheets]


class N8n(Connector):
    """n8n: an id as text, and the token of a page, which is null when there is none"""

    def begin(self, at: int) -> None:
        self.execution = 100_000
        self.state = {
            "last_workflow_update": zulu_with_milliseconds(at),
            "last_execution_id": str(self.execution),
            "next_cursor": None,
        }

    def sync(self, at: int) -> None:
        self.execution += self.chance.randrange(1, 400)
        token = f"eyJsYXN0SWQiOiI{self.chance.getrandbits(64):x}"
        self.state = {
            "last_workflow_update": zulu_with_milliseconds(self.lately(at)),
            "last_execution_id": str(self.execution),
            "next_cursor": token if self.chance.random() < 0.3 else None,
        }

    def cursors(self) -> list[Cursor]:
        return [Cursor(("last_workflow_update",), zulu_with_milliseconds)]

    def numbers(self) -> list[Path]:
        return [("last_execution_id",)]


class RabbitMq(Connector):
    """rabbitmq: a number for each queue"""

    def begin(self, at: int) -> None:
        self.state = {f"{queue}_last_delivery_tag": 500 for queue in ("orders", "mails", "logs")}

    def sync(self, at: int) -> None:
        for queue in self.state:
            if self.chance.random() < 0.8:
                self.state[queue] += self.chance.randrange(1, 900)

    def numbers(self) -> list[Path]:
        return [(queue,) for queue in self.state]


class Oura(Connector):
    """oura_ring: a date, and tokens of pages"""

    def begin(self, at: int) -> None:
        self.state = {"last_sync_date": date(at), "sleep_next_token": None}

    def sync(self, at: int) -> None:
        token = f"{self.chance.getrandbits(80):x}" if self.chance.random() < 0.3 else None
        self.state = {"last_sync_date": date(at), "sleep_next_token": token}

    def cursors(self) -> list[Cursor]:
        return [Cursor(("last_sync_date",), date)]


class Tables(Connector):
    """Many database connectors: a time and an id for each table, and tables that begin later"""

    def begin(self, at: int) -> None:
        self.state = {"schema_version": 2, "tables": {}}
        for table in ("orders", "users", "invoices"):
            self.state["tables"][table] = {"cursor": offset(at), "last_id": 1000, "done": True}

    def sync(self, at: int) -> None:
        for table in self.state["tables"].values():
            if self.chance.random() < 0.7:
                table["cursor"] = offset(self.lately(at))
                table["last_id"] += self.chance.randrange(1, 50)
        if self.chance.random() < 0.02:
            name = f"table_{self.chance.randrange(1000)}"
            self.state["tables"][name] = {"cursor": offset(at), "last_id": 1, "done": False}

    def cursors(self) -> list[Cursor]:
        return [Cursor(("tables", table, "cursor"), offset) for table in ("orders", "users")]

    def numbers(self) -> list[Path]:
        return [("tables", table, "last_id") for table in ("orders", "users")]


class Github(Connector):
    """github: one time for each repository, and checkpoints within a sync"""

    def begin(self, at: int) -> None:
        self.state = {
            "last_repo_sync": zulu(at),
            "processed_repos": {f"acme/service-{n}": zulu(at) for n in range(8)},
            "last_commit_page": 1,
        }

    def sync(self, at: int) -> None:
        for repository in self.state["processed_repos"]:
            if self.chance.random() < 0.4:
                self.state["processed_repos"][repository] = zulu(self.lately(at))
        self.state["last_commit_page"] = self.chance.randrange(1, 30)
        self.state["last_repo_sync"] = zulu(at)

    def cursors(self) -> list[Cursor]:
        repositories = [("processed_repos", each) for each in self.state["processed_repos"]]
        return [Cursor(path, zulu) for path in [("last_repo_sync",), *repositories]]


class Streams(Connector):
    """States brought from other tools: an array of streams"""

    def begin(self, at: int) -> None:
        names = ("orders", "customers", "refunds")
        self.state = {"streams": [{"name": each, "cursor": zulu(at)} for each in names]}

    def sync(self, at: int) -> None:
        for stream in self.state["streams"]:
            if self.chance.random() < 0.7:
                stream["cursor"] = zulu(self.lately(at))

    def cursors(self) -> list[Cursor]:
        return [Cursor(("streams", index, "cursor"), zulu) for index in range(3)]


class Shops(Connector):
    """A time for each shop and table, in the shop's own zone; a shop is added now and then"""

    ZONES = (in_berlin, in_new_york)

    def begin(self, at: int) -> None:
        self.state = {"shops": {}}
        for number in range(3):
            self._add(f"shop-{number}", at)

    def _add(self, shop: str, at: int) -> None:
        written = self.ZONES[len(shop) % 2]
        tables = {table: {"updated_at": written(at)} for table in ("orders", "products")}
        self.state["shops"][shop] = tables

    def sync(self, at: int) -> None:
        for shop, tables in self.state["shops"].items():
            for table in tables.values():
                if self.chance.random() < 0.6:
                    table["updated_at"] = self.ZONES[len(shop) % 2](self.lately(at))
        if self.chance.random() < 0.03:
            self._add(f"shop-{self.chance.randrange(10, 1000)}", at)

    def cursors(self) -> list[Cursor]:
        return [
            Cursor(("shops", shop, table, "updated_at"), self.ZONES[len(shop) % 2])
            for shop in self.state["shops"]
            for table in ("orders", "products")
        ]


class Hashes(Connector):
    """Files of a bucket by their hashes, and the time of the sync with a fraction"""

    def begin(self, at: int) -> None:
        self.state = {
            "files": {f"export-{n}.csv": self._hash() for n in range(10)},
            "last_run": fractional_seconds(at),
        }

    def _hash(self) -> str:
        return f"{self.chance.getrandbits(256):064x}"

    def sync(self, at: int) -> None:
        for name in self.state["files"]:
            if self.chance.random() < 0.1:
                self.state["files"][name] = self._hash()
        if self.chance.random() < 0.5:
            self.state["files"][f"export-{len(self.state['files'])}.csv"] = self._hash()
        self.state["last_run"] = fractional_seconds(at)

    def cursors(self) -> list[Cursor]:
        return [Cursor(("last_run",), fractional_seconds)]


class Seen(Connector):
    """A set of ids that grows, and microseconds"""

    def begin(self, at: int) -> None:
        self.state = {"seen": [], "after": microseconds(at)}

    def sync(self, at: int) -> None:
        new = [self.chance.getrandbits(40) for _ in range(self.chance.randrange(5))]
        self.state = {"seen": [*self.state["seen"], *new], "after": microseconds(self.lately(at))}

    def cursors(self) -> list[Cursor]:
        return [Cursor(("after",), microseconds)]


class Wal(Connector):
    """Log-based replication: PostgreSQL's position as text; MySQL's file, and the place in it"""

    def begin(self, at: int) -> None:
        self.file, self.position, self.lsn = 100, 4, 10**9
        self.sync(at)

    def sync(self, at: int) -> None:
        self.lsn += self.chance.randrange(1, 10**7)
        self.position += self.chance.randrange(1, 10**6)
        if self.chance.random() < 0.2:
            self.file, self.position = self.file + 1, 4
        self.state = {
            "lsn": f"{self.lsn >> 32:X}/{self.lsn & 0xFFFFFFFF:X}",
            "binlog": {"file": f"mysql-bin.{self.file:06}", "position": self.position},
        }


class Reloaded(Connector):
    """Tables that are loaded anew now and then: their cursor is empty and their page 0 until then"""

    def begin(self, at: int) -> None:
        tables = ("orders", "events")
        self.state = {table: {"since": zulu(at), "page": 0} for table in tables}
        self.state["events"] = {"since": "", "page": 0}

    def sync(self, at: int) -> None:
        for table in self.state.values():
            is_anew = self.chance.random() < 0.1
            table["since"] = "" if is_anew else zulu(self.lately(at))
            table["page"] = 0 if is_anew else table["page"] + 1

    def cursors(self) -> list[Cursor]:
        return [Cursor((table, "since"), zulu) for table in self.state]

    def resets(self) -> list[tuple[Path, Any]]:
        return [((table, "since"), "") for table in self.state]


class Days(Connector):
    """A day as a number, and one page number for each region"""

    def begin(self, at: int) -> None:
        self.state = {"day": 0, "regions": {region: {"page": 1} for region in ("eu", "us", "ap")}}
        self.sync(at)

    def sync(self, at: int) -> None:
        self.state["day"] = int(date(at).replace("-", ""))
        for region in self.state["regions"].values():
            region["page"] = 1 if self.chance.random() < 0.3 else region["page"] + 1

    def numbers(self) -> list[Path]:
        return [("day",)]

    def resets(self) -> list[tuple[Path, Any]]:
        return [(("regions", region, "page"), 1) for region in self.state["regions"]]


CONNECTORS: tuple[type[Connector], ...] = (
    KeyBased,
    DataHandling,
    NewsApi,
    Informix,
    Clerk,
    Zigpoll,
    Toast,
    Marketstack,
    Meilisearch,
    Redis,
    Discord,
    Db2,
    Smartsheets,
    N8n,
    RabbitMq,
    Oura,
    Tables,
    Github,
    Streams,
    Shops,
    Hashes,
    Seen,
    Wal,
    Reloaded,
    Days,
)


@dataclass
class Past:
    """A connection, the states that it had, and the time now."""

    connector: Connector
    states: list[tuple[int, State]]
    now: int


def past_of(kind: type[Connector], chance: random.Random, syncs: int) -> Past:
    """A connection that has synced so often, at a rhythm of its own, sometimes set back by somebody."""
    at = 1_780_000_000_000 + chance.randrange(100 * DAY)
    rhythm = chance.choice([5 * MINUTE, 15 * MINUTE, HOUR, 6 * HOUR, DAY])
    connector = kind(chance, at)
    states = [(at, copy.deepcopy(connector.state))]
    for _ in range(syncs):
        at += rhythm + chance.randrange(MINUTE)
        if chance.random() < 0.02:
            state = set_back(Past(connector, states, at))
            if state is not None:
                states.append((at, copy.deepcopy(state)))
                at += MINUTE
        connector.sync(at)
        if connector.state != states[-1][1]:
            states.append((at, copy.deepcopy(connector.state)))
    return Past(connector, states, at + chance.randrange(rhythm))


def set_back(past: Past) -> State | None:
    """The state with some cursor as it was, or at a time since the first look; None without cursors."""
    connector, chance = past.connector, past.connector.chance
    state = copy.deepcopy(past.states[-1][1])
    cursors = [each for each in connector.cursors() if _has(state, each.path)]
    if cursors:
        for cursor in chance.sample(cursors, chance.randrange(1, len(cursors) + 1)):
            _, then = chance.choice(past.states)
            if not chance.getrandbits(1):
                moment = chance.randrange(past.states[0][0], past.now)
                put(state, cursor.path, cursor.written(moment))
            elif _has(then, cursor.path):
                put(state, cursor.path, at(then, cursor.path))
        return state
    numbers = connector.numbers()
    if not numbers:
        return None
    path = chance.choice(numbers)
    _, then = chance.choice(past.states)
    put(state, path, at(then, path))
    return state


def at(state: State, path: Path) -> Any:
    value: Any = state
    for key in path:
        value = value[key]
    return value


def _has(state: State, path: Path) -> bool:
    try:
        at(state, path)
    except (KeyError, IndexError):
        return False
    return True


def put(state: State, path: Path, value: Any) -> None:
    at(state, path[:-1])[path[-1]] = value
