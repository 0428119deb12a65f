"""The whole protocol on toys: worst cases, clean twins, checks, and a masked gradient that it sees through."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from robustness.aware.defended import Defended, Mode
from robustness.aware.figure import Figure
from robustness.aware.material import Material
from robustness.aware.plan import CPU_PLAN, GPU_PLAN, AwarePlan
from robustness.aware.protocol import measure
from robustness.errors import EvaluationError
from tests.robustness.aware.conftest import MakeDefended, Wavy

ROOT = Path(__file__).parents[3]


class Quantised(nn.Module):
    """Eight levels a channel: a step in the forward pass, and no gradient at all."""

    def forward(self, images: Tensor) -> Tensor:
        return (images * 40).round() / 40


class Faded(nn.Module):
    """Another purifier than the identity."""

    def forward(self, images: Tensor) -> Tensor:
        return 0.8 * images + 0.1


def run(
    material: Material, defended: Defended, plan: AwarePlan, sources: tuple[Defended, ...] = ()
) -> tuple[dict[tuple[str, str], Figure], list[str]]:
    warnings: list[str] = []
    figures = list(measure(material, defended, plan, warnings.append, sources))
    found = {
        (f"{figure.attack} {figure.source or ''}".strip() + f" {figure.eps}", figure.series): figure
        for figure in figures
    }
    assert len(found) == len(figures)
    return found, warnings


def test_every_figure_of_a_noisy_mode_and_none_above_its_clean_twin(
    material: Material, plan: AwarePlan, make_defended: MakeDefended
) -> None:
    found, _ = run(material, make_defended(), replace(plan, square_photos=2, square_queries=10, square_draws=2))
    exact, three = "exact PGD-6 CE EOT-3", ("single draw", "vote", "worst of 4")
    main = ("clean 0", f"{exact} 8", "exact APGD-6 margin EOT-3 8", "BPDA PGD-6 CE EOT-3 8", "worst of attacks 8")
    expected = {(attack, series) for attack in (*main, "Square-10 8") for series in three}
    expected |= {("exact PGD-6 CE EOT-1 8", "EOT curve"), (f"{exact} 8", "EOT curve")}
    expected |= {("exact PGD-6 CE known noise 8", "known noise"), (f"{exact} 32", "vote")}
    assert set(found) == expected
    assert all(figure.score.percent <= figure.clean.percent for figure in found.values())
    assert all(
        figure.score.interval[0] <= figure.score.percent <= figure.score.interval[1] for figure in found.values()
    )
    assert found["exact PGD-6 CE EOT-1 8", "EOT curve"].x == 1
    assert found["clean 0", "vote"].score.percent < 100  # the sixth photo is wrong as it is
    assert {figure.score.count for (attack, series), figure in found.items() if attack in main and series in three} == {
        6
    }


def test_the_worst_of_attacks_is_no_larger_than_any_photo_by_photo(
    material: Material, plan: AwarePlan, make_defended: MakeDefended
) -> None:
    found, _ = run(material, make_defended(purifier=Wavy()), replace(plan, eps=2, drop=False))
    for series in ("single draw", "vote", "worst of 4"):
        worst = found["worst of attacks 2", series].score.each
        others = [f.score.each for (_, which), f in found.items() if which == series and f.eps == 2 and f.x is None]
        assert worst is not None
        assert len(others) == 4
        assert all(other is not None and (worst <= other).all() for other in others)


def test_photos_that_are_broken_are_not_attacked_again_and_count_as_broken(
    material: Material, plan: AwarePlan, make_defended: MakeDefended
) -> None:
    dropped, _ = run(material, make_defended(), plan)
    full, _ = run(material, make_defended(), replace(plan, drop=False))
    first, last = "exact PGD-6 CE EOT-3 8", "BPDA PGD-6 CE EOT-3 8"
    assert dropped[first, "vote"].settings["attacked"] == full[last, "vote"].settings["attacked"] == 5
    assert int(str(dropped[last, "vote"].settings["attacked"])) < 5
    assert "count as broken" in str(dropped[last, "vote"].settings["not attacked"])
    assert dropped[first, "vote"].score.percent == full[first, "vote"].score.percent
    for figures in (dropped, full):
        each = figures["worst of attacks 8", "vote"].score.each
        assert each is not None
        assert each[5] == 0
    assert dropped["worst of attacks 8", "vote"].score.percent == full["worst of attacks 8", "vote"].score.percent


def test_a_masked_gradient_is_broken_by_bpda_alone_and_so_in_the_worst_case(
    material: Material, plan: AwarePlan, make_defended: MakeDefended
) -> None:
    found, warnings = run(material, make_defended(Mode(), Quantised()), plan)
    clean = found["clean 0", "vote"].score.percent
    assert clean > 60
    assert found["exact PGD-6 CE EOT-1 8", "vote"].score.percent > clean - 20
    assert found["BPDA PGD-6 CE EOT-1 8", "vote"].score.percent < 20
    assert found["worst of attacks 8", "vote"].score.percent == found["BPDA PGD-6 CE EOT-1 8", "vote"].score.percent
    assert any("masks its gradient" in warning for warning in warnings)
    assert any("vanished" in warning for warning in warnings)
    assert any("eps 32/255" in warning for warning in warnings)


def test_a_sound_attack_leaves_nothing_at_32_and_no_doubt(
    material: Material, plan: AwarePlan, make_defended: MakeDefended
) -> None:
    found, warnings = run(material, make_defended(Mode()), plan)
    assert found["exact PGD-6 CE EOT-1 32", "vote"].score.percent == 0
    assert warnings == []


def test_nothing_random_is_measured_once_and_without_draws(
    material: Material, plan: AwarePlan, make_defended: MakeDefended
) -> None:
    found, _ = run(material, make_defended(Mode(jpeg=50)), plan)
    assert {series for _, series in found} == {"vote"}
    assert not any("EOT-3" in attack for attack, _ in found)


def test_no_photos_for_the_checks_means_no_checks(
    material: Material, plan: AwarePlan, make_defended: MakeDefended
) -> None:
    found, _ = run(material, make_defended(), replace(plan, few=0, steps=1, photos=2))
    assert {series for _, series in found} == {"single draw", "vote", "worst of 4"}
    assert {figure.score.count for figure in found.values()} == {2}


def test_transfer_tries_the_other_purifiers_own_adversaries(
    material: Material, plan: AwarePlan, make_defended: MakeDefended
) -> None:
    ours, other = make_defended(), make_defended(purifier=Faded(), name="other")
    run(material, other, plan)
    before = {path.name for path in material.cache.root.iterdir()}
    found, _ = run(material, ours, plan, (other,))
    made = {path.name for path in material.cache.root.iterdir()} - before
    assert not [name for name in made if "-other-" in name]
    figure = found["exact PGD-6 CE EOT-3 other 8", "vote"]
    assert figure.source == "other"
    assert figure.score.percent < found["clean 0", "vote"].score.percent


def test_behind_a_static_mode_what_was_made_through_a_noisy_one_keeps_its_draws(
    material: Material, plan: AwarePlan, make_defended: MakeDefended
) -> None:
    noisy = make_defended(purifier=Faded(), name="other")
    found, _ = run(material, make_defended(Mode()), replace(plan, few=0), (noisy,))
    assert ("exact PGD-6 CE EOT-3 other 8", "vote") in found


def test_running_again_gives_the_same_and_computes_nothing(
    material: Material, plan: AwarePlan, make_defended: MakeDefended
) -> None:
    first, _ = run(material, make_defended(), plan)

    class Broken(nn.Module):
        def forward(self, _: Tensor) -> Tensor:
            raise AssertionError("nothing is left to compute")

    again, _ = run(material, make_defended(purifier=Broken()), plan)
    assert {key: figure.score.percent for key, figure in again.items()} == {
        key: figure.score.percent for key, figure in first.items()
    }


def test_where_cross_entropy_is_flat_the_margin_breaks_and_bpda_is_no_sign_of_a_masked_gradient(
    material: Material, plan: AwarePlan, make_defended: MakeDefended
) -> None:
    certain = make_defended(Mode())
    with torch.no_grad():
        next(certain.classifier.parameters()).fill_(1e6)
    found, warnings = run(material, certain, plan)
    clean = found["clean 0", "vote"].score.percent
    assert found["exact PGD-6 CE EOT-1 8", "vote"].score.percent > clean - 20
    assert found["exact APGD-6 margin EOT-1 8", "vote"].score.percent == 0
    assert found["BPDA PGD-6 CE EOT-1 8", "vote"].settings["attacked"] == 0
    assert not any("masks its gradient" in warning for warning in warnings)


def test_known_noise_is_at_least_as_strong_as_noise_that_must_be_averaged(
    material: Material, plan: AwarePlan, make_defended: MakeDefended
) -> None:
    found, _ = run(material, make_defended(Mode(noise_std=0.3, draws=2)), replace(plan, eps=4, few=6))
    known = found["exact PGD-6 CE known noise 4", "known noise"]
    assert known.score.percent <= found["exact PGD-6 CE EOT-3 4", "EOT curve"].score.percent
    assert known.clean.each is not None
    assert set(known.clean.each.tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"decisions": 1}, {"few": -1}, {"eot_curve": (0,)}, {"chunk": 0}])
def test_a_plan_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(EvaluationError):
        replace(CPU_PLAN, **wrong)  # type: ignore[arg-type]


def test_the_plans_are_those_that_are_asked_for() -> None:
    assert (CPU_PLAN.steps, CPU_PLAN.eot, CPU_PLAN.photos, CPU_PLAN.eps) == (40, 10, 64, 4)
    assert (GPU_PLAN.steps, GPU_PLAN.eot, GPU_PLAN.photos) == (200, 20, 512)
    assert [attack.name for attack in CPU_PLAN.main()] == [
        "exact PGD-40 CE EOT-10",
        "exact APGD-40 margin EOT-10",
        "BPDA PGD-40 CE EOT-10",
    ]


def test_the_protocol_needs_no_package_that_a_bare_machine_lacks() -> None:
    script = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'pydantic', 'skimage', 'scipy', 'sklearn', 'fastapi'}:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "import robustness.aware.protocol\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)  # noqa: S603 - our own interpreter
