"""The command line: `fivetran-state` serves MCP on stdio; `fivetran-state demo` shows it at work."""

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from fivetran_state.config import WATCH_INTERVAL
from fivetran_state.ending import end_process, on_signals
from fivetran_state.startup import refuse_to_start, settings_for
from fivetran_state.stdio_server import serve_stdio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from fivetran_state.service import Service
    from fivetran_state.tokens import Token, TokenFile

T = TypeVar("T")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

SandboxOption = Annotated[
    bool, typer.Option("--sandbox", help="Use a simulated Fivetran; no credentials needed.")
]


GuestsOption = Annotated[
    bool, typer.Option("--guests", help="For HTTP servers that have no API key of their own.")
]
HttpOption = Annotated[bool, typer.Option("--http", help="Serve MCP and REST over HTTP.")]
HostOption = Annotated[str, typer.Option(help="The address to bind, with --http.")]
PortOption = Annotated[int, typer.Option(help="The port, with --http; 0 takes a free one.")]


def _only_one(workers: int) -> int:
    if workers != 1:
        raise typer.BadParameter(
            "a server is one process, whose death no other shares. Start several of them, on "
            "Postgres if on several machines, behind a load balancer (docs/reference/http.md)."
        )
    return workers


WorkersOption = Annotated[int, typer.Option(hidden=True, callback=_only_one)]


@app.callback(invoke_without_command=True)
def default(
    context: typer.Context,
    sandbox: SandboxOption = False,
    http: HttpOption = False,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    workers: WorkersOption = 1,
) -> None:
    """Read and safely change the state of Fivetran connections, from an assistant."""
    if context.invoked_subcommand is None:
        serve(sandbox=sandbox, http=http, host=host, port=port)
        return
    given = [name for name in context.params if _was_given(context, name)]
    if given:
        # The command would not see --sandbox, and would use the real account.
        listed = ", ".join(f"--{name}" for name in given)
        context.fail(
            f"Put {listed} behind the command, as in 'fivetran-state serve --sandbox': "
            f"{context.invoked_subcommand!r} does not see what stands before it."
        )


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


@app.command()
def serve(
    sandbox: SandboxOption = False,
    http: HttpOption = False,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    workers: WorkersOption = 1,
) -> None:
    """Serve MCP on stdin and stdout (the default), or MCP and REST over HTTP."""
    if not http:
        serve_stdio(sandbox=sandbox)
        return
    from fivetran_state import http_server
    from fivetran_state.errors import FivetranStateError

    try:
        settings = settings_for(sandbox, takes_guests=True, watch_interval=WATCH_INTERVAL)
        http_server.run(settings, host=host, port=port)
    except FivetranStateError as error:
        refuse_to_start(f"{error.message} {error.hint}")
    end_process()


@app.command()
def finish(
    sandbox: SandboxOption = False,
    guests: GuestsOption = False,
    after: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Finish every update that a stopped or killed server has left; exit 3 if one stays paused."""
    paused = _with_service(
        sandbox, lambda service: service.operations.finish(after), takes_guests=guests
    )
    for connection_id, workflow_id in paused.items():
        typer.echo(f"{connection_id} is still paused by {workflow_id}", err=True)
    raise typer.Exit(3 if paused else 0)


@app.command()
def doctor(sandbox: SandboxOption = False, guests: GuestsOption = False) -> None:
    """Check versions, credentials, database and updates; exit 1 if something is wrong."""
    findings = _with_service(
        sandbox, lambda service: service.operations.diagnose(), takes_guests=guests
    )
    for finding in findings:
        typer.echo(f"{'ok ' if finding.is_well else 'BAD'}  {finding.what}: {finding.detail}")
    raise typer.Exit(0 if all(finding.is_well for finding in findings) else 1)


@app.command()
def watch(
    sandbox: SandboxOption = False,
    once: Annotated[
        bool, typer.Option("--once", help="Look once and exit, as for cron; 1 if it ended early.")
    ] = False,
) -> None:
    """Remember the states that syncs leave, for the history."""
    if not once:
        _with_service(sandbox, lambda service: service.operations.watch(), watches=True)
        return
    looked = _with_service(sandbox, lambda service: service.operations.look())
    typer.echo(
        f"{looked['keeping']} connections keep a state; {looked['read']} states were read and "
        f"{len(looked['troubles'])} could not be."
    )
    if looked["stopped_by"] is not None:
        raise SystemExit(f"The look ended early: {looked['stopped_by']}")


token_commands = typer.Typer(help="Bearer tokens for the HTTP server.", no_args_is_help=True)
app.add_typer(token_commands, name="token")


@token_commands.command("create")
def create_token(
    scope: Annotated[Literal["read", "write"], typer.Option(help="write includes read.")],
    name: Annotated[str | None, typer.Option(help="The name of its user.")] = None,
    expires_days: Annotated[
        float | None, typer.Option(min=0, help="Without it, the token never expires.")
    ] = None,
    sandbox: SandboxOption = False,
) -> None:
    """Make a token and print it: this once, since only its hash is kept."""
    with _token_file(sandbox) as tokens:
        text, token = tokens.create(scope, name, expires_days)
    typer.echo(f"{_described(token)}\nIt is shown this once:", err=True)
    typer.echo(text)


@token_commands.command("list")
def list_tokens(sandbox: SandboxOption = False) -> None:
    """Every token: id, scope, name, when it was made and when it expires."""
    with _token_file(sandbox) as tokens:
        for token in tokens.tokens().values():
            typer.echo(_described(token))


@token_commands.command("revoke")
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


@app.command()
def demo() -> None:
    """Show an update surviving a kill -9, on the sandbox."""
    from fivetran_state.cli import demo as demonstration

    settings_for(sandbox=True)
    demonstration.run()


def _with_service(
    sandbox: bool,
    action: "Callable[[Service], Awaitable[T]]",
    *,
    takes_guests: bool = False,
    watches: bool = False,
) -> T:
    """Run `use` with a service. On an error, print the reason and exit with 1."""
    import asyncio

    from fivetran_state.errors import FivetranStateError
    from fivetran_state.service import Service

    settings = settings_for(sandbox, takes_guests)
    interval = (settings.watch_interval or WATCH_INTERVAL) if watches else 0
    settings = settings.model_copy(update={"watch_interval": interval})

    async def run() -> T:
        this = asyncio.current_task()
        assert this is not None, "it runs"
        on_signals(this.cancel)
        service = Service(settings)
        service.start()
        try:
            return await action(service)
        finally:
            await service.close()

    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        raise SystemExit("Ended by a signal.") from None
    except FivetranStateError as error:
        raise SystemExit(f"{error.message} {error.hint}") from None
