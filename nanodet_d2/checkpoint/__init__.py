"""Checkpoints: this project's own and the reference's."""

from .card import Card, read_card
from .checkpointer import FINAL, SafeCheckpointer, replace_file, set_aside_training
from .loading import LoadReport, load_weights
from .reading import read_file, read_weights, weights_only
from .reference import convert_reference_state_dict

__all__ = [
    "FINAL",
    "Card",
    "LoadReport",
    "SafeCheckpointer",
    "convert_reference_state_dict",
    "load_weights",
    "read_card",
    "read_file",
    "read_weights",
    "replace_file",
    "set_aside_training",
    "weights_only",
]
