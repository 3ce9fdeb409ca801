"""DBOS in this process: accounts, storage, locks, recovery, launch and hand-over."""
