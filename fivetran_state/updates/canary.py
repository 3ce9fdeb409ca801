"""A sealed value by which a process checks that it has the key of the updates in the database."""

import asyncio

from dbos import DBOS

from fivetran_state.errors import UnusableKey
from fivetran_state.updates import statuses
from fivetran_state.updates.keys import Keys
from fivetran_state.updates.reader import Reader


class Canary:
    """One for each account."""

    def __init__(self, reader: Reader, application: str) -> None:
        self._reader = reader
        self.id = f"key:{application}"

    def check(self) -> None:
        """Raise `UnusableKey` if the database is used with a key that this process does not have."""
        rows = self._reader.find_now(workflow_ids=[self.id], load_input=True)
        if not rows:
            return
        if not isinstance(rows[0].input, dict):
            raise UnusableKey("The updates in this database were sealed with another key.")
        statuses.input_of(rows[0])

    async def leave(self, keys: Keys, *, anew: bool) -> None:
        """Store a value that is sealed with this process's key, so that other processes can check theirs.

        `anew`: seal it again, with what may be a new key. Raises `UnusableKey` if another process
        with another key was first.
        """
        if anew:
            await DBOS.delete_workflow_async(self.id)
        # Do not wait for the workflow: if its starter has died, only this engine can recover it.
        await keys.remember(self.id, None)
        await asyncio.to_thread(self.check)
