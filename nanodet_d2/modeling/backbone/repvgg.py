"""RepVGG (Ding et al. 2021) as timm has it, with the reference's widths."""

from __future__ import annotations

from collections.abc import Sequence

from timm.models.byobnet import ByoBlockCfg

WIDTHS = (64, 128, 256, 512)


def make_repvgg_blocks(
    *, depths: Sequence[int], multipliers: Sequence[float], last_channels: int | None = None
) -> tuple[ByoBlockCfg, ...]:
    """Stages for ``TimmBackbone("repvgg_…", blocks=…)``, whose last one may be narrower.

    Args:
        depths: blocks of each of the four stages.
        multipliers: of their channels, 64, 128, 256 and 512.
        last_channels: in place of those of the last stage, which only the classifier needs so wide.

    Raises:
        ValueError: for another number of stages.
    """
    if len(depths) != len(WIDTHS) or len(multipliers) != len(WIDTHS):
        raise ValueError(
            f"RepVGG depths {list(depths)}, multipliers {list(multipliers)}; allowed: four of each"
        )
    channels = [int(width * x) for width, x in zip(WIDTHS, multipliers)]
    channels[-1] = last_channels or channels[-1]
    return tuple(ByoBlockCfg(type="rep", d=d, c=c, s=2) for d, c in zip(depths, channels))
