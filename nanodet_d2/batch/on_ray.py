"""Shards by a Ray cluster: the same function, shared out by Ray Data.

Tasks, no actors: when a machine is lost, Ray runs its tasks wherever there is room, while the calls
of an actor wait until there is room for the actor. A worker of Ray keeps its process, with the
model open, from task to task.
"""

from __future__ import annotations

import atexit
import functools
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

from .local import Made
from .plan import Shard, unpack
from .process import Guard, plain
from .work import Work

WINDOW = 2048  # shards that Ray is given at a time; what it keeps of them takes some MB
_guards: dict[str, Guard] = {}  # of this worker of Ray, by the key of their work


def run_ray(
    shards: Sequence[Shard], work: Work, *, workers: int | None, address: str | None = None
) -> Iterator[Made]:
    """The rows of shards, as they are done.

    Every machine of the cluster has to have this package and the engine, and to see the model and
    the pictures under the same names; the results come here.

    Args:
        workers: tasks at a time; as many as there are CPUs for if None.
        address: of the cluster; if None that of ``RAY_ADDRESS``, or a Ray of this machine alone
            that ends with the run.

    Raises:
        ImportError: where Ray is not installed.
        ValueError: for less than one worker.
        RuntimeError, …: as ``Guard``.
    """
    require_ray()
    import ray

    if workers is not None and workers < 1:
        raise ValueError(f"workers {workers}; allowed: 1 or more")
    ours = not ray.is_initialized()
    if ours:
        ray.init(address=address)
    try:
        for first in range(0, len(shards), WINDOW):
            yield from _run(shards[first : first + WINDOW], work, workers)
    finally:
        if ours:
            ray.shutdown()


def require_ray() -> None:
    """Raise ``ImportError`` where there is no Ray."""
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise ImportError("--engine ray needs Ray: pip install 'nanodet-d2[ray]'") from error


def _run(shards: Sequence[Shard], work: Work, workers: int | None) -> Iterator[Made]:
    import ray

    by_recipe = {shard.recipe: shard for shard in shards}
    ray.data.DataContext.get_current().enable_progress_bars = False  # there is one already
    todo = [{"recipe": shard.recipe, "items": shard.packed} for shard in shards]
    made = ray.data.from_items(todo, override_num_blocks=len(todo)).map(
        functools.partial(make, work=work),
        compute=ray.data.TaskPoolStrategy(workers),
        num_cpus=work.threads,
        num_gpus=None if work.device in (None, "cpu") else 1,
    )
    for row in made.iter_rows():
        if row["error"]:
            raise pickle.loads(row["error"])
        yield by_recipe[row["recipe"]], row["rows"]


def make(shard: dict[str, Any], work: Work) -> dict[str, Any]:
    """What a task of Ray does: the rows of a shard, or why the run has to end.

    An error is handed over, as Ray would wrap it, and tell of it at length.
    """
    if work.key not in _guards:
        guard = _guards[work.key] = Guard(work)
        atexit.register(guard.stop)
    rows, error = b"", b""
    try:
        rows = _guards[work.key](unpack(shard["items"]))
    except Exception as fault:
        error = pickle.dumps(plain(fault))
    return {"recipe": shard["recipe"], "rows": rows, "error": error}
