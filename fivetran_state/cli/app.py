"""The command line: the shell's commands, and those of operators. Without one it serves MCP."""

import sys
from typing import Annotated

import typer

from fivetran_state import __version__
from fivetran_state.cli import (
    changing,
    deciding,
    folders,
    following,
    history,
    many,
    operating,
    reading,
    resuming,
    tokens,
)
from fivetran_state.cli.exit_codes import ExitCode
from fivetran_state.cli.options import SandboxOption
from fivetran_state.cli.output import Output
from fivetran_state.ending import end_process
from fivetran_state.errors import FivetranStateError, InvalidRequest
from fivetran_state.startup import refuse_to_start, settings_for
from fivetran_state.stdio_server import serve_stdio

app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command line of this process, and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line to its end; returns its exit code."""
    try:
        code = app(arguments, prog_name="fivetran-state", standalone_mode=False)
    except typer.TyperException as error:
        _explain(error, as_json="--json" in arguments)
        return ExitCode.USAGE
    except (KeyboardInterrupt, typer.Abort):
        return ExitCode.INTERRUPTED
    return code if isinstance(code, int) else ExitCode.DONE


def _explain(error: typer.TyperException, *, as_json: bool) -> None:
    """Print what is wrong with the command line."""
    context: typer.Context | None = getattr(error, "ctx", None)
    message = " ".join(error.format_message().split())
    output = Output(as_json=as_json)
    if as_json:
        output.error(InvalidRequest(message))
        return
    if context is not None:
        output.note(context.get_usage())
    output.note(f"Error: {message}", "red")
    if context is not None:
        output.note(f"See '{context.command_path} --help'.")


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


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"fivetran-state {__version__}")
        raise typer.Exit


VersionOption = Annotated[
    bool,
    typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version."),
]


@app.callback(invoke_without_command=True)
def default(
    context: typer.Context,
    sandbox: SandboxOption = False,
    http: HttpOption = False,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    workers: WorkersOption = 1,
    version: VersionOption = False,
) -> None:
    """Read and safely change the state of Fivetran connections.

    Without a command it serves MCP, for an assistant.
    """
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


def serve(
    sandbox: SandboxOption = False,
    http: HttpOption = False,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    workers: WorkersOption = 1,
) -> None:
    """Serve MCP on stdin and stdout, or MCP and REST over HTTP."""
    if not http:
        serve_stdio(sandbox=sandbox)
        return
    from fivetran_state import http_server

    try:
        http_server.run(settings_for(sandbox, takes_guests=True), host=host, port=port)
    except FivetranStateError as error:
        refuse_to_start(f"{error.message} {error.hint}")
    end_process()


def demo() -> None:
    """Show an update surviving a kill -9, on the sandbox."""
    from fivetran_state.cli import demo as demonstration

    settings_for(sandbox=True)
    demonstration.run()


for _command in (
    reading.connections,
    reading.get,
    history.history,
    reading.diff,
    changing.update,
    many.update_many,
    changing.edit,
    changing.restore,
    changing.copy,
    following.status,
    following.cancel,
    deciding.proposals,
    deciding.approve,
    deciding.reject,
    folders.export,
    folders.plan,
    folders.apply,
    serve,
    operating.doctor,
    resuming.resume,
    operating.finish,
    operating.watch,
    demo,
):
    app.command()(_command)
app.add_typer(tokens.commands, name="token")
