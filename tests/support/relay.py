"""The program of a host: it starts a server and relays between the server and the host's user.

    python relay.py TERMINAL LIFE COMMAND...

TERMINAL becomes the terminal of the host's session, unless it is /dev/null. The server inherits the
descriptor LIFE. A line `close 0 1` on stdin makes the host close its ends of the server's stdin and
stdout. A line `ignore 1` makes it stop reading the server's stdout.
"""

import os
import selectors
import subprocess
import sys
from typing import IO


def main(terminal: str, life: int, command: list[str]) -> None:
    # The first terminal that the leader of a session opens becomes the session's terminal.
    os.open(terminal, os.O_RDWR)
    server = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=[life],
    )
    os.close(life)
    os.write(1, b"%d\n" % server.pid)
    pipes: list[IO[bytes]] = [server.stdin, server.stdout, server.stderr]  # type: ignore[list-item]
    with selectors.DefaultSelector() as sources:
        sources.register(0, selectors.EVENT_READ, None)
        sources.register(pipes[1], selectors.EVENT_READ, 1)
        sources.register(pipes[2], selectors.EVENT_READ, 2)
        while True:
            for key, _ in sources.select():
                if key.fileobj not in sources.get_map():
                    continue  # An earlier line has closed it.
                said = os.read(key.fd, 65536)
                if not said and key.fd == 0:
                    return  # The test has ended.
                if not said:
                    sources.unregister(key.fileobj)
                elif key.data is not None:
                    os.write(key.data, said)
                else:
                    for line in said.splitlines(keepends=True):
                        order, *numbers = line.split()
                        if order == b"close":
                            close([pipes[int(number)] for number in numbers], sources)
                        elif order == b"ignore":
                            sources.unregister(pipes[int(numbers[0])])
                        else:
                            os.write(pipes[0].fileno(), line)


def close(pipes: list[IO[bytes]], sources: selectors.BaseSelector) -> None:
    for pipe in pipes:
        if pipe in sources.get_map():
            sources.unregister(pipe)
        pipe.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
