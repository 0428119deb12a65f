"""Runs by the clock: the learning rate is at zero when time is up, however many steps that allowed.

How many steps a machine does in some minutes is known only afterwards, and a cosine that is cut short or arrives early
wastes some of them.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from training.errors import RecipeError, RunError
from training.loop import Paced
from training.purifier_recipe import PurifierRecipe
from training.recipe import Recipe
from training.stages import Stage


@dataclass(frozen=True)
class ByTime:
    """The pace of a run until ``deadline``: a cosine by the clock.

    ``spent`` seconds went before ``began``; that and the deadline are times of the monotonic clock. Each call ends with
    a rate of zero, and one that goes on begins where one run of all the time so far would be. ``rising`` is the number
    of steps of the linear warm-up: steps, since the first may wait for a compiler.
    """

    spent: float
    began: float
    deadline: float
    rising: int

    def rate(self, step: int) -> float:
        """Share of the peak learning rate at ``step``."""
        whole = max(1e-9, self.spent + self.deadline - self.began)
        share = min(1.0, (self.spent + time.monotonic() - self.began) / whole)
        return min(1.0, (step + 1) / self.rising) * 0.5 * (1 + math.cos(math.pi * share))

    def over(self) -> bool:
        """Whether time is up."""
        return time.monotonic() >= self.deadline


def require_timeable(recipe: Recipe) -> None:
    """Raise RecipeError for a recipe that must know how many steps there will be."""
    if not isinstance(recipe, PurifierRecipe):
        raise RecipeError(f"{recipe.name!r} is trained by epochs, not by time; leave out --timed")
    for wanted, begins, name in (
        (recipe.adaptive.share, recipe.adaptive.begins, "adaptive.begins"),
        (recipe.adversarial_weight, recipe.adversarial_from, "adversarial_from"),
    ):
        if wanted and begins:
            raise RecipeError(f"{name} is a share of steps, which a run by time does not know; set it to 0")


def end_in_time(stage: Stage, deadline: float) -> None:
    """Let ``stage`` go on from its checkpoint and end at ``deadline``, a time of the monotonic clock.

    Its recipe's ``steps`` are the most that it does, and give the length of the warm-up. Raises RecipeError, and
    RunError where several workers would each go by a clock of its own.
    """
    require_timeable(stage.recipe)
    if stage.run.workers.world > 1:
        raise RunError("a run by time is one worker's; start it without torchrun")
    if not isinstance(stage.work, Paced) or not isinstance(stage.recipe, PurifierRecipe):
        raise RecipeError(f"{stage.recipe.name!r} has no pace that can be set; leave out --timed")
    rising = max(1, round(stage.recipe.steps * stage.recipe.warmup))
    stage.work.pace = ByTime(stage.run.load()[1], time.monotonic(), deadline, rising)
