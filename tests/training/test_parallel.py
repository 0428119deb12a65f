"""Several workers: the same weights as one, and one that writes. Real processes, over Gloo."""

from __future__ import annotations

import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from training.errors import RunError
from training.parallel import ALONE, Workers, own_device, require_one_worker

CPU = torch.device("cpu")
WORKER = """
import sys
from pathlib import Path

import torch
from torch import nn

from training.loop import Run, batch_at, generator_at, train
from training.parallel import Workers


class Line:
    total = 6

    def __init__(self, workers):
        torch.manual_seed(workers.rank)  # workers that begin apart are brought together
        self.module, self.workers = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), workers
        if workers.world == 1:
            torch.manual_seed(0)
        self.wrapped = workers.wrap(self.module)
        self.optimiser = torch.optim.AdamW(self.module.parameters(), 1e-2)
        self.photos = torch.rand(12, 3, generator=torch.Generator().manual_seed(1))

    def step(self, number):
        noise = torch.randn(4, 3, generator=generator_at(0, number))
        batch = self.workers.share(self.photos[batch_at(12, 4, number, 0)] + noise)
        out = self.wrapped(batch)
        # Not a mean over images: what the workers find is tied together by the mean of all.
        loss = (out - self.workers.mean(out.mean())).square().mean() + (out - batch.sum(1, keepdim=True)).abs().mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return {"loss": self.workers.mean(loss.detach()).item()}

    def state(self):
        return {"module": self.module.state_dict(), "optimiser": self.optimiser.state_dict()}

    def restore(self, state):
        self.module.load_state_dict(state["module"])
        self.optimiser.load_state_dict(state["optimiser"])


workers = Workers.from_environment(torch.device("cpu"))
folder = Path(sys.argv[1]) / f"rank-{workers.rank}"
for stop in (4, None):
    # The others read what the leader wrote.
    shared = Path(sys.argv[1]) / "rank-0"
    line = Line(workers)
    train(line, Run(shared, "line", 2, workers), stop_at=stop, quiet=True)
    if not workers.leads:
        Run(folder, "line", 2, workers).save(6, 0.0, line.state())
agreed = workers.agreed(workers.leads)
assert agreed, "the leader's wish counts"
weights = torch.cat([p.detach().flatten() for p in line.module.parameters()])
torch.save(weights, Path(sys.argv[1]) / f"weights-{workers.rank}.pt")
workers.close()
"""


def start(script: Path, folder: Path, rank: int, world: int, port: int) -> subprocess.Popen[str]:
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment = os.environ | {key: str(value) for key, value in told.items()} | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(  # noqa: S603
        [sys.executable, str(script), str(folder)], env=environment, stderr=subprocess.PIPE, text=True
    )


def trained(script: Path, folder: Path, world: int) -> list[torch.Tensor]:
    """The weights that each of several workers ends with."""
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workers = [start(script, folder, rank, world, port) for rank in range(world)]
    for worker in workers:
        _, complaint = worker.communicate(timeout=100)
        assert worker.returncode == 0, complaint
    return [torch.load(folder / f"weights-{rank}.pt", weights_only=True) for rank in range(world)]


@pytest.mark.slow
def test_two_workers_end_with_the_weights_of_one_and_the_leader_alone_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    (tmp_path / "one").mkdir()
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path / "one")])
    runpy.run_path(str(script))
    one = torch.load(tmp_path / "one" / "weights-0.pt", weights_only=True)
    both = trained(script, tmp_path / "two", 2)
    assert torch.equal(both[0], both[1])
    assert (both[0] - one).abs().max() < 1e-5
    assert (tmp_path / "two" / "rank-0" / "checkpoint.pt").is_file()
    assert not (tmp_path / "two" / "rank-1").exists()


def test_alone_nothing_changes() -> None:
    module, batch = nn.Linear(2, 2), torch.rand(3, 2)
    assert ALONE.leads
    assert ALONE.wrap(module) is module
    assert torch.equal(ALONE.share(batch), batch)
    assert ALONE.mean(batch) is batch
    assert not ALONE.agreed(False)
    ALONE.wait()
    ALONE.close()


def test_every_image_goes_to_one_worker_in_order() -> None:
    batch = torch.arange(12).view(6, 2)
    shares = [Workers(rank, 3).share(batch) for rank in range(3)]
    assert all(len(share) == 2 for share in shares)
    assert torch.equal(torch.cat(shares), batch)
    assert [Workers(rank, 3).leads for rank in range(3)] == [True, False, False]


def test_a_batch_that_does_not_come_out_even_is_refused() -> None:
    with pytest.raises(RunError, match=r"batch of 4 .* 3 workers"):
        Workers(0, 3).share(torch.zeros(4, 1))


def test_without_torchrun_a_worker_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert Workers.from_environment(CPU) == ALONE
    assert own_device(torch.device("cuda")) == torch.device("cuda")
    require_one_worker("detector")


def test_under_torchrun_each_worker_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert own_device(torch.device("cuda")) == torch.device("cuda", 3)
    assert own_device(CPU) == CPU
    with pytest.raises(RunError, match="detector is trained by one worker"):
        require_one_worker("detector")


def test_workers_that_cannot_be_joined_are_told_how_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RunError, match="torchrun"):
        Workers.from_environment(CPU)
