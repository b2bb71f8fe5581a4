"""Starting the processes of a training: detectron2's launcher, or torchrun's."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
from datetime import timedelta
from typing import Any, Callable

import torch
import torch.distributed as dist
from detectron2.engine import launch as launch_on_gpus
from detectron2.engine.launch import DEFAULT_TIMEOUT
from detectron2.utils import comm

logger = logging.getLogger(__name__)

PATIENCE_S = 5  # that a rank which has failed waits for the others

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launch(main: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> Any:
    """Run ``main(args)`` in each process of a training.

    Under torchrun the processes are there already: they join by its environment variables, with
    NCCL where there are GPUs and ``train.device=cpu`` is not given, else with Gloo. After an
    elastic restart they resume, as all do if one is given ``--resume``. Without torchrun detectron2
    starts one process per GPU.

    Args:
        main: importable, for it may be called in other processes.
        args: of detectron2's ``default_argument_parser``.

    Returns:
        what ``main`` does in this process; None where detectron2 started others.

    Raises:
        ValueError: for more processes than GPUs, for both ways at once, or for hosts with different
            numbers of processes.
    """
    if all(name in os.environ for name in _TORCHRUN):
        if args.num_gpus > 1 or args.num_machines > 1:
            raise ValueError(
                "--num-gpus and --num-machines are detectron2's own launcher's; under torchrun "
                "allowed: --nproc_per_node and --nnodes, before the script"
            )
        return _run_under_torchrun(main, args)
    if args.num_gpus > max(torch.cuda.device_count(), 1):
        raise ValueError(
            f"--num-gpus {args.num_gpus}; found {torch.cuda.device_count()} GPUs. For several "
            f"processes on CPUs: torchrun --nproc_per_node {args.num_gpus} SCRIPT …"
        )
    if args.num_gpus * args.num_machines <= 1:
        return main(args)  # detectron2's launcher would drop what it returns
    return launch_on_gpus(
        main,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )


def _run_under_torchrun(main: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> Any:
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    on_gpus = torch.cuda.is_available() and "train.device=cpu" not in args.opts
    if on_gpus:
        _take_gpu(int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]))
    store, rank, world_size = next(dist.rendezvous("env://"))
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        # torchrun's own store outlives the processes: with a prefix for each start Gloo does not
        # find the addresses of dead ones. Any other store is new at each start, and a prefix would
        # part hosts that have restarted a different number of times.
        store = dist.PrefixStore(f"start_{restarts}", store)
    # detectron2's half an hour: while one rank finds the AP, the others wait. NCCL's is a third.
    dist.init_process_group(
        "nccl" if on_gpus else "gloo",
        store=store,
        rank=rank,
        world_size=world_size,
        timeout=DEFAULT_TIMEOUT,
    )
    try:
        _create_local_group(int(os.environ["LOCAL_WORLD_SIZE"]))
        comm.synchronize()
        _agree_to_resume(args, restarts)
        return main(args)
    except BaseException:
        _end_together(store, rank, world_size)
        raise
    finally:
        dist.destroy_process_group()


def _end_together(store: dist.Store, rank: int, world_size: int) -> None:
    """Wait a moment for what the others have to write and to say.

    torchrun ends all processes as soon as it sees one end, and Gloo those that lose a connection: a
    rank that has less to do would cost the main one its checkpoint and its message.
    """
    with contextlib.suppress(Exception):  # the error on its way is the one to be told
        store.set(f"ended/{rank}", "")
        others = [f"ended/{x}" for x in range(world_size)]
        store.wait(others, timedelta(seconds=PATIENCE_S))


def _take_gpu(rank: int, processes: int) -> None:
    if processes > torch.cuda.device_count():
        raise ValueError(
            f"--nproc_per_node {processes}; found {torch.cuda.device_count()} GPUs. On CPUs: "
            "train.device=cpu"
        )
    torch.cuda.set_device(rank)


def _agree_to_resume(args: argparse.Namespace, restarts: int) -> None:
    """Resume all processes if one of them does; a host that took another's place cannot know."""
    most = max(comm.all_gather(restarts))
    if most and not args.eval_only:
        logger.warning("Restart %d by torchrun: the training is resumed", most)
    args.resume = any(comm.all_gather(args.resume or most > 0))


def _create_local_group(size: int) -> None:
    """Tell detectron2 which ranks share a machine: so many, one after the other.

    Raises:
        ValueError: if it is not the same number on all machines.
    """
    sizes = comm.all_gather(size)
    if len(set(sizes)) > 1:
        raise ValueError(
            f"processes per host, by rank: {sizes}; allowed: the same --nproc_per_node on all hosts"
        )
    if hasattr(comm, "create_local_process_group"):  # later than detectron2 0.6
        comm.create_local_process_group(size)
        return
    for first in range(0, dist.get_world_size(), size):
        group = dist.new_group(list(range(first, first + size)), timeout=DEFAULT_TIMEOUT)
        if first <= dist.get_rank() < first + size:
            comm._LOCAL_PROCESS_GROUP = group
