"""Settings: every environment variable, once."""

import hashlib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import platformdirs
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """What the environment says; `sandbox` comes from the command line.

    Raises `pydantic.ValidationError`, which names the variable, when a value cannot be used.
    """

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True)

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
    )
    secret_key: SecretStr | None = Field(None, validation_alias="FIVETRAN_STATE_SECRET_KEY")

    confirm: Literal["auto", "never"] = Field("auto", validation_alias="FIVETRAN_STATE_CONFIRM")
    """`auto`: a human confirms wherever the client can ask one."""

    read_only: bool = Field(False, validation_alias="FIVETRAN_STATE_READ_ONLY")
    allowed_connections: str = Field("*", validation_alias="FIVETRAN_STATE_ALLOWED_CONNECTIONS")
    sync_wait: float = Field(900, ge=0, validation_alias="FIVETRAN_STATE_SYNC_WAIT")
    """Seconds to wait for a running sync to drain."""

    retention_days: float = Field(90, ge=0, validation_alias="FIVETRAN_STATE_RETENTION_DAYS")
    """Days after which a finished update may be forgotten; 0 keeps all."""

    shutdown_wait: float = Field(20, ge=0, validation_alias="FIVETRAN_STATE_SHUTDOWN_WAIT")
    """Seconds that an HTTP server gives updates to end before it hands them over."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", validation_alias="FIVETRAN_STATE_LOG_LEVEL"
    )

    sandbox: bool = False
    takes_guests: bool = False
    """Whether requests may bring credentials of their own, so that the server needs none."""

    @property
    def home(self) -> Path:
        """Where this server's own files are: those of the sandbox are kept apart."""
        return self.data_dir / "sandbox" if self.sandbox else self.data_dir

    def allows(self, connection_id: str) -> bool:
        """Whether the operator lets this server touch the connection."""
        return any(
            fnmatchcase(connection_id, glob.strip()) for glob in self.allowed_connections.split(",")
        )

    @property
    def key_fingerprint(self) -> str:
        return self.fingerprint_of(self.api_key or "")

    def fingerprint_of(self, key: str) -> str:
        """Names an API key without giving it away: 16 hex digits."""
        return hashlib.sha256(f"{self.api_url}\n{key}".encode()).hexdigest()[:16]
