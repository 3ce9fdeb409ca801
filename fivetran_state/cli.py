"""The command line: `fivetran-state` serves MCP on stdio; `fivetran-state demo` shows it at work."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fivetran_state.config import Settings

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

SandboxOption = Annotated[
    bool, typer.Option("--sandbox", help="Use a simulated Fivetran; no credentials needed.")
]


@app.callback(invoke_without_command=True)
def default(context: typer.Context, sandbox: SandboxOption = False) -> None:
    """Read and safely change the state of Fivetran connections, from an assistant."""
    if context.invoked_subcommand is None:
        serve(sandbox=sandbox)


@app.command()
def serve(sandbox: SandboxOption = False) -> None:
    """Serve MCP on stdin and stdout (the default)."""
    from fivetran_state.mcp_server import build

    build(_settings(sandbox)).run("stdio")


@app.command()
def finish(sandbox: SandboxOption = False) -> None:
    """Finish every update that a stopped or killed server has left, and exit."""
    import asyncio

    from fivetran_state.service import Service

    async def run() -> None:
        service = Service(_settings(sandbox))
        service.start()
        try:
            await service.finish()
        finally:
            await service.close()

    asyncio.run(run())


@app.command()
def demo() -> None:
    """Show an update surviving a kill -9, on the sandbox."""
    from fivetran_state import demo as demonstration

    demonstration.run()


def _settings(sandbox: bool) -> "Settings":
    """The settings, and the logs as they say; exits with one line if the environment is wrong."""
    from pydantic import ValidationError

    from fivetran_state import logs
    from fivetran_state.config import Settings

    try:
        settings = Settings(sandbox=sandbox)
    except ValidationError as error:
        problems = [f"{p['loc'][0]}: {p['msg']}" for p in error.errors(include_input=False)]
        raise SystemExit("Cannot start: " + "; ".join(problems)) from None
    logs.configure(settings.log_level)
    return settings


def main() -> None:
    app()
