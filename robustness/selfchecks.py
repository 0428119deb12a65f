"""Self-checks: what an evaluation must notice about itself before anyone trusts its figures.

Each function looks for one fault and returns warnings in plain words, none on a sound run. The faults are those of
Athalye et al. ("Obfuscated gradients", 2018), Carlini et al. ("On evaluating adversarial robustness", 2019) and
Croce et al. (AutoAttack's checks, 2020): attacks too weak to mean anything, masked gradients, broken budgets, and
randomised defences that had one lucky draw.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from model_store.inference import InferenceMode
from robustness.errors import EvaluationError
from robustness.intervals import Z95, paired
from robustness.observations import Observation
from robustness.scores import Score, accuracy

UNBOUNDED = 255
# A few images without a gradient are bad luck, of classifiers that are certain of them; more are a fault.
BLIND_SHARE, BLIND_COUNT = 0.02, 2
LOSS_FALL = 0.05


def unbounded_warnings(seen: Observation, chance: float) -> list[str]:
    """An untargeted attack at 255/255 may paint any image, so it must leave about nothing.

    ``chance`` is what guessing scores, in percent (100 / classes): more than that is a fault of the attack. Raises
    EvaluationError for an observation within a smaller budget.
    """
    if seen.scenario.eps != UNBOUNDED:
        raise EvaluationError(f"{seen.scenario.title} is bounded; give this check an attack at eps {UNBOUNDED}")
    if seen.score.percent <= chance:
        return []
    return [
        f"{seen.scenario.title} on {_place(seen)}: {seen.score.metric} is still {seen.score.percent:.1f} %, and "
        f"guessing gets {chance:.1f} %; an attack without a bound must leave about nothing, so its smaller budgets "
        "prove nothing either"
    ]


def loss_warnings(title: str, losses: Mapping[int, Tensor]) -> list[str]:
    """The attacker's loss must not fall when the same attack makes more iterations.

    ``losses``: iterations to the final loss (N,) of each of the same N images. A fall counts when the mean loses more
    than 5 % and more than the 95 % interval of the paired differences allows. Raises EvaluationError for fewer than two
    numbers of iterations.
    """
    if len(losses) < 2:
        raise EvaluationError("a loss is compared between numbers of iterations; give at least two")
    found = [
        f"{title}: the loss is not finite after {count} iterations; the attack has lost its way"
        for count, loss in sorted(losses.items())
        if not loss.isfinite().all()
    ]
    if found:
        return found
    for few, many in pairwise(sorted(losses)):
        before, fall = losses[few].double(), losses[few].double() - losses[many].double()
        noise = Z95 * float(fall.std(correction=0)) / math.sqrt(len(fall))
        if fall.mean() > max(LOSS_FALL * float(before.mean().abs()), noise):
            found.append(
                f"{title}: the mean loss falls from {before.mean():.4g} after {few} iterations to "
                f"{losses[many].double().mean():.4g} after {many}; more steps should not hurt an attack, so its step "
                "size or its gradients are wrong"
            )
    return found


def transfer_warnings(white: Iterable[Observation], transfer: Iterable[Observation]) -> list[str]:
    """A transfer attack must not beat the same attack at the same eps made on the victim itself.

    Only victims without a defence are compared: behind one, an attacker who does not know it is no white box. Scores
    count as different when the interval of their paired difference excludes 0, or, for a metric that is no mean over
    images, when their intervals are apart. Of runs over different numbers of images the first ones are compared,
    which must be the same.
    """
    known = {_key(seen): seen for seen in white if seen.role == "none" and seen.scenario.eps}
    found = []
    for seen in transfer:
        direct = known.get(_key(seen)) if seen.role == "none" else None
        if direct is not None and exceeds(direct.score, seen.score):
            found.append(
                f"{seen.scenario.title} on {seen.victim} leaves {_compared(seen.score, direct.score)}, the same attack "
                f"made on {seen.victim} itself {_compared(direct.score, seen.score)}; transfer must not beat white "
                "box, so the victim's gradients are probably masked"
            )
    return found


def masking_warnings(unaware: Iterable[Observation], aware: Iterable[Observation]) -> list[str]:
    """Knowing the defence must not leave more standing than not knowing it: the sign of masked gradients.

    Per victim, defence and eps, the attackers who know are taken together, image by image the strongest, and compared
    with each who does not, by the rule of ``transfer_warnings``.
    """
    known: dict[tuple[str, str, int], Score] = {}
    for seen in aware:
        key = (seen.victim, seen.defence, seen.scenario.eps)
        known[key] = strongest(known[key], seen.score) if key in known else seen.score
    found = []
    for seen in unaware:
        best = known.get((seen.victim, seen.defence, seen.scenario.eps))
        if best is not None and exceeds(best, seen.score):
            found.append(
                f"{seen.scenario.title} on {_place(seen)} leaves {_compared(seen.score, best)} without knowing the "
                f"defence, the attacks that know it {_compared(best, seen.score)}; its gradients are probably masked, "
                "and the larger figure is no robustness"
            )
    return found


def gradient_warnings(title: str, blind: Tensor) -> list[str]:
    """Gradients that lead nowhere: vanished or not finite for more than 2 % of the images, and two.

    ``blind`` (N,) bool marks images whose gradient vanished at the first step or was not finite.
    """
    count, useless = len(blind), int(blind.sum())
    if useless <= max(BLIND_COUNT, BLIND_SHARE * count):
        return []
    return [
        f"{title}: the gradient vanished or was not finite for {useless} of {count} images; "
        "the attack is weaker than it looks"
    ]


def budget_warnings(title: str, outside: Tensor) -> list[str]:
    """``outside`` (N,) bool marks adversaries that left their eps ball or [0,1], or are not finite: none may."""
    if not outside.any():
        return []
    return [
        f"{title}: {int(outside.sum())} of {len(outside)} adversaries left the budget or are not finite; "
        "the figure is of another attack than its name says"
    ]


def draw_warnings(title: str, mode: InferenceMode, *, draws: int, decisions: int) -> list[str]:
    """A randomised defence must be judged on more than one draw, and with as many a decision as it makes in use.

    ``draws`` noisy copies were averaged for each of ``decisions`` independent decisions about every image.
    """
    if mode.static:
        return []
    found = []
    if draws != mode.draws:
        found.append(
            f"{title}: judged with {draws} draw{'s' * (draws != 1)} a decision, but this mode makes {mode.draws}; "
            "the figure is of another defence"
        )
    if draws * decisions < 2:
        found.append(
            f"{title}: a randomised defence was judged on one draw of its noise; whoever sends an image again gets "
            "another, so judge several decisions and report the worst of them too"
        )
    return found


def resubmissions(correct: Tensor) -> dict[str, Score]:
    """What R independent decisions about each of N images amount to; ``correct`` is (R, N) bool, R at least 2.

    * ``single``: the share of right decisions, over all R x N, with the interval of N images;
    * ``majority``: the share of images that more than R / 2 decisions get right (a tie is wrong, and so is a
      plurality that is no majority);
    * ``worst``: the share of images that every one of the R decisions gets right, which is what is left of an
      attacker who may send the same adversary R times.

    Judge clean images in the same way as a control: noise alone makes some of them wrong once in R times. Raises
    EvaluationError for another shape or fewer than two decisions.
    """
    if correct.ndim != 2 or len(correct) < 2 or not correct.shape[1]:
        raise EvaluationError(
            f"resubmissions need at least two decisions about at least one image, as (R, N); got {tuple(correct.shape)}"
        )
    right = correct.double()
    return {
        "single": accuracy(right.mean(dim=0)),
        "majority": accuracy(right.mean(dim=0) > 0.5),
        "worst": accuracy(correct.bool().all(dim=0)),
    }


def resubmission_warnings(title: str, attacked: Tensor, clean: Tensor) -> list[str]:
    """Trying again must not gain an attacker more than noise costs clean images.

    ``attacked`` and ``clean`` are ``resubmissions``' (R, N), of the same images and as many decisions. Warns when the
    gap between the single decision and the worst of R is wider on adversaries, by more than its paired interval.
    Raises EvaluationError for different shapes.
    """
    if attacked.shape != clean.shape:
        raise EvaluationError(
            f"the clean control must be the same images with as many decisions: {tuple(clean.shape)} is not "
            f"{tuple(attacked.shape)}"
        )
    found, control = resubmissions(attacked), resubmissions(clean)
    if paired(_gap(found) - _gap(control))[0] <= 0:
        return []
    return [
        f"{title}: sending the same adversary {len(attacked)} times brings accuracy from "
        f"{found['single'].percent:.1f} % to {found['worst'].percent:.1f} % (clean images: "
        f"{control['single'].percent:.1f} % to {control['worst'].percent:.1f} %); the single decision flatters the "
        "defence"
    ]


def exceeds(higher: Score, lower: Score) -> bool:
    """Whether the first score is above the second by more than chance: paired where every image has its own score."""
    if higher.each is None or lower.each is None:
        return higher.interval[0] > lower.interval[1]
    count = min(len(higher.each), len(lower.each))
    return paired(higher.each[:count] - lower.each[:count])[0] > 0


def strongest(one: Score, other: Score) -> Score:
    """What two attacks on the same images leave together: image by image the smaller score, else the smaller figure."""
    if one.each is None or other.each is None:
        return one if one.percent <= other.percent else other
    count = min(len(one.each), len(other.each))
    return replace(accuracy(torch.minimum(one.each[:count], other.each[:count])), metric=one.metric)


def _gap(found: Mapping[str, Score]) -> Tensor:
    single, worst = found["single"].each, found["worst"].each
    if single is None or worst is None:
        raise EvaluationError("a score of resubmissions lacks its images")
    return single - worst


def _key(seen: Observation) -> tuple[str, str, int]:
    return seen.victim, seen.scenario.attack, seen.scenario.eps


def _place(seen: Observation) -> str:
    return seen.victim if seen.role == "none" else f"{seen.victim} behind {seen.defence}"


def _compared(score: Score, other: Score) -> str:
    """The figure over the images that both scores stand on."""
    if score.each is None or other.each is None:
        return f"{score.percent:.1f} %"
    count = min(len(score.each), len(other.each))
    return f"{100 * float(score.each[:count].mean()):.1f} % ({count} images)"
