"""What a part has to offer: all that the detector, exports and checkpoints use of it.

Parts are modules (``torch.nn.Module``). A neck is built by ``neck(input_shapes=…)`` from the shapes
of the backbone's features, a head by ``head(input_shapes=…)`` from those of the neck's levels, and
an auxiliary head by ``aux_head(input_shapes=…, num_classes=…, reg_max=…)``; whatever else they take
is bound before, as with ``nanodet_d2.config.LazyPartial``.

A backbone is one of detectron2 (``detectron2.modeling.Backbone``): ``output_shape()``,
``size_divisibility`` (0 if it does not say) and features by name. It may have, on top,

- ``input_spec``, the ``InputSpec`` of the images that its weights were trained on;
- ``image_size``, (height, width) of the input that it was made for.

Letters: N images, P priors, C classes, R reg_max, K = C + 4 * (R + 1).
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Protocol, runtime_checkable

from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from nanodet_d2.modeling.head import GroundTruth, Predictions


@runtime_checkable
class Neck(Protocol):
    """From a backbone's features to the levels of a pyramid, e.g. ``GhostPAN``."""

    @property
    def size_divisibility(self) -> int:
        """The neck needs images whose height and width are multiples of this; 1 for any."""

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each level by name, finest first; all have the same channels."""

    def __call__(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Map ``{name: (N, C_i, H_i, W_i)}`` to the levels of :meth:`output_shape`.

        A level has ceil(height / stride) rows and ceil(width / stride) columns.
        """


@runtime_checkable
class AuxHead(Protocol):
    """Raw predictions that only guide the training, e.g. ``SimpleConvHead``.

    Its input has the names and strides of the neck's levels and twice their channels.
    """

    def __call__(self, pyramid: Mapping[str, Tensor]) -> Tensor:
        """Raw output (N, P, K): C class logits, then the box logits, R + 1 of each side.

        The priors are those of all levels, finest first, each row by row.
        """

    def class_rows(self) -> dict[str, slice]:
        """Tensors of the state that have a row per class: name -> these rows.

        They start from those of other classes when a checkpoint with other classes is loaded, and
        the rows before and after them are kept.
        """


@runtime_checkable
class Head(AuxHead, Protocol):
    """Raw predictions, what they mean, and their losses, e.g. ``NanoDetPlusHead``."""

    num_classes: int  # C
    reg_max: int  # R
    strides: Sequence[int]  # of the levels

    def maps(self, pyramid: Mapping[str, Tensor]) -> list[Tensor]:
        """The raw output before it is flattened: (N, K, H_i, W_i) of each level."""

    def priors(self, pyramid: Mapping[str, Tensor]) -> Tensor:
        """Priors (P, 3) as ``[cx, cy, stride]``, pixels of the network input."""

    def decode(self, raw: Tensor, priors: Tensor) -> Predictions:
        """Class logits (N, P, C) and boxes (N, P, 4), XYXY, pixels of the network input."""

    def losses(
        self, raw: Tensor, priors: Tensor, truth: GroundTruth, aux_raw: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Scalars by name, finite for any batch, also without a single ground truth.

        Args:
            raw: (N, P, K), this head's output.
            priors: (P, 3)
            truth: of the batch.
            aux_raw: the auxiliary head's output, of the shape of ``raw``; None without one.
        """


def bind_part(
    part: nn.Module | Callable[..., nn.Module],
    protocol: type,
    *,
    input_shapes: Mapping[str, ShapeSpec],
    **arguments: Any,
) -> Any:
    """Build a part from what lies before it, if it is not built yet.

    Args:
        part: a module, or a callable that makes one of ``input_shapes`` and ``arguments``.
        protocol: ``Neck``, ``Head`` or ``AuxHead``.
        input_shapes: of what lies before it; those typed in a config have to agree.

    Raises:
        ValueError: for typed shapes that do not agree, or a part that lacks something of the
            protocol.
    """
    if not isinstance(part, nn.Module):
        _check_typed(getattr(part, "keywords", {}).get("input_shapes") or {}, input_shapes)
        part = part(input_shapes=input_shapes, **arguments)
    asked = {*dir(protocol), *typing.get_type_hints(protocol)}
    missing = sorted(x for x in asked if not x.startswith("_") and not hasattr(part, x))
    if missing:
        raise ValueError(
            f"{type(part).__name__} is no {protocol.__name__}: it lacks {', '.join(missing)}; "
            f"nanodet_d2.modeling.parts.{protocol.__name__} says what these are"
        )
    return part


def _check_typed(typed: Mapping[str, ShapeSpec], found: Mapping[str, ShapeSpec]) -> None:
    for name, shape in typed.items():
        if name not in found:
            raise ValueError(f"input_shapes has {name!r}; there are {list(found)}")
        if shape.channels != found[name].channels:
            raise ValueError(
                f"input_shapes says {shape.channels} channels for {name!r}, "
                f"but it has {found[name].channels}"
            )
