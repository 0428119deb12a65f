"""The noise of a dynamic mode, without pydantic: training on a bare machine adds the same."""

from __future__ import annotations

from torch import Tensor

# Naseer et al., CVPR 2020, and the authors' code: std in [0,1] pixel units, and the ball, in /255, that it is kept in.
PUBLISHED_STD = 0.05
PUBLISHED_BALL = 16.0


def with_noise(images: Tensor, noise: Tensor, ball: float | None) -> Tensor:
    """Images in [0,1] plus ``noise`` of a shape that broadcasts.

    With a ``ball`` (/255) the noise is kept inside it and the sum in [0,1]; without, nothing is clipped.
    """
    if ball is None:
        return images + noise
    limit = ball / 255
    return (images + noise.clamp(-limit, limit)).clamp(0, 1)
