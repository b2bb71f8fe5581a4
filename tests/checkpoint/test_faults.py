"""What is a file's fault and what is the machine's; files that would grow in memory."""

from __future__ import annotations

import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
import torch

from nanodet_d2.checkpoint import SafeCheckpointer, read_weights, reading, weights_only
from nanodet_d2.checkpoint.faults import DamagedError, check_records

MEGABYTES = 64


WITH_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
import torch
from nanodet_d2.checkpoint import SafeCheckpointer, read_weights

folder = Path(sys.argv[1])
checkpointer = SafeCheckpointer(torch.nn.Module(), str(folder))
pages = int(Path("/proc/self/statm").read_text().split()[0])
soft, hard = resource.getrlimit(resource.RLIMIT_AS)
limit = pages * resource.getpagesize() + 16 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
told = []
for read in (lambda: read_weights(sys.argv[2]), checkpointer.newest_whole_checkpoint):
    try:
        read()
    except (MemoryError, RuntimeError) as error:  # of Python, or of torch
        told.append(isinstance(error, MemoryError) or "allocate" in str(error))
resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
assert told == [True, True], told
assert checkpointer.newest_whole_checkpoint() == sys.argv[2]
"""


def large(path: Path, **options) -> str:
    torch.save({"model": {"a": torch.zeros(MEGABYTES * 2**18)}}, path, **options)
    return str(path)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the memory by /proc")
@pytest.mark.slow
@pytest.mark.parametrize("zipped", [True, False])
def test_lack_of_memory_is_not_taken_for_damage(tmp_path, zipped):
    """In a process of its own: earlier tests' may have address space in reserve."""
    path = large(tmp_path / "model_0000003.pth", _use_new_zipfile_serialization=zipped)
    torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "model_0000001.pth")
    (tmp_path / "last_checkpoint").write_text("model_0000003.pth")
    files = sorted(tmp_path.iterdir())
    command = [sys.executable, "-W", "ignore", "-c", WITH_LITTLE_MEMORY, str(tmp_path), path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(tmp_path.iterdir()) == files


NO_MEMORY = "DefaultCPUAllocator: can't allocate memory: you tried to allocate %d bytes."


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), MemoryError),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), torch.cuda.OutOfMemoryError),
        (OSError(5, "Input/output error"), OSError),
        (RuntimeError(NO_MEMORY % 100), RuntimeError),
        (RuntimeError(NO_MEMORY % 2**50), DamagedError),  # no tensor is larger than its file
        (RuntimeError("PytorchStreamReader failed reading zip archive"), DamagedError),
        (RuntimeError("unexpected EOF, expected 9 more bytes"), DamagedError),
        (KeyError("x"), DamagedError),
        (RuntimeError("can't start new thread"), ValueError),  # refused, but not set aside
    ],
)
def test_whose_fault_an_error_is(tmp_path, monkeypatch, error, expected):
    path = tmp_path / "model_0000001.pth"
    torch.save({"model": {"a": torch.zeros(1)}}, path)

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(expected) as found:
        reading.read_file(str(path))
    assert type(found.value) is expected
    with pytest.raises(ValueError if expected is DamagedError else expected):
        SafeCheckpointer(torch.nn.Module(), str(tmp_path)).newest_whole_checkpoint()
    assert path.is_file() == (expected is not DamagedError)


def rewritten(source: Path, target: Path, compression: int) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for record in old.infolist():
            new.writestr(record.filename, old.read(record))


def test_a_file_that_would_grow_is_refused_before_it_is_read(tmp_path, monkeypatch):
    whole, stored, bomb = (tmp_path / f"{x}.pth" for x in ("whole", "stored", "bomb"))
    large(whole)
    rewritten(whole, bomb, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < whole.stat().st_size / 500
    torch.save({"model": {"a": torch.ones(3)}}, whole)
    rewritten(whole, stored, zipfile.ZIP_STORED)
    assert read_weights(str(stored)).state_dict["a"].tolist() == [1, 1, 1]
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("read before the check"))
    with pytest.raises(ValueError, match=r"bomb.pth cannot be read safely.*data/0' is compressed"):
        read_weights(str(bomb))


def test_records_on_top_of_each_other_are_refused(tmp_path):
    """A list of records that all name the same bytes: the sizes add up to more than the file."""
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", bytes(1000))
        first = archive.filelist[0]
        archive.filelist += [first] * 20
    with pytest.raises(ValueError, match=r"declare 21000 bytes, but the file has \d+$"):
        check_records(str(path))


def test_other_files_are_no_zip_files(tmp_path):
    for content in (b"", b"PK", b"text"):
        (tmp_path / "x").write_bytes(content)
        check_records(str(tmp_path / "x"))
    (tmp_path / "x").write_bytes(b"PK\x03\x04")
    with pytest.raises(zipfile.BadZipFile):
        check_records(str(tmp_path / "x"))


def test_threads_leave_the_environment_as_it_was(monkeypatch):
    """The first to enter leaves first; the second must not restore what the first had set."""
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    entered, leave = threading.Event(), threading.Event()

    def first():
        with weights_only():
            entered.set()
            leave.wait(10)

    def second():
        entered.wait(10)
        threading.Timer(0.1, leave.set).start()
        with weights_only():
            done.wait(0.3)

    done = threading.Event()
    threads = [threading.Thread(target=x) for x in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in reading.os.environ
