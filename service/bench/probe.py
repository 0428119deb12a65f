"""The probe: asks a server whether it lives, from a process of its own, so that a busy load generator does not show."""

from __future__ import annotations

import http.client
import json
import select
import sys
import time

from service.bench.figures import UNANSWERED

PATIENCE_S = 30.0


def ask(connection: http.client.HTTPConnection, path: str) -> int:
    """The status of the answer; UNANSWERED, and a new connection next time, where there is none."""
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        return UNANSWERED
    return answer.status


def main(port: int, path: str, every_s: float) -> None:
    """Ask every ``every_s`` seconds until standard input ends, then print (milliseconds since it was due, status)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    found = []
    due = time.perf_counter()
    while not select.select([sys.stdin], [], [], max(0.0, due - time.perf_counter()))[0]:
        status = ask(connection, path)
        now = time.perf_counter()
        found.append((1000 * (now - due), status))
        due = max(due + every_s, now)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
