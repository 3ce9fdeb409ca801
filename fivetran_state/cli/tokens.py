"""The commands for the HTTP server's bearer tokens."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fivetran_state.cli.exit_codes import ExitCode
from fivetran_state.cli.options import JsonOption, SandboxOption
from fivetran_state.cli.output import Output
from fivetran_state.cli.shell import ending
from fivetran_state.errors import UnusableSettings
from fivetran_state.startup import begin_logs, read_settings
from fivetran_state.text import quoted, shown

if TYPE_CHECKING:
    from fivetran_state.tokens import Token, TokenFile

commands = typer.Typer(help="Manage the HTTP server's bearer tokens.", rich_markup_mode=None)


@commands.command("create")
def create_token(
    scope: Annotated[
        Literal["read", "write", "approve"],
        typer.Option(help="write includes read, and approve includes write."),
    ],
    name: Annotated[str | None, typer.Option(help="The name of its user.")] = None,
    expires_days: Annotated[
        float | None, typer.Option(min=0, help="Without it, the token never expires.")
    ] = None,
    sandbox: SandboxOption = False,
) -> None:
    """Make a token and print it, this once.

    Only its hash is kept.
    """
    output = Output(as_json=False)
    with _token_file(output, sandbox) as tokens:
        text, token = tokens.create(scope, name, expires_days)
    output.note(f"{_described(token)}\nIt is shown this once:")
    output.text(text)


@commands.command("list")
def list_tokens(sandbox: SandboxOption = False, as_json: JsonOption = False) -> None:
    """List every token, and when it expires."""
    output = Output(as_json=as_json)
    with _token_file(output, sandbox) as tokens:
        for token in tokens.tokens().values():
            if as_json:
                fields = token.model_dump(mode="json", exclude={"sha256"})
                output.record(fields | {"has_expired": token.has_expired})
            else:
                output.text(_described(token))


@commands.command("revoke")
def revoke_token(token_id: str, sandbox: SandboxOption = False) -> None:
    """Let a token end now; running servers notice."""
    output = Output(as_json=False)
    with _token_file(output, sandbox) as tokens:
        was_there = tokens.revoke(token_id)
    if not was_there:
        output.note(f"Error: There is no token {shown(token_id)}.", "red")
        raise typer.Exit(ExitCode.FAILED)


@contextmanager
def _token_file(output: Output, sandbox: bool) -> "Iterator[TokenFile]":
    """The file; prints an error, and exits with its code."""
    from fivetran_state.tokens import TokenFile

    with ending(output):
        settings = read_settings(sandbox)
        begin_logs(settings, settings.log_level)
        try:
            yield TokenFile(settings)
        except OSError as error:
            raise UnusableSettings(str(error)) from None


def _described(token: "Token") -> str:
    expires = (
        "never expires" if token.expires is None else f"expires {token.expires:%Y-%m-%d %H:%M}Z"
    )
    state = "has expired" if token.has_expired else expires
    name = "-" if token.name is None else quoted(token.name)
    return f"{token.id}  {token.scope:7}  {name}  made {token.created:%Y-%m-%d}  {state}"
