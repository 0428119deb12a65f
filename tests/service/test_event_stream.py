from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest
from pydantic import BaseModel

from service import event_stream
from service.event_stream import EventStream, Tell


class Note(BaseModel):
    text: str


async def sent(stream: EventStream) -> list[MutableMapping[str, Any]]:
    messages: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        messages.append(message)

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.disconnect"}

    await stream({"type": "http", "path": "/x", "state": {}}, receive, send)
    return messages


def test_events_come_as_they_are_told_and_comments_while_none_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_S", 0.02)

    async def work(tell: Tell) -> Note:
        await asyncio.sleep(0.05)  # no comment before there is an answer at all: it may still be a refusal
        tell("progress", Note(text="two\nlines"))
        await asyncio.sleep(0.1)
        return Note(text="done")

    start, *bodies = asyncio.run(sent(EventStream(work, {"X-Own": "1"})))
    assert start["status"] == 200
    assert (b"x-own", b"1") in start["headers"]
    parts = [body["body"] for body in bodies]
    assert parts[0] == b'event: progress\ndata: {"text":"two\\nlines"}\n\n'
    assert parts[1] == b": still at work\n\n"
    assert parts[-1] == b'event: result\ndata: {"text":"done"}\n\n'
    assert [body["more_body"] for body in bodies] == [True] * (len(bodies) - 1) + [False]


def test_a_result_without_a_word_before_it_is_a_stream_of_one_event() -> None:
    async def work(_: Tell) -> Note:
        return Note(text="at once")

    start, body = asyncio.run(sent(EventStream(work, {})))
    assert (start["status"], body["body"]) == (200, b'event: result\ndata: {"text":"at once"}\n\n')


def test_what_fails_before_the_first_event_is_raised() -> None:
    async def work(_: Tell) -> Note:
        raise ValueError("too early")

    with pytest.raises(ValueError, match="too early"):
        asyncio.run(sent(EventStream(work, {})))


def test_who_cancels_the_answer_cancels_the_work() -> None:
    ended = []

    async def work(tell: Tell) -> Note:
        tell("progress", Note(text="begun"))
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)
        return Note(text="never")

    async def leave() -> None:
        answer = asyncio.create_task(sent(EventStream(work, {})))
        await asyncio.sleep(0.02)
        answer.cancel()
        await asyncio.wait([answer])

    asyncio.run(leave())
    assert ended == [True]
