"""AP and times of all candidates of a model, and of the peers beside them."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from nanodet_d2 import predictor
from nanodet_d2.benchmark.measure import average_precision
from nanodet_d2.benchmark.peer import Peer
from nanodet_d2.benchmark.report import machine
from nanodet_d2.export.calibration import hash_names, spread
from nanodet_d2.export.loading import LoadedModel
from nanodet_d2.export.score import evaluate
from nanodet_d2.runtime import Detector
from nanodet_d2.runtime.files import list_images
from nanodet_d2.runtime.images import load_image
from nanodet_d2.runtime.progress import progress

from .candidates import default_sizes, list_candidates
from .choosing import Measured, of_rounds
from .making import Load, make_all, quiet
from .noise import drop_noise, evaluation_of
from .record import Record
from .timing import PICTURES, Open, Rounds, blocks_left, take_turns
from .wish import Wish

logger = logging.getLogger(__name__)


class Measuring:
    """Measures what a wish asks for, and keeps it in ``ship.json``.

    Args:
        load: gives the model at an input size, at its own for None.
        wish: what is wanted.

    Attributes:
        left_out: formats and candidates that are not measured, and why.

    Raises:
        ValueError, FileNotFoundError: for what cannot be done.
    """

    def __init__(self, load: Load, wish: Wish):
        wish.check()
        self.load, self.wish = load, wish
        self.loaded: LoadedModel = load(None)
        described = self.loaded.metadata.input
        own = (described.height, described.width)
        sizes = wish.sizes or default_sizes(own, described.size_divisor)
        self.candidates, self.left_out = list_candidates(
            wish.formats, sizes, calibrated=wish.calibration is not None
        )
        self.peers = self._open_peers()
        paths = spread(list_images([wish.images]), PICTURES)
        self.pictures: list[np.ndarray] = [load_image(path) for path in paths]
        self.record = self._open_record([path.name for path in paths])

    def _open_peers(self) -> dict[str, Open]:
        """What opens each file of another project, by a name that tells what it is."""
        names = self.loaded.metadata.class_names
        opens: dict[str, Open] = {}
        for path, decoding in self.wish.others:
            facts = f"{_sha256(path)} {decoding}"
            digest = hashlib.sha256(facts.encode()).hexdigest()[:8]
            opens[f"{path.stem} [{digest}]"] = functools.partial(
                Peer, path, decoding, names, num_threads=self.wish.threads
            )
        return opens

    def _open_record(self, pictures: Sequence[str]) -> Record:
        wish = self.wish
        calibration = hash_names(list_images([wish.calibration])) if wish.calibration else ""
        return Record(
            wish.output / "ship.json",
            made_of={"model": self.loaded.metadata.to_json(), "calibration": calibration},
            scored_on={"json": _sha256(wish.json_file), "images": str(wish.images.resolve())},
            timed_on={
                "machine": machine(),
                "threads": wish.threads,
                "pictures": list(pictures),
                "files": sorted([x.name for x in self.candidates] + [*self.peers]),
            },
        )

    @functools.cached_property
    def picture_count(self) -> int:
        """Number of pictures that AP is measured on."""
        return len(json.loads(self.wish.json_file.read_text(encoding="utf-8"))["images"])

    def reference_ap(self) -> float:
        """AP of the model in PyTorch, in float32 and at its own size."""
        if self.record.reference_ap is None:
            logger.info("AP of the model in PyTorch, float32, at its own input size")
            with quiet():
                found = average_precision(self._reference(), self.wish.json_file, self.wish.images)
            self.record.reference_ap = found
            self.record.save()
        return self.record.reference_ap

    def run(self) -> list[Measured]:
        """Measure all that is not known yet: the candidates in their order, then the peers.

        Raises:
            ValueError: if not one candidate can be written and run.
        """
        wish, data = self.wish, (self.wish.json_file, self.wish.images)
        logger.info("%d candidates: files and their AP", len(self.candidates))
        self.left_out |= make_all(
            self.candidates, self.load, self.record, wish.output / "candidates",
            calibration=wish.calibration, data=data, threads=wish.threads,
        )  # fmt: skip
        made = [x.name for x in self.candidates if x.name not in self.left_out]
        if not made:
            words = "; ".join(f"{name}: {why}" for name, why in self.left_out.items())
            raise ValueError(f"no candidate could be written and run ({words})")
        for (path, _), (name, opens) in zip(wish.others, self.peers.items()):
            entry = self.record.entry(name)
            entry["bytes"] = path.stat().st_size
            if "ap" not in entry:
                with quiet():
                    entry["ap"] = average_precision(opens(), *data)
                self.record.save()
        names = made + [*self.peers]
        times = {name: self.record.entry(name).setdefault("rounds", []) for name in names}
        logger.info("times of %d files, in turns", len(names))
        self._take_turns(times, self.record.save)
        return [self._measured(name, times[name]) for name in names]

    def afresh(self, name: str) -> Measured:
        """A candidate's times once more, apart from those that are kept."""
        times: dict[str, Rounds] = {name: []}
        self._take_turns(times, lambda: None)
        return self._measured(name, times[name])

    def ap_noise(self, name: str) -> float:
        """By how much a candidate's loss of AP may be off; infinite if nothing is found."""
        evaluations = []
        for detector in (self._reference(), self.open(name)):
            with quiet():
                _, evaluator = evaluate(detector, self.wish.json_file, self.wish.images)
            coco, found = evaluator.found()
            if not found:
                return float("inf")
            evaluations.append(evaluation_of(coco, found))
        return drop_noise(*evaluations)

    def file(self, name: str) -> Path:
        return Path(self.record.entry(name)["file"])

    def open(self, name: str) -> Detector:
        if name in self.peers:
            return self.peers[name]()
        return Detector(self.file(name), num_threads=self.wish.threads)

    def _reference(self) -> Detector:
        return predictor.Detector(self.loaded, num_threads=self.wish.threads, device="cpu")

    def _take_turns(self, times: dict[str, Rounds], save: Callable[[], None]) -> None:
        with progress(blocks_left(times, self.wish.rounds), unit="block") as bar:

            def done() -> None:
                save()
                bar.update()

            take_turns(
                {name: functools.partial(self.open, name) for name in times},
                self.pictures,
                times,
                rounds=self.wish.rounds,
                threads=self.wish.threads,
                done=done,
            )

    def _measured(self, name: str, rounds: Rounds) -> Measured:
        entry, peer = self.record.entry(name), name in self.peers
        ms, noise = of_rounds(rounds[: self.wish.rounds])
        shown = name.partition(" [")[0] if peer else name
        return Measured(shown, ms, noise, entry["ap"], entry["bytes"], peer=peer)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
