from collections.abc import Sequence

from service.errors import OutOfDeviceMemoryError
from service.isolation import run_isolated


def test_out_of_memory_splits_in_halves_until_it_fits() -> None:
    runs: list[list[int]] = []

    def room_for_two(members: Sequence[int]) -> list[str | Exception]:
        runs.append(list(members))
        if len(members) > 2:
            raise OutOfDeviceMemoryError("too many")
        return [f"done {member}" for member in members]

    assert run_isolated(room_for_two, [0, 1, 2, 3]) == ["done 0", "done 1", "done 2", "done 3"]
    assert runs == [[0, 1, 2, 3], [0, 1], [2, 3]]


def test_a_run_that_answers_too_few_strands_nobody() -> None:
    assert run_isolated(lambda members: members[:1], [1, 2]) == [1, 2]
    assert isinstance(run_isolated(lambda _: [], [1])[0], RuntimeError)
