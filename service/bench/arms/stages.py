"""mosec: three stages in processes of their own (decode, batches that fill for 5 ms at the most, encode)."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch
from mosec import Server, Worker, runtime
from torch import Tensor

from service.bench.purification import Purification, file_of, pixels_of
from service.bench.task import received_task


class Decode(Worker):
    """A file to pixels."""

    def deserialize(self, data: bytes) -> bytes:
        """The body as it came."""
        return bytes(data)

    def forward(self, data: bytes) -> Tensor:
        """uint8 (3, H, W)."""
        return pixels_of(data)


class Purify(Worker):
    """The one process that runs the model."""

    def __init__(self) -> None:
        self.purification = Purification(received_task())

    def forward(self, data: list[Tensor]) -> list[Tensor]:
        """A batch, purified."""
        return self.purification.run(data)


class Encode(Worker):
    """Pixels to a file."""

    resp_mime_type = "image/png"

    def forward(self, data: Tensor) -> bytes:
        """A PNG file."""
        return file_of(torch.as_tensor(data))

    def serialize(self, data: bytes) -> bytes:
        """The file as it is."""
        return data


def program() -> Path:
    """The framework's own program. It looks among the scripts of the interpreter, not in PATH, where --peers is."""
    found = shutil.which("mosec")
    if found is None:
        sys.exit("the package mosec has no program of that name in PATH; install it again")
    return Path(found)


if __name__ == "__main__":
    task = received_task()
    if runtime.get_mosec_path() is None:
        runtime.get_mosec_path = program
    sys.argv[1:] = ("--address", "127.0.0.1", "--port", sys.argv[1], "--timeout", "60000", "--log-level", "warning")
    server = Server()
    server.append_worker(Decode, num=1, route="/purify")
    server.append_worker(Purify, num=1, max_batch_size=max(2, task.batch), max_wait_time=5, route="/purify")
    server.append_worker(Encode, num=1, route="/purify")
    server.run()
