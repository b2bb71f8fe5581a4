"""ImageNet weights for the native backbones."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from nanodet_d2.checkpoint import convert_reference_state_dict, read_weights

logger = logging.getLogger(__name__)

_PREFIX = "backbone."


def load_classifier_weights(
    backbone: nn.Module, what: str, checkpoint_path: str, download: Callable[[], Mapping]
) -> None:
    """Load a classifier's weights into a backbone; what belongs to the classifier alone stays out.

    Args:
        backbone: whose tensors must all be in the weights.
        what: the weights, for messages.
        checkpoint_path: file to read; if empty, ``download`` is called.
        download: returns the state dict, in torchvision's or timm's names.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the weights cannot be had, or lack a tensor of the backbone.
    """
    if checkpoint_path:
        state = read_weights(checkpoint_path).state_dict
    else:
        try:
            state = download()
        except Exception as error:  # the hub's and the network's own kinds
            raise ValueError(
                f"{what} cannot be had from the network ({type(error).__name__}: {error}). Without "
                "one, give a local file by checkpoint_path=…, or go without by pretrained=False"
            ) from error
    names = backbone.state_dict()
    converted = _converted(state)
    wrong = [k for k, v in names.items() if k not in converted or converted[k].shape != v.shape]
    if wrong:
        raise ValueError(
            f"{checkpoint_path or what} does not fit: {len(wrong)} of {len(names)} tensors are "
            f"missing or of another shape, e.g. {wrong[0]}"
        )
    backbone.load_state_dict({name: converted[name] for name in names})
    logger.info("Loaded %d tensors from %s", len(names), checkpoint_path or what)


def _converted(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefixed = {k if k.startswith(_PREFIX) else _PREFIX + k: v for k, v in state.items()}
    renamed = convert_reference_state_dict(prefixed)
    return {k[len(_PREFIX) :]: v for k, v in renamed.items()}
