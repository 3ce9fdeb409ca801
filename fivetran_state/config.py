"""Settings: every environment variable, once."""

import base64
import binascii
import hashlib
import ipaddress
import os
import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase, translate
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

import platformdirs
from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from fivetran_state import policy_file
from fivetran_state.access import APPROVE
from fivetran_state.policy import Policy


def is_loopback(host: str) -> bool:
    """True if only this machine can reach the host: 127.0.0.0/8, ::1, localhost."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_secure_url(url: str) -> bool:
    """True if nobody in between can change the answers: https, or this machine."""
    parts = _parts(url)
    return parts is not None and (
        parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    )


def _is_base_url(url: str) -> bool:
    parts = _parts(url)
    return (
        parts is not None
        and parts.scheme in ("http", "https")
        and not (parts.query or parts.fragment or parts.username is not None)
    )


def _parts(url: str) -> SplitResult | None:
    """The parts of the URL; None if it has no host or an impossible port."""
    try:
        parts = urlsplit(url)
        return parts if parts.hostname and parts.port != 0 else None
    except ValueError:
        return None


def _printable(value: str | None) -> str | None:
    """The name or secret of an OAuth client, which RFC 6749 limits to printable ASCII."""
    if value is not None and not (value.isascii() and value.isprintable()):
        raise ValueError("has to be printable ASCII text")
    return value


def _found(directory: Path) -> Path:
    """A directory as people write it, made absolute."""
    try:
        return directory.expanduser().resolve()
    except (OSError, RuntimeError) as error:
        raise ValueError(f"cannot be found: {error}") from None


def listed(setting: str) -> list[str]:
    """The parts of a comma-separated setting."""
    return [part.strip() for part in setting.split(",") if part.strip()]


def unknown_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that look like settings of this server and are not: name → the nearest setting."""
    aliases = [field.validation_alias for field in Settings.model_fields.values()]
    known = [alias for alias in aliases if isinstance(alias, str)]
    return {
        name: get_close_matches(name.upper(), known, n=1, cutoff=0)[0]
        for name, value in environment.items()
        if name.upper().startswith(_PREFIX)
        and name.upper() not in known
        and value.strip()
        and _OF_A_SERVICE.fullmatch(f"{name}={value}") is None
    }


_PREFIX = "FIVETRAN_STATE_"
_OF_A_SERVICE = re.compile(
    r"FIVETRAN_STATE_(SERVICE_(HOST|PORT\w*)=.*|PORT\w*_(PROTO|PORT|ADDR)=.*|PORT\w*=\w+://.*)"
)
"""Kubernetes sets such variables beside a service with the name fivetran-state."""


WATCH_INTERVAL = 900.0
"""Seconds between two looks of the watcher, unless `watch_interval` says otherwise."""


Confirm = Literal["auto", "never", "always"]
"""Who has to agree before a state is changed."""

_MIN_SECRET = 24
"""Characters."""


def signing_key(secret: str) -> bytes:
    """The bytes that sign notices: `whsec_` precedes base64, as in Standard Webhooks.

    Raises `ValueError` for other text behind `whsec_`.
    """
    encoded = secret.removeprefix("whsec_")
    return secret.encode() if encoded == secret else base64.b64decode(encoded, validate=True)


class Settings(BaseSettings):
    """The settings from the environment.

    Raises `pydantic.ValidationError`, which names the variable, when a value cannot be used.
    """

    model_config = SettingsConfigDict(
        env_ignore_empty=True, extra="ignore", frozen=True, allow_inf_nan=False
    )

    api_key: str | None = Field(None, validation_alias="FIVETRAN_API_KEY")
    api_secret: SecretStr | None = Field(None, validation_alias="FIVETRAN_API_SECRET")
    api_url: str = Field("https://api.fivetran.com", validation_alias="FIVETRAN_API_URL")
    http_timeout: float = Field(75, gt=0, validation_alias="FIVETRAN_STATE_HTTP_TIMEOUT")
    """Seconds to wait for one answer; Fivetran's own pause may take 60."""

    database_url: str | None = Field(None, validation_alias="DBOS_SYSTEM_DATABASE_URL")
    dbos_application_database_url: str | None = Field(None, validation_alias="DBOS_DATABASE_URL")
    conductor_key: SecretStr | None = Field(None, validation_alias="DBOS_CONDUCTOR_KEY")
    data_dir: Path = Field(
        default_factory=lambda: platformdirs.user_data_path("fivetran-state", appauthor=False),
        validation_alias="FIVETRAN_STATE_DATA_DIR",
        validate_default=True,
    )
    """Absolute, without symlinks: the same for every process, wherever it works."""

    secret_key: SecretStr | None = Field(None, validation_alias="FIVETRAN_STATE_SECRET_KEY")

    confirm: Confirm = Field("auto", validation_alias="FIVETRAN_STATE_CONFIRM")
    """`auto`: a human confirms wherever the client can ask one. `never`: nobody is asked.

    `always`: what a caller without the scope `approve` asks for is only proposed.
    """

    policy: Annotated[Policy, NoDecode] = Field(
        Policy(), validation_alias="FIVETRAN_STATE_POLICY", validate_default=False
    )
    """The rules of the file that the variable names."""

    approval_hours: float = Field(
        24, gt=0, le=24 * 365, validation_alias="FIVETRAN_STATE_APPROVAL_HOURS"
    )
    """Hours after which a proposal expires."""

    read_only: bool = Field(False, validation_alias="FIVETRAN_STATE_READ_ONLY")
    allowed_connections: str = Field("*", validation_alias="FIVETRAN_STATE_ALLOWED_CONNECTIONS")
    sync_wait: float = Field(900, ge=0, validation_alias="FIVETRAN_STATE_SYNC_WAIT")
    """Seconds to wait for a running sync to drain."""

    concurrency: int = Field(20, ge=1, le=100, validation_alias="FIVETRAN_STATE_CONCURRENCY")
    """Connections of groups that this process changes at the same time."""

    retention_days: float = Field(
        90, ge=0, le=36_500, validation_alias="FIVETRAN_STATE_RETENTION_DAYS"
    )
    """Days after which a finished update may be forgotten; 0 keeps all."""

    watch_interval: float | None = Field(
        None, ge=0, validation_alias="FIVETRAN_STATE_WATCH_INTERVAL"
    )
    """Seconds between two looks for states that syncs have moved; 0 is never.

    None: `WATCH_INTERVAL` where watching is the rule (the HTTP server, `watch`), else never.
    """

    shutdown_wait: float = Field(20, ge=0, validation_alias="FIVETRAN_STATE_SHUTDOWN_WAIT")
    """Seconds that an HTTP server gives updates to end before it hands them over."""

    tokens_file: Path | None = Field(None, validation_alias="FIVETRAN_STATE_TOKENS_FILE")
    oauth_issuer: str | None = Field(None, validation_alias="FIVETRAN_STATE_OAUTH_ISSUER")
    oauth_client_id: str | None = Field(None, validation_alias="FIVETRAN_STATE_OAUTH_CLIENT_ID")
    """This server's name at the issuer. People sign in on the page if it is set."""

    oauth_client_secret: SecretStr | None = Field(
        None, validation_alias="FIVETRAN_STATE_OAUTH_CLIENT_SECRET"
    )
    public_url: str | None = Field(None, validation_alias="FIVETRAN_STATE_PUBLIC_URL")
    """Where clients reach the HTTP server; the audience of OAuth tokens."""

    allowed_hosts: str = Field("", validation_alias="FIVETRAN_STATE_ALLOWED_HOSTS")
    allowed_origins: str = Field("", validation_alias="FIVETRAN_STATE_ALLOWED_ORIGINS")
    """Globs of pages elsewhere that may call the HTTP server, such as those of desktop hosts."""

    trusted_proxies: str = Field("", validation_alias="FIVETRAN_STATE_TRUSTED_PROXIES")
    rate_limit: int = Field(600, ge=0, validation_alias="FIVETRAN_STATE_RATE_LIMIT")
    """HTTP requests a minute of one principal; 0 is no limit."""

    notify_url: SecretStr | None = Field(None, validation_alias="FIVETRAN_STATE_NOTIFY_URL")
    """Where notices to people are sent. It may hold a secret, as Slack's addresses do."""

    notify_secret: SecretStr | None = Field(None, validation_alias="FIVETRAN_STATE_NOTIFY_SECRET")
    """Signs notices."""

    notify_format: Literal["json", "slack"] = Field(
        "json", validation_alias="FIVETRAN_STATE_NOTIFY_FORMAT"
    )
    alert_minutes: float = Field(60, ge=0, validation_alias="FIVETRAN_STATE_ALERT_MINUTES")
    """Minutes that an update may hold a connection paused without a notice; 0 is any time."""

    audit_file: Path | None = Field(None, validation_alias="FIVETRAN_STATE_AUDIT_FILE")
    """Where every event is added as a line that nobody can change unnoticed."""

    metrics_token: SecretStr | None = Field(None, validation_alias="FIVETRAN_STATE_METRICS_TOKEN")
    """The bearer token of a caller who may read `/metrics` and nothing else."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", validation_alias="FIVETRAN_STATE_LOG_LEVEL"
    )

    sandbox: bool = Field(False, validation_alias="FIVETRAN_STATE_SANDBOX")
    """Whether a simulated Fivetran stands in. On the command line: `--sandbox`."""

    takes_guests: bool = False
    """Whether requests may bring credentials of their own, so that the server needs none."""

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Refuse an unknown setting. Blanks around a value do not count."""
        unknown = unknown_variables(os.environ)
        if unknown:
            listed = [
                f"{name} is not a setting; is {near} meant?" for name, near in unknown.items()
            ]
            raise ValueError(" ".join(listed))
        stripped = {
            name: value.strip() if isinstance(value, str) else value
            for name, value in values.items()
        }
        return {name: value for name, value in stripped.items() if value != ""}

    @field_validator("policy", mode="before")
    @classmethod
    def _read_policy(cls, value: str) -> Policy:
        return policy_file.read(_found(Path(value).parent) / Path(value).name)

    @field_validator("data_dir")
    @classmethod
    def _find_directory(cls, value: Path) -> Path:
        return _found(value)

    @field_validator("tokens_file", "audit_file")
    @classmethod
    def _find_file(cls, value: Path | None) -> Path | None:
        # The file itself may not be a symlink, so only its directory is followed.
        return None if value is None else _found(value.parent) / value.name

    @field_validator("api_url")
    @classmethod
    def _check_api_url(cls, value: str) -> str:
        if not _is_base_url(value):
            raise ValueError("has to be an http or https URL without query, fragment and user")
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _take_any_case(cls, value: object) -> object:
        return value.strip().upper() if isinstance(value, str) else value

    @field_validator("oauth_issuer")
    @classmethod
    def _check_issuer(cls, value: str | None) -> str | None:
        if value is not None and not is_secure_url(value):
            raise ValueError("has to be an https URL")
        return value

    @field_validator("oauth_client_id")
    @classmethod
    def _check_client_id(cls, value: str | None) -> str | None:
        return _printable(value)

    @field_validator("oauth_client_secret")
    @classmethod
    def _check_client_secret(cls, value: SecretStr | None) -> SecretStr | None:
        _printable(None if value is None else value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _check_that_people_can_sign_in(self) -> "Settings":
        if self.oauth_client_secret and self.oauth_client_id is None:
            raise ValueError(
                "FIVETRAN_STATE_OAUTH_CLIENT_SECRET needs FIVETRAN_STATE_OAUTH_CLIENT_ID"
            )
        if self.oauth_client_id is None:
            return self
        if self.oauth_issuer is None:
            raise ValueError("FIVETRAN_STATE_OAUTH_CLIENT_ID needs FIVETRAN_STATE_OAUTH_ISSUER")
        if not is_secure_url(self.public_url or ""):
            raise ValueError(
                "FIVETRAN_STATE_OAUTH_CLIENT_ID needs FIVETRAN_STATE_PUBLIC_URL with an https URL, "
                "or an http URL of this machine"
            )
        return self

    @field_validator("public_url")
    @classmethod
    def _check_public_url(cls, value: str | None) -> str | None:
        if value is not None and not _is_base_url(value):
            raise ValueError("has to be an http or https URL without query, fragment and user")
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _check_origins(cls, value: str) -> str:
        for origin in listed(value):
            if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s]+", origin):
                raise ValueError(
                    "has to hold origins such as app://obsidian.md or vscode-webview://*"
                )
        return value

    @field_validator("notify_url")
    @classmethod
    def _check_notify_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not is_secure_url(value.get_secret_value()):
            raise ValueError("has to be an https URL, or an http URL of this machine")
        return value

    @field_validator("metrics_token")
    @classmethod
    def _check_metrics_token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < _MIN_SECRET:
            raise ValueError(f"has to have at least {_MIN_SECRET} characters")
        return value

    @field_validator("notify_secret")
    @classmethod
    def _check_notify_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        secret = value.get_secret_value()
        if len(secret) < _MIN_SECRET:
            raise ValueError(f"has to have at least {_MIN_SECRET} characters")
        try:
            signing_key(secret)
        except binascii.Error:
            raise ValueError("has to be base64 behind whsec_") from None
        return value

    @model_validator(mode="after")
    def _check_that_notices_are_signed(self) -> "Settings":
        if self.notify_url and self.notify_secret is None and self.notify_format == "json":
            raise ValueError(
                "FIVETRAN_STATE_NOTIFY_SECRET has to be set with FIVETRAN_STATE_NOTIFY_URL, unless "
                "FIVETRAN_STATE_NOTIFY_FORMAT is slack"
            )
        return self

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, value: str) -> str:
        try:
            for proxy in listed(value):
                ipaddress.ip_network(proxy)
        except ValueError:
            raise ValueError("has to list addresses and networks, with commas between") from None
        return value

    @property
    def home(self) -> Path:
        """The directory of this server's own files. The sandbox has its own."""
        return self.data_dir / "sandbox" if self.sandbox else self.data_dir

    @property
    def tokens_path(self) -> Path:
        return self.tokens_file or self.home / "tokens.json"

    @property
    def origins(self) -> re.Pattern[str] | None:
        """A pattern for the origins of pages elsewhere that may call; None if none may."""
        globs = listed(self.allowed_origins)
        return re.compile("|".join(map(translate, globs))) if globs else None

    def allows(self, connection_id: str) -> bool:
        """True if the operator lets this server use the connection."""
        return any(
            fnmatchcase(connection_id, glob.strip()) for glob in self.allowed_connections.split(",")
        )

    def proposes_all(self, scopes: Collection[str]) -> bool:
        """True if every change by a caller with these scopes needs approval, whatever it is."""
        return self.needs_approval(scopes) and not self.policy.waives

    def needs_approval(self, scopes: Collection[str]) -> bool:
        """True if a change by a caller with these scopes needs approval where no rule says."""
        return self.confirm == "always" and APPROVE not in scopes

    @property
    def key_fingerprint(self) -> str:
        return self.fingerprint_of(self.api_key or "")

    def fingerprint_of(self, key: str) -> str:
        """Names an API key without giving it away: 16 hex digits."""
        return hashlib.sha256(f"{self.api_url}\n{key}".encode()).hexdigest()[:16]
