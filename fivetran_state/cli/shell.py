"""What a command works with, and how it ends."""

import asyncio
import getpass
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, TypeVar

import typer

from fivetran_state import tracing
from fivetran_state.access import SCOPES, WITHOUT_TOKEN, Principal, working_for
from fivetran_state.cli.exit_codes import ExitCode, of_error
from fivetran_state.cli.output import Output, is_terminal
from fivetran_state.config import Settings
from fivetran_state.ending import on_signals
from fivetran_state.errors import FivetranStateError
from fivetran_state.startup import begin_logs, read_settings

if TYPE_CHECKING:
    from fivetran_state.service import Service

T = TypeVar("T")

FOREVER = 30 * 24 * 3600.0
"""Seconds to wait for an update's end: longer than any update lasts."""


@dataclass(frozen=True)
class Shell:
    """A command's service and its output."""

    settings: Settings
    service: "Service"
    output: Output

    @property
    def can_ask(self) -> bool:
        """True if a person is at the terminal, and the operator lets people be asked."""
        return (
            self.settings.confirm != "never" and is_terminal(sys.stdin) and is_terminal(sys.stderr)
        )

    @property
    def principal(self) -> Principal:
        """The user of this machine; only a person at the terminal may approve."""
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # A container may run as a user without a name.
            user = str(os.getuid())
        return Principal(f"shell:{user}", SCOPES if self.can_ask else WITHOUT_TOKEN)

    @property
    def must_propose(self) -> bool:
        """True if whatever is asked for here needs the approval of a person."""
        return self.settings.proposes_all(self.principal.scopes)

    def command(self, *words: str) -> str:
        """A command that the person may type next."""
        sandbox = ("--sandbox",) if self.settings.sandbox else ()
        return " ".join(("fivetran-state", *words, *sandbox))

    def goes_on(self, workflow_id: str) -> None:
        """Say that the update, or the group, is left running."""
        is_group = self.service.groups.is_group(workflow_id)
        self.output.note(
            (
                f"The group {workflow_id} goes on by itself, and resumes each connection at its end.\n"
                if is_group
                else f"The update {workflow_id} goes on by itself, and resumes the connection at its "
                "end.\n"
            )
            + f"Follow it: {self.command('status', workflow_id, '--watch')}\n"
            f"End it before it writes: {self.command('cancel', workflow_id)}"
        )
        if self.output.as_json:
            self.output.record({"workflow_id": workflow_id, "status": "running"})


Action = Callable[[Shell], Awaitable[T]]


def run(action: Action[ExitCode], *, sandbox: bool, as_json: bool) -> NoReturn:
    """Run a command's action with a service, and exit with its code."""
    raise typer.Exit(work(action, sandbox=sandbox, as_json=as_json))


def work(
    action: Action[T],
    *,
    sandbox: bool,
    as_json: bool,
    takes_guests: bool = False,
    is_logged: bool = False,
    starts: bool = True,
    log_file: str | None = None,
) -> T:
    """The result of an action with a service; exits if it fails.

    Without `starts`, the service is not started, so it takes no update over.

    An update that is still running at the end is handed over to a process of its own. Log lines are
    for servers: without `is_logged` there are none, unless the person has set a level. They go to
    stderr, or to the `log_file` in the data directory.
    """
    output = Output(as_json=as_json)
    with ending(output):
        settings = read_settings(sandbox, takes_guests)
        # The commands with log lines may last for days, which no span should.
        span = nullcontext() if is_logged else tracing.command(_command_of(action))
        is_logged = is_logged or "log_level" in settings.model_fields_set
        file = None if log_file is None else settings.home / log_file
        begin_logs(settings, settings.log_level if is_logged else "CRITICAL", file)
        try:
            with span:
                return asyncio.run(_run(action, settings, output, starts=starts))
        finally:
            tracing.end()


def _command_of(action: Action[T]) -> str:
    """The name of the command's function, within which the action stands."""
    return str(getattr(action, "__qualname__", "")).partition(".")[0].replace("_", "-")


@contextmanager
def ending(output: Output) -> Iterator[None]:
    """Print an error or an interruption, and exit with its code."""
    try:
        yield
    except (asyncio.CancelledError, KeyboardInterrupt):
        output.note("Interrupted.")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except FivetranStateError as error:
        output.error(error)
        raise typer.Exit(of_error(error)) from None


async def _run(action: Action[T], settings: Settings, output: Output, *, starts: bool) -> T:
    from fivetran_state.service import Service

    this = asyncio.current_task()
    assert this is not None, "it runs"
    on_signals(this.cancel)
    service = Service(settings)
    if starts:
        service.start()
    shell = Shell(settings, service, output)
    try:
        with working_for(shell.principal):
            return await action(shell)
    finally:
        await service.close()
