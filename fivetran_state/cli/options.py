"""Arguments and options that several commands share."""

from typing import Annotated

import typer

SandboxOption = Annotated[
    bool, typer.Option("--sandbox", help="Use a simulated Fivetran; no credentials needed.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON, one object a line; errors too.")
]
ConnectionArgument = Annotated[
    str,
    typer.Argument(help="The connection's id, such as speak_inexpensive.", metavar="CONNECTION"),
]
WorkflowArgument = Annotated[
    str,
    typer.Argument(help="The id of an update, such as speak_inexpensive:1.", metavar="WORKFLOW_ID"),
]
OnlyOption = Annotated[
    str | None,
    typer.Option("--only", metavar="PATH", help="JSON Pointer: change this part only."),
]
MergePatchOption = Annotated[
    str | None,
    typer.Option(metavar="JSON", help="RFC 7386: the members to set; null removes one."),
]
JsonPatchOption = Annotated[
    str | None, typer.Option(metavar="JSON", help="RFC 6902: a list of operations.")
]
NewStateOption = Annotated[str | None, typer.Option(metavar="JSON", help="The whole new state.")]
ExpectedVersionOption = Annotated[
    str | None,
    typer.Option(
        "--expected-version",
        metavar="VERSION",
        help="The version you have seen; the change applies to it alone.",
    ),
]
YesOption = Annotated[
    bool, typer.Option("--yes", "-y", help="Don't ask; needs --expected-version.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")]
ProposeOption = Annotated[bool, typer.Option("--propose", help="Let another person approve it.")]
ThenSyncOption = Annotated[bool, typer.Option("--then-sync", help="Start a sync at the end.")]
AllowResyncOption = Annotated[
    bool,
    typer.Option("--allow-resync", help="Write even if a pending re-sync will overwrite it."),
]
ReasonOption = Annotated[
    str | None, typer.Option("--reason", metavar="TEXT", help="Why, for the history.")
]
