"""A checkpoint that was frozen for use is trained all the same."""

from __future__ import annotations

from torch import nn


def thaw(model: nn.Module) -> bool:
    """Let every parameter be trained if none is, and say whether that was so.

    A model that is frozen in part stays so: that part is to be left as it is. One without any trainable parameter was
    frozen to be used, and could not be fine-tuned at all.
    """
    parameters = [each for each in model.parameters() if each.is_floating_point() or each.is_complex()]
    if not parameters or any(each.requires_grad for each in parameters):
        return False
    for parameter in parameters:
        parameter.requires_grad_(True)
    return True
