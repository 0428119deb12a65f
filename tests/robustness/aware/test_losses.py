from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from robustness.aware.losses import LOSSES, cross_entropy, margin
from robustness.errors import AttackError

LOGITS = torch.tensor([[3.0, 1.0, 0.0], [1.0, 2.5, 0.0], [0.0, 0.0, 4.0]])
LABELS = torch.tensor([0, 0, 2])


def test_the_margin_is_the_largest_wrong_logit_minus_the_true_one() -> None:
    torch.testing.assert_close(margin(LOGITS, LABELS), torch.tensor([-2.0, 1.5, -4.0]))


def test_the_margin_is_above_zero_exactly_where_the_answer_is_wrong() -> None:
    assert torch.equal(margin(LOGITS, LABELS) > 0, LOGITS.argmax(dim=1) != LABELS)


@pytest.mark.parametrize("name", LOSSES)
def test_raising_a_loss_lowers_the_true_class(name: str) -> None:
    leaf = LOGITS.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(LOSSES[name](leaf, LABELS).sum(), leaf)  # type: ignore[index]
    true = slope.gather(1, LABELS.unsqueeze(1)).flatten()
    assert (true < 0).all()


def test_where_a_network_is_certain_the_margin_still_has_a_gradient() -> None:
    certain = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    label = torch.tensor([0])
    (flat,) = torch.autograd.grad(cross_entropy(certain, label).sum(), certain)
    (steep,) = torch.autograd.grad(margin(certain, label).sum(), certain)
    assert flat.abs().max() == 0
    assert steep.abs().max() == 1


def test_cross_entropy_is_the_usual_one_and_one_class_has_no_margin() -> None:
    torch.testing.assert_close(cross_entropy(LOGITS, LABELS).mean(), F.cross_entropy(LOGITS, LABELS))
    with pytest.raises(AttackError, match="two classes"):
        margin(torch.zeros(1, 1), torch.tensor([0]))
