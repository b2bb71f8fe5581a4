"""ImageNet weights: for the native backbones, and what they share with the wrapped ones."""

from __future__ import annotations

import contextlib
import logging
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar

from torch import Tensor, nn

from nanodet_d2.checkpoint import convert_reference_state_dict, read_weights, weights_only

logger = logging.getLogger(__name__)

_PREFIX = "backbone."
_checkpoint_follows: ContextVar[bool] = ContextVar("checkpoint_follows", default=False)


@contextlib.contextmanager
def without_pretrained_weights() -> Iterator[None]:
    """Backbones that are built in here neither fetch nor read weights; a checkpoint's follow.

    All else that ``pretrained`` and ``checkpoint_path`` stand for, the normalisation above all,
    stays, so that the network is the one that the checkpoint is of.
    """
    token = _checkpoint_follows.set(True)
    try:
        yield
    finally:
        _checkpoint_follows.reset(token)


def wants_pretrained_weights() -> bool:
    """Whether this is outside of :func:`without_pretrained_weights`."""
    return not _checkpoint_follows.get()


@contextlib.contextmanager
def foreign_weights(
    what: str, source: str = "the network", *, by_file: str = "checkpoint_path=…"
) -> Iterator[None]:
    """For code that lets another library fetch and read weights: nothing in them is run.

    Args:
        what: whose weights, for messages.
        source: where from.
        by_file: how a local file is given.

    Raises:
        ValueError: in one line, for whatever goes wrong in here.
    """
    try:
        with weights_only():
            yield
    except Exception as error:  # the hub's, the network's or the file's own kinds
        raise ValueError(
            f"the weights of {what} cannot be had from {source} ({_reason(error)}). Without a "
            f"network, give a local file by {by_file}, or go without by pretrained=False"
        ) from error


def _reason(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        # torch's and timm's own text for this tells how to run the file all the same.
        if isinstance(cause, pickle.UnpicklingError):
            return "the file is damaged or holds objects other than weights; nothing of it was run"
        cause = cause.__cause__
    first_line = " ".join(str(error).partition("\n")[0].split())
    return f"{type(error).__name__}: {first_line}"


def load_classifier_weights(
    backbone: nn.Module, what: str, checkpoint_path: str, download: Callable[[], Mapping]
) -> None:
    """Load a classifier's weights into a backbone; what belongs to the classifier alone stays out.

    Does nothing :func:`without_pretrained_weights`.

    Args:
        backbone: whose tensors must all be in the weights.
        what: whose weights, for messages.
        checkpoint_path: file to read; if empty, ``download`` is called.
        download: returns the state dict, in torchvision's or timm's names.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the weights cannot be had, or lack a tensor of the backbone.
    """
    if not wants_pretrained_weights():
        return
    if checkpoint_path:
        state: Mapping[str, Tensor] = read_weights(checkpoint_path).state_dict
    else:
        with foreign_weights(what):
            state = download()
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
