"""The command line: `fivetran-state` serves MCP on stdio; `fivetran-state demo` shows it at work."""

from typing import Annotated

import typer

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
    from pydantic import ValidationError

    from fivetran_state import logs
    from fivetran_state.config import Settings
    from fivetran_state.mcp_server import build

    try:
        settings = Settings(sandbox=sandbox)
    except ValidationError as error:
        problems = [f"{p['loc'][0]}: {p['msg']}" for p in error.errors(include_input=False)]
        raise SystemExit("Cannot start: " + "; ".join(problems)) from None
    logs.configure(settings.log_level)
    build(settings).run("stdio")


@app.command()
def demo() -> None:
    """Show an update surviving a kill -9, on the sandbox."""
    from fivetran_state import demo as demonstration

    demonstration.run()


def main() -> None:
    app()
