"""The package, the bundle and the registry's entry say the same."""

import re
import sys

import pytest
from mcp import Client
from pydantic import SecretStr

from fivetran_state import __version__
from fivetran_state.config import Settings
from fivetran_state.mcp_server import build
from tests.release import described
from tests.support.calls import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MANIFEST, SERVER = described.manifest(), described.server()
SETTINGS = {str(field.validation_alias): field for field in Settings.model_fields.values()}
SECRET = {"FIVETRAN_API_KEY"} | {
    name for name, field in SETTINGS.items() if field.annotation == SecretStr | None
}


def test_all_have_one_name_and_one_version() -> None:
    (package,) = SERVER.packages

    assert {PROJECT["version"], package.version} == {__version__}
    assert {MANIFEST["version"], SERVER.version} == {described.semantic(__version__)}
    assert {PROJECT["name"], MANIFEST["name"], package.identifier} == {"fivetran-state"}
    assert list(PROJECT["scripts"]) == ["fivetran-state"]
    assert MANIFEST["license"] == PROJECT["license"]
    assert MANIFEST["compatibility"]["runtimes"]["python"] == PROJECT["requires-python"]


def test_the_readme_names_the_registrys_entry() -> None:
    # The registry asks the package index for this line before it takes a new version.
    (named,) = re.findall(r"mcp-name: (\S+)", (ROOT / "README.md").read_text(encoding="utf-8"))

    assert named == SERVER.name


@pytest.mark.parametrize(
    ("version", "spelt"),
    [("0.2.0", "0.2.0"), ("0.2.0.dev0", "0.2.0-dev.0"), ("1.0.0rc2", "1.0.0-rc.2")],
)
def test_a_version_is_spelt_semantically(version: str, spelt: str) -> None:
    assert described.semantic(version) == spelt


async def test_the_bundle_names_the_tools_of_the_server() -> None:
    async with Client(build(Settings())) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]

    assert [tool["name"] for tool in MANIFEST["tools"]] == tools


def test_the_bundle_and_the_registry_ask_for_the_same_settings() -> None:
    asked = described.configuration("here")["env"]
    registered = {each.name: each.default or "" for each in SERVER.packages[0].variables}

    assert asked == registered
    assert asked.keys() <= SETTINGS.keys()


def test_secrets_and_only_secrets_are_kept_as_secrets() -> None:
    names = described.configuration("", **{each: each for each in MANIFEST["user_config"]})["env"]
    kept = {name for name, each in names.items() if MANIFEST["user_config"][each].get("sensitive")}

    assert kept == {each.name for each in SERVER.packages[0].variables if each.is_secret}
    assert kept == names.keys() & SECRET


def test_the_bundle_starts_with_the_sandbox_until_the_user_turns_it_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = {"sandbox": "false", "api_key": "a key", "api_secret": "a secret"}
    started = []
    for chosen in ({}, own):
        for name, value in described.configuration("here", **chosen)["env"].items():
            monkeypatch.setenv(name, value)
        settings = Settings()
        started.append((settings.sandbox, settings.api_key, settings.read_only))

    assert started == [(True, None, False), (False, "a key", False)]
