"""t-SNE of logits beside t-SNE of features: the paper's figure 3.

Its point: logits fall into classes, features of an early layer do not, so a perturbation of the features is not tied to
any class or task.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from robustness.errors import EvaluationError
from robustness.results.canvas import DPI, GREY, MARKERS, PALETTE, WIDTH, finish

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEIGHT = 620
DIMENSIONS = 50
Points = NDArray[np.float64]


def embed(values: Tensor, *, seed: int = 0, perplexity: float = 30.0) -> Points:
    """t-SNE (van der Maaten and Hinton, 2008) of ``values`` (N, ...) in the plane, (N, 2), the same for the same seed.

    The rest of each value is flattened and, as in their paper, first reduced by PCA (to 50 dimensions, if it has more);
    the map starts from PCA too. A perplexity above (N - 1) / 3 is lowered to it. Raises EvaluationError for fewer than
    four values, for values that are not finite or all the same, or where scikit-learn is not installed.
    """
    flat = values.detach().float().flatten(1).cpu().numpy()
    if len(flat) < 4 or not np.isfinite(flat).all() or (flat == flat[0]).all():
        raise EvaluationError("t-SNE needs at least four values, finite and not all the same; give it more images")
    try:
        from sklearn.decomposition import PCA  # noqa: PLC0415 - an optional package
        from sklearn.manifold import TSNE  # noqa: PLC0415
    except ImportError as error:
        raise EvaluationError('t-SNE needs scikit-learn; install the extra: pip install -e ".[evaluate]"') from error
    if flat.shape[1] > DIMENSIONS:
        flat = PCA(min(DIMENSIONS, len(flat)), random_state=seed).fit_transform(flat)
    method = TSNE(perplexity=min(perplexity, (len(flat) - 1) / 3), init="pca", random_state=seed)
    found: Points = np.asarray(method.fit_transform(flat), dtype=np.float64)
    return found


def plot_tsne(
    logits: Tensor,
    features: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    path: Path,
    *,
    layer: str,
    seed: int = 0,
) -> Path:
    """Write the two maps of the same N images as one PNG, and return its path.

    ``logits`` (N, K) and ``features`` (N, ...) come from one network, the features from its ``layer``; ``labels`` (N,)
    are numbers of ``classes``, of which those that occur are drawn. Raises EvaluationError as ``embed``, for
    different numbers of images, or if the file cannot be written.
    """
    if not len(logits) == len(features) == len(labels):
        raise EvaluationError(
            f"{len(logits)} logits, {len(features)} features and {len(labels)} labels are not of the same images"
        )
    figure, axes = _canvas()
    for axis, values, title in zip(axes, (logits, features), ("logits", f"features, {layer}"), strict=True):
        _scatter(axis, embed(values, seed=seed), labels.cpu().numpy(), classes)
        axis.set_title(title, fontsize=14)
    finish(figure, axes, path)
    return path


def _canvas() -> tuple[Figure, Sequence[Axes]]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an optional package
        from matplotlib.figure import Figure as NewFigure  # noqa: PLC0415
    except ImportError as error:
        raise EvaluationError('plots need matplotlib; install the extra: pip install -e ".[evaluate]"') from error
    figure = NewFigure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
    FigureCanvasAgg(figure)
    axes: Sequence[Axes] = figure.subplots(1, 2, squeeze=False)[0]
    for axis in axes:
        # The coordinates of a t-SNE mean nothing; only who is near whom does.
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_color(GREY)
    return figure, axes


def _scatter(axis: Axes, points: Points, labels: NDArray[np.int64], classes: Sequence[str]) -> None:
    for label in np.unique(labels):
        x, y = points[labels == label].T
        colour, marker = PALETTE[label % len(PALETTE)], MARKERS[label % len(MARKERS)]
        axis.scatter(x, y, s=30, c=colour, marker=marker, linewidths=0, alpha=0.85, label=classes[label])
