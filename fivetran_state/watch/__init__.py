"""The watcher: remembers the states that syncs leave, without anybody asking for them.

`look` is one look at an account's connections, a durable workflow; `watcher` starts one after the other.
"""
