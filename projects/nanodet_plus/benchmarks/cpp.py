"""C++ beside Python: from a picture in memory to its boxes, and the network alone.

    make cpp
    python projects/nanodet_plus/benchmarks/cpp.py nanodet-plus-m-416 --images photos

Both take turns, picture by picture, so that a machine that slows down slows both. The figures are
medians over pictures of the medians over repetitions.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2

from nanodet_d2.conformance.contract import contract_of
from nanodet_d2.export.job import Job
from nanodet_d2.export.loading import load_model
from nanodet_d2.export.writer import export
from nanodet_d2.runtime import Detector
from nanodet_d2.runtime.files import list_images

PROGRAMS = Path(__file__).resolve().parents[3] / "output" / "cpp"
FORMATS = {"openvino": "openvino", "ncnn": "ncnn", "onnxruntime": "onnx", "libtorch": "torchscript"}


def time_python(detector: Detector, image, repeat: int) -> tuple[float, float]:
    """Median milliseconds of the network alone, and from the picture to boxes."""
    network, whole = [], []
    data = detector.prepare([image])
    for _ in range(repeat):
        start = time.perf_counter()
        detector.run(data)
        middle = time.perf_counter()
        detector(image)
        network.append(middle - start)
        whole.append(time.perf_counter() - middle)
    return 1e3 * statistics.median(network), 1e3 * statistics.median(whole)


def time_program(program: Path, *arguments: object) -> tuple[float, float]:
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    said = json.loads(done.stdout)
    return said["network_ms"], said["image_to_boxes_ms"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a name of the zoo, or a checkpoint")
    parser.add_argument("--images", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--count", type=int, default=8, help="how many of them")
    parser.add_argument("--repeat", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    images = [cv2.imread(str(x)) for x in list_images([arguments.images])[: arguments.count]]
    engines = [x for x in FORMATS if (PROGRAMS / f"nanodet_{x}").is_file()]
    if not engines:
        raise SystemExit(f"no programs in {PROGRAMS}: make cpp")
    loaded, rows = load_model(arguments.model), []
    with tempfile.TemporaryDirectory() as folder:
        job = Job(tuple(FORMATS[x] for x in engines), Path(folder), verify=False)
        for engine, written in zip(engines, export(loaded, job)):
            detector = Detector(written.path, num_threads=arguments.threads)
            contract = Path(folder, "contract.json")
            content = contract_of(detector.metadata, file=written.path.name, format=FORMATS[engine])
            contract.write_text(json.dumps(content))
            python, program = [], []
            for i, image in enumerate(images):
                picture = Path(folder, f"{i}.ppm")
                cv2.imwrite(str(picture), image)
                python.append(time_python(detector, image, arguments.repeat))
                options = ("--threads", arguments.threads, "--repeat", arguments.repeat)
                given = (written.path, contract, picture, *options)
                program.append(time_program(PROGRAMS / f"nanodet_{engine}", *given))
            rows.append((engine, *map(statistics.median, zip(*python)),
                         *map(statistics.median, zip(*program))))  # fmt: skip
    sys.stdout.write(
        "| engine | Python: network, ms | to boxes, ms | ratio "
        "| C++: network, ms | to boxes, ms | ratio |\n|---|---|---|---|---|---|---|\n"
    )
    for engine, network, whole, network_cpp, whole_cpp in rows:
        sys.stdout.write(
            f"| {engine} | {network:.1f} | {whole:.1f} | {whole / network:.2f} | {network_cpp:.1f} "
            f"| {whole_cpp:.1f} | {whole_cpp / network_cpp:.2f} |\n"
        )


if __name__ == "__main__":
    main()
