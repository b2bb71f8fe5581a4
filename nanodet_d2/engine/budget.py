"""A training for a given time: its steps, and the schedule, are fitted to what they take."""

from __future__ import annotations

import logging
import time
from typing import Any, Callable, NamedTuple

from detectron2.engine import HookBase
from detectron2.utils import comm
from fvcore.common.param_scheduler import ParamScheduler

logger = logging.getLogger(__name__)

LOOKS = 100  # at the clock, at equal distances; a few more follow at the end
MEMORY = 0.03  # of the steps: how far back the measured step time reaches…
MEMORY_STEPS = 10  # …and at least, so that a step that stalls does not end the training
SPARE = 0.01  # of the time, kept for what ends a training beside its evaluation…
SPARE_S = 2.0  # …and at least: files, pictures, the end of worker processes
# Times that an evaluation is taken to be slower, at most: where others use the machine as well,
# steps slow down by more than evaluations do, and time kept for them would be left over.
MOST_SLOWER = 4.0
TOLD_CHANGE = 0.1  # of the number of steps, from which on it is worth a line


class Costs(NamedTuple):
    """Seconds that steps and evaluations take, measured before a training."""

    step: float
    evaluation: float
    early_step: float = 0.0  # before the iteration `early_until`: the auxiliary branch takes part
    early_until: int = 0

    def of_steps(self, first: int, last: int) -> float:
        """Seconds of the iterations from ``first`` to before ``last``."""
        early = max(min(last, self.early_until) - first, 0)
        return early * self.early_step + (last - first - early) * self.step

    def steps_in(self, seconds: float, first: int, *, period: int) -> int:
        """How many steps from an iteration on fit in, with an evaluation after each period of them.

        Args:
            seconds: none for fewer than a step takes.
            first: iteration.
            period: 0 for no evaluations.
        """
        early = max(self.early_until - first, 0)
        later = seconds - early * (self.early_step - self.step)
        steps = _steps_in(later / self.step, first, self.evaluation / self.step, period)
        if early and steps < early:
            evaluation = self.evaluation / self.early_step
            steps = min(_steps_in(seconds / self.early_step, first, evaluation, period), early)
        return max(steps, 0)


def _steps_in(time_left: float, first: int, evaluation: float, period: int) -> int:
    """Steps of one kind; time counts in steps."""
    if not period:
        return int(time_left)
    to_first = period - first % period  # to the end of the first period
    if time_left <= to_first + evaluation:
        return int(min(time_left, to_first))
    whole, rest = divmod(time_left - to_first - evaluation, period + evaluation)
    return to_first + int(whole) * period + int(min(rest, period))


class TimeBudget(HookBase):
    """Ends a training in time, whatever its steps come to take.

    ``trainer.max_iter`` is estimated anew at about a hundred looks at the main process's clock, the
    last of them a step apart: how much slower than measured is the machine, and how many steps fit
    into the time that is left, but for the evaluations, which get slower as the steps do. The place
    in the schedule moves evenly over those steps, so that it never jumps nor goes back, and is at 1
    with the last of them.

    Needed on every rank. Place it before all other hooks.

    Args:
        seconds: of the whole training, which begin now.
        clock: tells seconds.
    """

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic):
        self.seconds = seconds
        self._clock = clock
        self._begin = clock()
        self._used_before = 0.0  # of a training that is resumed
        self._anchor = (0, 0.0)  # an iteration, and the place in the schedule there
        self._max_iter = 1
        self._slowness = 1.0  # what steps take, as a multiple of their costs
        self._step_began = self._step_ended = 0.0  # by the clock
        self._in_steps = 0.0  # seconds, since the last look
        self._between = 0.0  # seconds between steps: files, pictures; without evaluations

    @property
    def used(self) -> float:
        """Seconds, those before a resume included."""
        return self._used_before + self._clock() - self._begin

    @property
    def left(self) -> float:
        """Seconds to the end of the training."""
        return self.seconds - self.used

    def plan(self, costs: Costs, *, start_iter: int, period: int) -> int:
        """The first estimate of ``max_iter``.

        Args:
            costs: the same on all ranks.
            start_iter: first iteration.
            period: steps from one evaluation to the next; 0 for none before the end.
        """
        self._costs, self._period = costs, period
        self._anchor = (start_iter, self._anchor[1])
        self._max_iter = start_iter + comm.all_gather(self._steps_left(start_iter))[0]
        return self._max_iter

    def place(self, iteration: float) -> float:
        """Where in the schedule, 0 to 1, an iteration lies by the present estimate."""
        first, place = self._anchor
        share = (iteration - first) / max(self._max_iter - first, 1)
        return min(place + (1 - place) * share, 1.0)

    def before_train(self) -> None:
        self._last_look, self._step_ended = self.trainer.iter, self._clock()
        self._told = self.trainer.max_iter
        self._set_next_look()

    def before_step(self) -> None:
        iteration, between = self.trainer.iter, self._clock() - self._step_ended
        if self._period and iteration > self.trainer.start_iter and iteration % self._period == 0:
            slower = min(self._slowness, MOST_SLOWER)
            self._costs = self._costs._replace(evaluation=between / slower)
        else:
            self._between += between
        if iteration >= self._next_look:
            self._look()
        self._step_began = self._clock()

    def after_step(self) -> None:
        self._step_ended = self._clock()
        self._in_steps += self._step_ended - self._step_began

    def _look(self) -> None:
        iteration = self.trainer.iter
        slowness = self._in_steps / self._costs.of_steps(self._last_look, iteration)
        memory = max(MEMORY * (self._max_iter - self.trainer.start_iter), MEMORY_STEPS)
        weight = min((iteration - self._last_look) / memory, 1.0)
        self._slowness += weight * (slowness - self._slowness)
        self._last_look, self._in_steps = iteration, 0.0
        self._anchor = (iteration, self.place(iteration))
        estimate = iteration + max(
            self._steps_left(iteration, iteration - self.trainer.start_iter), 1
        )
        self.trainer.max_iter = self._max_iter = comm.all_gather(estimate)[0]
        self._set_next_look()
        if abs(self._max_iter / self._told - 1) > TOLD_CHANGE:
            logger.info("%d steps in place of %d fit in", self._max_iter, self._told)
            self._told = self._max_iter

    def _set_next_look(self) -> None:
        iteration, last = self.trainer.iter, self.trainer.max_iter
        self._next_look = iteration + max(min((last - iteration) // 2, last // LOOKS), 1)

    def _steps_left(self, iteration: int, done: int = 0) -> int:
        """How many steps fit into what is left.

        Args:
            iteration: of the first of them.
            done: steps since the start, by which the seconds between steps are divided.
        """
        spare = max(SPARE * self.seconds, SPARE_S)
        # In units of the measured costs.
        evaluation = self._costs.evaluation * min(self._slowness, MOST_SLOWER) / self._slowness
        seconds = (self.left - spare) / self._slowness - evaluation
        between = self._between / self._slowness / max(done, 1)
        costs = self._costs._replace(
            step=self._costs.step + between,
            early_step=self._costs.early_step + between,
            evaluation=evaluation,
        )
        return costs.steps_in(seconds, iteration, period=self._period)

    def log_end(self, steps: int) -> None:
        """Say what became of it."""
        logger.info("%d steps in %.1f of %.1f s", steps, self.used, self.seconds)

    def state_dict(self) -> dict[str, Any]:
        place = self.place(self.trainer.iter + 1)
        return {"seconds": self.seconds, "used": self.used, "place": place}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with a budget; with another number of seconds, the same place is another share."""
        self._used_before = state_dict["used"]
        place = min(state_dict["place"] * state_dict["seconds"] / self.seconds, 1.0)
        self._anchor = (self._anchor[0], place)


class Paced(ParamScheduler):
    """A schedule whose place is that of a time budget.

    detectron2 asks for a share of the iterations that it was told of before the first step.
    """

    def __init__(self, schedule: ParamScheduler, budget: TimeBudget, max_iter: int):
        self.schedule = schedule
        self.budget = budget
        self.max_iter = max_iter

    def __call__(self, where: float) -> float:
        return self.schedule(self.budget.place(where * self.max_iter))
