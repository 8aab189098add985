"""Memory: what a network must keep of a batch until the backward pass."""

import torch
from torch import Tensor, nn

from resnetkit.probes.hooks import unchanged

__all__ = ["bytes_kept"]


def bytes_kept(model: nn.Module, images: Tensor) -> int:
    """Returns the bytes that a training step keeps of a batch between forward and backward.

    Counted is what autograd saves, each piece of memory once, without the weights. It costs a
    forward pass.

    Args:
        model: images -> logits.
        images: float (B, C, H, W), normalized; the result grows in proportion to B.
    """
    pieces: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            pieces[storage.data_ptr()] = storage.nbytes()
        return tensor

    with unchanged(model, training=True), torch.enable_grad():
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logits = model(images)
        total = sum(pieces.values())  # while the graph keeps them, no two share an address
    del logits
    return total
