"""FastestDet's output as boxes (github.com/dog-qiuqiu/FastestDet)."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from model_store.errors import IncompatibleWeightsError

OVERLAP = 0.45
MOST = 100
# Every cell says something, however unlikely; what is under this moves no average precision that is measured here.
LEAST_SCORE = 0.005


def decode_fastestdet(output: Tensor, size: tuple[int, int]) -> list[dict[str, Tensor]]:
    """Boxes (K, 4) x1 y1 x2 y2 in pixels of images of ``size`` (height, width), scores (K,), labels (K,), best first.

    ``output`` (N, 5 + classes, h, w): a grid of h by w cells, each with one box. Channel 0 is its objectness, 1 and 2
    its centre's place within the cell by tanh, 3 and 4 its width and height relative to the image by sigmoid, the rest
    the classes' probabilities. A box scores objectness ** 0.6 times the largest class ** 0.4. Of boxes of one class
    that overlap by 0.45 the best is kept, and 100 an image. Raises IncompatibleWeightsError for another shape.
    """
    if output.ndim != 4 or output.shape[1] < 6:
        raise IncompatibleWeightsError(
            f"the program gives {tuple(output.shape)}, not (N, 5 + classes, h, w) as FastestDet does; correct its card"
        )
    output = output.float()
    rows, columns = output.shape[-2:]
    classes, labels = output[:, 5:].max(dim=1)
    scores = output[:, 0].clamp(min=0) ** 0.6 * classes.clamp(min=0) ** 0.4
    across = torch.arange(columns, device=output.device).view(1, 1, -1)
    down = torch.arange(rows, device=output.device).view(1, -1, 1)
    centre_x, centre_y = (output[:, 1].tanh() + across) / columns, (output[:, 2].tanh() + down) / rows
    half_width, half_height = output[:, 3].sigmoid() / 2, output[:, 4].sigmoid() / 2
    edges = (centre_x - half_width, centre_y - half_height, centre_x + half_width, centre_y + half_height)
    scale = torch.tensor((size[1], size[0], size[1], size[0]), dtype=output.dtype, device=output.device)
    boxes = torch.stack(edges, dim=-1).clamp(0, 1) * scale
    flat = zip(boxes.flatten(1, 2), scores.flatten(1), labels.flatten(1), strict=True)
    return [_best(*one) for one in flat]


def _best(boxes: Tensor, scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
    likely = scores >= LEAST_SCORE
    boxes, scores, labels = boxes[likely], scores[likely], labels[likely]
    kept = batched_nms(boxes, scores, labels, OVERLAP)[:MOST]
    return {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]}
