"""Memory: the tensors of a batch that are saved for the backward pass."""

import torch
from torch import Tensor, nn

from resnetkit.probes.hooks import unchanged

__all__ = ["bytes_kept"]


def bytes_kept(model: nn.Module, images: Tensor) -> int:
    """Returns the bytes that a training step saves of a batch for the backward pass.

    These are the tensors that autograd saves, without the weights; shared memory is counted once.
    It costs a forward pass.

    Args:
        model: images -> logits.
        images: float (B, C, H, W), normalized; the result is a line in B, which need not pass
            through zero: matrices that are made of weights may be saved once for all images.
    """
    bytes_by_address: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            bytes_by_address[storage.data_ptr()] = storage.nbytes()
        return tensor

    with unchanged(model, training=True), torch.enable_grad():
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logits = model(images)
        total = sum(
            bytes_by_address.values()
        )  # the graph is alive, so that no two storages have one address
    del logits
    return total
