"""The commands for the HTTP server's bearer tokens."""

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fivetran_state.cli.options import JsonOption, SandboxOption
from fivetran_state.cli.output import Output
from fivetran_state.startup import settings_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fivetran_state.tokens import Token, TokenFile

commands = typer.Typer(help="Manage the HTTP server's bearer tokens.", rich_markup_mode=None)


@commands.command("create")
def create_token(
    scope: Annotated[Literal["read", "write"], typer.Option(help="write includes read.")],
    name: Annotated[str | None, typer.Option(help="The name of its user.")] = None,
    expires_days: Annotated[
        float | None, typer.Option(min=0, help="Without it, the token never expires.")
    ] = None,
    sandbox: SandboxOption = False,
) -> None:
    """Make a token and print it, this once.

    Only its hash is kept.
    """
    with _token_file(sandbox) as tokens:
        text, token = tokens.create(scope, name, expires_days)
    typer.echo(f"{_described(token)}\nIt is shown this once:", err=True)
    typer.echo(text)


@commands.command("list")
def list_tokens(sandbox: SandboxOption = False, as_json: JsonOption = False) -> None:
    """List every token, and when it expires."""
    with _token_file(sandbox) as tokens:
        for token in tokens.tokens().values():
            if as_json:
                fields = token.model_dump(mode="json", exclude={"sha256"})
                Output(as_json=True).record(fields | {"has_expired": token.has_expired})
            else:
                typer.echo(_described(token))


@commands.command("revoke")
def revoke_token(token_id: str, sandbox: SandboxOption = False) -> None:
    """Let a token end now; running servers notice."""
    with _token_file(sandbox) as tokens:
        if not tokens.revoke(token_id):
            raise SystemExit(f"There is no token {token_id}.")


@contextmanager
def _token_file(sandbox: bool) -> "Iterator[TokenFile]":
    from fivetran_state.errors import FivetranStateError
    from fivetran_state.tokens import TokenFile

    try:
        yield TokenFile(settings_for(sandbox))
    except FivetranStateError as error:
        raise SystemExit(error.message) from None
    except OSError as error:
        raise SystemExit(str(error)) from None


def _described(token: "Token") -> str:
    expires = (
        "never expires" if token.expires is None else f"expires {token.expires:%Y-%m-%d %H:%M}Z"
    )
    state = "has expired" if token.has_expired else expires
    return (
        f"{token.id}  {token.scope:5}  {token.name or '-'}  made {token.created:%Y-%m-%d}  {state}"
    )
