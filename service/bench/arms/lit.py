"""LitServe: one worker process that decodes, runs and encodes a batch; 5 ms for a batch to fill."""
# No annotations from the future here: the framework reads them as they stand.

import sys
from collections.abc import Sequence
from typing import Annotated

import litserve
from fastapi import Depends, Request, Response
from torch import Tensor

from service.bench.purification import Purification, file_of, pixels_of
from service.bench.task import received_task


async def body_of(request: Request) -> bytes:
    """The raw body; an uploaded file's object cannot be handed to the worker's process."""
    return await request.body()


class PurifyAPI(litserve.LitAPI):
    """The framework passes what one step returns to the next; a batch is what ``batch`` returns."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - the framework passes it; the task says it too
        """Load the weights, in the worker."""
        self.purification = Purification(received_task())

    def decode_request(self, request: Annotated[bytes, Depends(body_of)]) -> Tensor:
        """A PNG file as uint8 (3, H, W)."""
        return pixels_of(request)

    def batch(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """A list, since images need not be of one shape."""
        return list(inputs)

    def predict(self, x: list[Tensor]) -> list[Tensor]:
        """Purified images."""
        return self.purification.run(x)

    def unbatch(self, output: list[Tensor]) -> list[Tensor]:
        """One output an image."""
        return output

    def encode_response(self, output: Tensor) -> Response:
        """A PNG file."""
        return Response(file_of(output), media_type="image/png")


if __name__ == "__main__":
    task = received_task()
    api = PurifyAPI(max_batch_size=max(2, task.batch), batch_timeout=0.005, api_path="/purify")
    server = litserve.LitServer(api, accelerator=task.device, workers_per_device=1, timeout=False)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
