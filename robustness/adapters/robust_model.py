"""Purifier and classifier as one module, for attacks of other libraries (torchattacks, AutoAttack, foolbox)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from model_store.card import InputConvention
from model_store.inference import STATIC, InferenceMode, PurifierDraws
from model_store.pixels import fit
from robustness.adapters.seed_source import SeedSource
from robustness.errors import VictimError

AS_THEY_ARE = InputConvention()


class RobustModel(nn.Module):
    """A purifier before a classifier: images (N, 3, H, W) in [0,1] to log-probabilities (N, classes), as logits.

    ``purifier`` is a network, run in ``mode``, or a PurifierDraws, which has its own. ``classifier`` takes [0,1] and
    gives logits; ``convention`` says the size it wants (a card's ``input``). The output is the logarithm of the mean
    class probabilities over the mode's draws: with one draw, the classifier's logits but for a constant an image.

    Differentiable all the way. The noise is this module's own, from ``seed``, or fresh at every call with None, as in
    use: then an attack needs EOT (torchattacks' EOTPGD, AutoAttack's version "rand"), and "standard" suits static
    modes. Both networks are put in evaluation mode. Raises VictimError for a PurifierDraws with another mode.
    """

    def __init__(
        self,
        purifier: nn.Module,
        classifier: nn.Module,
        mode: InferenceMode | None = None,
        *,
        convention: InputConvention = AS_THEY_ARE,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if isinstance(purifier, PurifierDraws):
            if mode is not None and mode != purifier.mode:
                raise VictimError(f"the purifier already has a mode ({purifier.mode}); leave mode out")
            self.purification = purifier
        else:
            self.purification = PurifierDraws(purifier, STATIC if mode is None else mode)
        self.classifier = classifier
        self.convention = convention
        self._seeds = SeedSource(seed)
        # Libraries restore the training flag they find here, and a new module's is set.
        self.eval()

    @property
    def mode(self) -> InferenceMode:
        """How the purifier is run."""
        return self.purification.mode

    def seeded(self, seed: int | None) -> RobustModel:
        """The same networks with noise of another seed."""
        return RobustModel(self.purification, self.classifier, convention=self.convention, seed=seed)

    def forward(self, images: Tensor) -> Tensor:
        """Log-probabilities (N, classes), differentiable."""
        count = len(images)
        versions = self.purification.draws(images, self._seeds.draw(count))
        logits: Tensor = self.classifier(fit(versions.flatten(0, 1), self.convention))
        each = logits.float().log_softmax(dim=-1).view(count, self.mode.draws, -1)
        return each.logsumexp(dim=1) - math.log(self.mode.draws)
