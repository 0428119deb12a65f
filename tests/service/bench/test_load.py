"""The load generator against a server of a few lines in the same event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from service.bench.connection import Connection, Request, upload
from service.bench.figures import UNANSWERED, Sample
from service.bench.load import PNG, Target, beside, closed_loop, open_loop, probing

Answer = Callable[[bytes, bytes], Awaitable[bytes | None]]
IMAGE = PNG + b"pixels"


def answered(body: bytes, status: str = "200 OK", head: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body


class Tiny:
    """Counts connections; what it answers is up to the test. None: it hangs up."""

    def __init__(self, answer: Answer) -> None:
        self.answer, self.connections, self.heads = answer, 0, [b""]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
                self.heads.append(head)
                out = await self.answer(head, await reader.readexactly(length))
                if out is None:
                    break
                writer.write(out)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def against(answer: Answer, work: Callable[[Tiny, int], Awaitable[None]]) -> None:
    async def run() -> None:
        tiny = Tiny(answer)
        server = await asyncio.start_server(tiny.serve, "127.0.0.1", 0)
        try:
            await work(tiny, server.sockets[0].getsockname()[1])
        finally:
            server.close()

    asyncio.run(run())


async def echo(_: bytes, body: bytes) -> bytes:
    return answered(body)


def test_a_connection_is_kept_and_used_again() -> None:
    async def work(tiny: Tiny, port: int) -> None:
        connection = Connection(port)
        for number in range(3):
            reply = await connection.send(upload("/purify", IMAGE + bytes([number])))
            assert (reply.status, reply.body) == (200, IMAGE + bytes([number]))
        connection.close()
        assert tiny.connections == 1
        assert b"accept-encoding: identity" in tiny.heads[-1].lower()

    against(echo, work)


def test_a_chunked_answer_is_put_together() -> None:
    async def chunked(_: bytes, __: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"

    async def work(_: Tiny, port: int) -> None:
        connection = Connection(port)
        assert (await connection.send(Request("GET", "/"))).body == b"abcde"
        connection.close()

    against(chunked, work)


def test_a_connection_that_the_server_closed_while_idle_is_opened_again() -> None:
    calls = 0

    async def first_then_hang_up(_: bytes, body: bytes) -> bytes | None:
        nonlocal calls
        calls += 1
        return None if calls == 2 else answered(body)

    async def work(tiny: Tiny, port: int) -> None:
        connection = Connection(port)
        for _ in range(2):
            assert (await connection.send(upload("/", IMAGE))).status == 200
        connection.close()
        assert tiny.connections == 2

    against(first_then_hang_up, work)


def test_an_upload_in_a_form_holds_the_same_bytes() -> None:
    request = upload("/purify", IMAGE, "image")
    head, _, rest = request.body.partition(b"\r\n\r\n")
    assert b'name="image"' in head
    assert rest.startswith(IMAGE + b"\r\n--")
    assert request.headers[0][1].startswith("multipart/form-data; boundary=")


def test_a_closed_loop_has_as_many_requests_in_flight_as_clients() -> None:
    running = most = 0
    together = asyncio.Event()

    async def slow(_: bytes, body: bytes) -> bytes:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 4:
            together.set()
        await asyncio.wait_for(together.wait(), 30)
        await asyncio.sleep(0.001)
        running -= 1
        return answered(body)

    async def work(_: Tiny, port: int) -> None:
        target = Target(port)
        samples = await closed_loop(target, lambda: upload("/", IMAGE), 4, 0.15)
        target.close()
        assert most == 4
        assert len(samples) >= 4
        assert all(sample.good for sample in samples)

    against(slow, work)


def test_a_closed_loop_ends_with_its_requests() -> None:
    async def work(_: Tiny, port: int) -> None:
        target = Target(port)
        left = iter([upload("/", IMAGE)] * 7)
        samples = await closed_loop(target, lambda: next(left, None), 3, 20.0)
        target.close()
        assert len(samples) == 7

    against(echo, work)


def test_a_closed_loop_sends_something_however_short_it_is() -> None:
    async def work(_: Tiny, port: int) -> None:
        target = Target(port)
        samples = await closed_loop(target, lambda: upload("/", IMAGE), 3, 0.0)
        target.close()
        assert [sample.good for sample in samples] == [True] * 3

    against(echo, work)


def test_a_refused_client_comes_back_when_it_was_told() -> None:
    async def full(_: bytes, __: bytes) -> bytes:
        return answered(b"", "429 Too Many Requests", "Retry-After: 30\r\n")

    async def work(_: Tiny, port: int) -> None:
        target = Target(port)
        samples = await closed_loop(target, lambda: upload("/", IMAGE), 2, 0.2)
        target.close()
        assert [(sample.status, sample.says_when) for sample in samples] == [(429, True)] * 2

    against(full, work)


def test_an_open_loop_waits_for_nobody_and_counts_from_the_schedule() -> None:
    async def one_at_a_time(_: bytes, body: bytes) -> bytes:
        async with turn:
            await asyncio.sleep(0.05)
        return answered(body)

    turn = asyncio.Lock()

    async def work(_: Tiny, port: int) -> None:
        target = Target(port)
        times = [0.0, 0.001, 0.002, 0.003]
        samples = await open_loop(target, upload("/", IMAGE), times, standing=0, seconds=0.1, grace_s=5.0)
        target.close()
        assert [sample.good for sample in samples] == [True] * 4
        assert max(sample.milliseconds for sample in samples) > 180  # the fourth waited for three others

    against(one_at_a_time, work)


def test_what_is_not_answered_in_time_is_unanswered() -> None:
    async def never(_: bytes, __: bytes) -> bytes:
        await asyncio.sleep(60)
        return b""

    async def work(_: Tiny, port: int) -> None:
        target = Target(port)
        begun = time.perf_counter()
        samples = await open_loop(target, upload("/", IMAGE), [0.0], standing=2, seconds=0.05, grace_s=0.05)
        assert time.perf_counter() - begun < 5
        assert [(sample.status, sample.counts) for sample in samples] == [
            (UNANSWERED, False),
            (UNANSWERED, False),
            (UNANSWERED, True),
        ]

    against(never, work)


def test_a_server_that_is_not_there_is_a_sample_too() -> None:
    async def work() -> Sample:
        return (await Target(1).ask(Request("GET", "/"), time.perf_counter()))[0]

    assert asyncio.run(work()).status == UNANSWERED


def test_probes_run_beside_the_load_and_end_with_it() -> None:
    found: list[Sample] = []
    asked, third = 0, asyncio.Event()

    async def counting(_: bytes, body: bytes) -> bytes:
        nonlocal asked
        asked += 1
        if asked == 3:
            third.set()
        return answered(body)

    async def load() -> list[Sample]:
        await third.wait()
        return []

    async def work(_: Tiny, port: int) -> None:
        await beside(load(), probing(port, "/health", 0.01, found))
        count = len(found)
        assert count >= 2
        assert {sample.status for sample in found} == {200}
        await asyncio.sleep(0.05)
        assert len(found) == count

    against(counting, work)


def test_an_error_in_the_load_is_not_swallowed() -> None:
    async def broken() -> list[Sample]:
        raise RuntimeError("broken")

    async def idle() -> None:
        await asyncio.sleep(60)

    with pytest.raises(RuntimeError, match="broken"):
        asyncio.run(beside(broken(), idle()))
