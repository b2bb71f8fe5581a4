"""What the ranks of a training do together."""

from __future__ import annotations

from typing import Callable, TypeVar, Union

from detectron2.utils import comm

T = TypeVar("T")


def on_all_ranks(call: Callable[[], T]) -> list[T]:
    """What ``call()`` returns on each rank; what it raises on one, whatever it is, all raise.

    Else the others would wait for that one until their time is out.
    """
    result: Union[T, Exception]
    try:
        result = call()
    except Exception as error:
        result = error
    results = comm.all_gather(result)
    for x in results:
        if isinstance(x, Exception):
            raise x
    return results
