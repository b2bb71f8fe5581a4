"""detectron2's checkpointer, reading files without running anything they contain."""

from __future__ import annotations

from typing import Any

from detectron2.checkpoint import DetectionCheckpointer

from .reading import read_file


class SafeCheckpointer(DetectionCheckpointer):
    """Saves as detectron2 does, and resumes from this project's own checkpoints only."""

    def _load_file(self, filename: str) -> dict[str, Any]:
        content = read_file(filename)
        if not isinstance(content, dict) or "model" not in content:
            found = sorted(map(str, content)) if isinstance(content, dict) else type(content)
            raise ValueError(f"cannot resume from {filename}: found {found}, needed: 'model'")
        return content
