"""``contract.json``: all that a program has to do around a model's file, as flat json.

It is the file's metadata (:class:`ExportMetadata`, whose docstring explains each field) without its
one nesting: fields of ``input`` begin with ``input_``. Values are texts, numbers, true or false,
and lists of those; ``output_shapes`` is a list of lists, with -1 for a number that is free.
``contract_version`` changes when a field is dropped or gets another meaning; fields may be added
without.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from nanodet_d2.runtime.metadata import FORMAT_VERSION, ExportMetadata

from .stages import output_shapes

CONTRACT_VERSION = 1
CONTRACT_FILE = "contract.json"
_INPUT = "input_"
_LEFT_OUT = ("versions", "format_version")  # of what wrote the file, and of the metadata


def contract_of(metadata: ExportMetadata, *, file: str, format: str) -> dict[str, Any]:
    """The contract of a model's file.

    Args:
        file: its name.
        format: "onnx", "ncnn", …
    """
    facts = dataclasses.asdict(metadata)
    described = facts.pop("input")
    for name in _LEFT_OUT:
        del facts[name]
    return {
        "contract_version": CONTRACT_VERSION,
        "file": file,
        "format": format,
        **facts,
        "output_shapes": output_shapes(metadata),
        **{_INPUT + name: value for name, value in described.items()},
    }


def read_contract(path: Path) -> ExportMetadata:
    """The metadata in a contract.

    Raises:
        ValueError: if it is none, or of another version, naming what is missing or wrong.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not json: {error}") from error
    version = content.get("contract_version") if isinstance(content, dict) else None
    if version != CONTRACT_VERSION:
        raise ValueError(f"{path} has contract_version {version}; allowed: {CONTRACT_VERSION}")
    facts = {name: value for name, value in content.items() if not name.startswith(_INPUT)}
    facts["input"] = {
        name[len(_INPUT) :]: value for name, value in content.items() if name.startswith(_INPUT)
    }
    facts |= {"versions": {}, "format_version": FORMAT_VERSION}
    return ExportMetadata.from_json(json.dumps(facts), str(path))
