"""This project's purifier as a preprocessing defence of the Adversarial Robustness Toolbox (ART), with working BPDA.

ART has two paths to a gradient. Where all of a classifier's preprocessors are PyTorch's, its attacks differentiate
``forward`` and never ask for ``estimate_forward``, so a defence that puts its substitute gradient there alone has none
(their issue 1526). Here ``forward`` itself carries the gradient that was chosen, and both paths get the same.

Importing this module needs the extra ``art``.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from model_store.inference import STATIC, InferenceMode, PurifierDraws
from robustness.adapters.seed_source import SeedSource
from robustness.errors import EvaluationError

try:
    from art.defences.preprocessor.preprocessor import PreprocessorPyTorch
except ImportError as error:
    raise EvaluationError('ART is not installed; install the extra: pip install -e ".[art]"') from error

Gradient = Literal["exact", "identity"]
GRADIENTS: tuple[Gradient, ...] = ("exact", "identity")


class PurifierPreprocessor(PreprocessorPyTorch):  # type: ignore[misc]
    """A purifier for ``PyTorchClassifier(preprocessing_defences=[...])`` with images NCHW in [0,1].

    ``gradient`` "exact" differentiates the purifier; "identity" is BPDA (Athalye et al., 2018): forward through the
    purifier, backward as if it were not there, which is what an attacker does to a purifier whose own gradient is
    zero or useless. Randomised modes draw from ``seed``, or anew at each call with None. A mode of several draws
    gives the mean image, since ART wants one image for one; to average probabilities, put a RobustModel into the
    classifier instead. Applied when predicting, and when fitting only with ``apply_fit``.

    Raises EvaluationError for another word as ``gradient``.
    """

    params = ("mode", "gradient")

    def __init__(
        self,
        purifier: nn.Module,
        mode: InferenceMode = STATIC,
        *,
        gradient: Gradient = "exact",
        seed: int | None = None,
        apply_fit: bool = False,
        apply_predict: bool = True,
    ) -> None:
        on_gpu = any(tensor.is_cuda for tensor in (*purifier.parameters(), *purifier.buffers()))
        device_type = "gpu" if on_gpu else "cpu"
        super().__init__(device_type=device_type, is_fitted=True, apply_fit=apply_fit, apply_predict=apply_predict)
        self.purifier = purifier.eval()
        self.mode = mode
        self.gradient = gradient
        self._seeds = SeedSource(seed)
        self._check_params()

    def forward(self, x: Tensor, y: Any | None = None) -> tuple[Tensor, Any | None]:
        """Purified images, same shape, with the chosen gradient; ``y`` as it is."""
        if self.gradient == "exact":
            return self._purified(x), y
        with torch.no_grad():
            purified = self._purified(x)
        # x - x is exactly zero: the purified values, with the gradient of x.
        return purified + (x - x.detach()), y

    def _purified(self, images: Tensor) -> Tensor:
        draws: Tensor = PurifierDraws(self.purifier, self.mode)(images, self._seeds.draw(len(images)))
        return draws

    def _check_params(self) -> None:
        if self.gradient not in GRADIENTS:
            raise EvaluationError(f"gradient {self.gradient!r} is none of {', '.join(GRADIENTS)}; choose one of them")
