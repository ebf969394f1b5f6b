"""A search's trials on Ray Tune: many at a time, the worse ones stopped early."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune import Stopper, Trainable
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.stopper import NoopStopper

from bench.engine.order import Order
from bench.schedule.attended import Attended, Ended
from bench.schedule.cluster import Needs
from bench.search.trials import FAILED, STOPPED, Ledger, Trial

# Ray asks for a trial's end, and for the search's, between two of these.
_POLL_S = 1.0
_SETTINGS = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is a request of ours
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the records say more
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


@dataclass(frozen=True)
class Entrant:
    """A trial as ASHA sees it."""

    trial_id: str


class Halving(FIFOScheduler):
    """Stops trials that are worse than others of the same network were after as many steps: ASHA.

    Asynchronous successive halving (Li et al., 2020, arXiv:1810.05934) in Ray Tune's form: who comes to a rung goes on
    if its Dice is not below those of the best 1/``reduction`` that came there before. Each network has a contest of its
    own, with the same rungs. The protocol's own setting takes part, but is never stopped: it tells what tuning gained.

    What records of an earlier command say counts from the beginning: a rung that a trial has passed is not asked again.

    Args:
        trials: all of the search; Ray's have the place in this list as ``config["trial"]``.
        ledger: what became of them, and where decisions are written down.
        rungs: steps after which is decided.
        steps: of a whole training.
        reduction: one in so many goes on.
        say: takes a line for whoever watches.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        ledger: Ledger,
        rungs: Sequence[int],
        steps: int,
        reduction: int,
        say: Callable[[str], None],
    ) -> None:
        super().__init__()  # first in, first out
        self._trials, self._ledger, self._rungs, self._steps, self._say = trials, ledger, rungs, steps, say
        self._contests: Mapping[str, Any] = {
            model: ASHAScheduler(
                time_attr="step",
                metric="dice",
                mode="max",
                max_t=steps,
                grace_period=rungs[0],
                reduction_factor=reduction,
                stop_last_trials=False,
            )
            for model in dict.fromkeys(trial.model for trial in trials)
            if rungs
        }
        for number, trial in enumerate(trials):
            if trial.model in self._contests:
                self._contests[trial.model].on_trial_add(None, Entrant(str(number)))
            for step, dice in ledger.validations(trial):
                if step < steps:
                    self._enter(number, step, dice)
            if ledger.outcome(trial).status == "nan":
                self._fail(number)

    def __reduce__(self) -> tuple[Any, ...]:
        # Ray writes down a copy from which it could go on. Ours goes on from the records, and needs none.
        return FIFOScheduler, ()

    def on_trial_result(self, _controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        """Whether a trial goes on, at each of its validations."""
        if "dice" not in result:
            return str(TrialScheduler.CONTINUE)
        number, step, dice = trial.config["trial"], result["step"], result["dice"]
        mine = self._trials[number]
        decision = self._enter(number, step, dice)
        if decision != TrialScheduler.STOP or mine.number == 0:
            return str(TrialScheduler.CONTINUE)
        self._ledger.stop(mine, step, dice)
        self._say(f"{self._title(mine)}: stopped after {step} of {self._steps} steps, Dice {dice:.3f}")
        return decision

    def on_trial_complete(self, _controller: Any, trial: Any, result: Mapping[str, Any]) -> None:
        """A trial has ended, or is about to since it was stopped."""
        number = trial.config["trial"]
        mine = self._trials[number]
        outcome = self._ledger.outcome(mine)
        if outcome.status == STOPPED:
            return
        if outcome.status in FAILED:
            self._fail(number)
        dice = "" if outcome.dice is None else f", Dice {outcome.dice:.3f}"
        message = f": {result['message']}" if result.get("message") else ""
        self._say(f"{self._title(mine)}: {outcome.status} after {outcome.step} steps{dice}{message}")
        self._ledger.drop_weights(mine)

    def _enter(self, number: int, step: int, dice: float) -> str:
        contest = self._contests.get(self._trials[number].model)
        if contest is None:
            return str(TrialScheduler.CONTINUE)
        return str(contest.on_trial_result(None, Entrant(str(number)), {"step": step, "dice": dice}))

    def _fail(self, number: int) -> None:
        """A failed trial comes to its next rung as the worst."""
        found = self._ledger.validations(self._trials[number])
        last = found[-1][0] if found else 0
        if ahead := [rung for rung in self._rungs if rung > last]:
            self._enter(number, ahead[0], 0.0)

    def _title(self, trial: Trial) -> str:
        return f"{trial.model} {trial.number}"


class JobTrial(Trainable):
    """One trial: an ordinary job in a process of its own.

    A class, since Ray waits for its `cleanup` before it gives the GPU to the next trial; a function's thread, and the
    job with it, would be left behind.
    """

    def setup(self, config: Mapping[str, Any], orders: Mapping[int, Order], retries: int) -> None:
        """Begin the job."""
        self._job = Attended(orders[config["trial"]], retries)

    def step(self) -> dict[str, Any]:
        """The next validation; nothing, where it takes long; or the end."""
        news = self._job.next(_POLL_S)
        if news is None:
            return {}
        if isinstance(news, Ended):
            return {"done": True, "status": news.status, "message": news.message}
        return {"step": news.step, "dice": news.dice}

    def cleanup(self) -> None:
        """Let the job save its state and stop, if it has not ended."""
        self._job.stop()


class _Asked(Stopper):
    """Ends everything once somebody has asked for that."""

    def __init__(self, stopped: Callable[[], bool], say: Callable[[str], None]) -> None:
        self._stopped, self._say = stopped, say
        self._told = False

    def __reduce__(self) -> tuple[Any, ...]:
        return NoopStopper, ()

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:  # noqa: ARG002
        return False

    def stop_all(self) -> bool:
        if self._stopped() and not self._told:
            self._told = True
            self._say("stopping: trials under way finish a step and save their state")
        return self._told


def run_search(
    trials: Sequence[Trial],
    ledger: Ledger,
    orders: Callable[[Trial], Order],
    needs: Needs,
    *,
    rungs: Sequence[int],
    steps: int,
    reduction: int,
    retries: int,
    stopped: Callable[[], bool],
    say: Callable[[str], None],
) -> None:
    """Run those trials that are not settled, in their order, as many at a time as there is room for.

    Ray must be connected. How each trial ended stands in its record, and in the ledger. One whose machine dies is begun
    again elsewhere, and goes on from its checkpoint, at most ``retries`` times.

    Args:
        trials, rungs, steps, reduction, say: as in `Halving`.
        ledger: what became of trials so far.
        orders: makes the order of a trial's job.
        needs: what each takes of a machine.
        stopped: whether somebody asked to stop; trials under way then save their state.

    Raises:
        KeyboardInterrupt: somebody asked twice.
    """
    left = [number for number, trial in enumerate(trials) if not ledger.outcome(trial).settled]
    if left:
        os.environ.update(_SETTINGS)
        logging.getLogger("ray.tune").setLevel(logging.ERROR)
        halving = Halving(trials, ledger, rungs, steps, reduction, say)
        with tempfile.TemporaryDirectory(prefix="bench-tune-") as folder:
            _tuner(
                {number: orders(trials[number]) for number in left},
                needs,
                halving,
                retries,
                _Asked(stopped, say),
                folder,
            ).fit()
    for trial in trials:
        outcome = ledger.outcome(trial)
        if outcome.status in ("waiting", "running", "interrupted") and not stopped():
            message = f"its worker or machine died. It was tried {retries + 1} times"
            if ledger.store.give_up(trial.job, "failed", message) is not None:
                say(f"{trial.model} {trial.number}: failed: {message}")
        ledger.drop_weights(trial)


def _tuner(
    orders: Mapping[int, Order], needs: Needs, halving: Halving, retries: int, stopper: Stopper, folder: str
) -> Any:
    bundle = {"CPU": needs.cpus, "GPU": needs.gpus, "memory": needs.memory_bytes}
    group = tune.PlacementGroupFactory([{name: amount for name, amount in bundle.items() if amount}])
    return tune.Tuner(
        tune.with_resources(tune.with_parameters(JobTrial, orders=orders, retries=retries), group),
        param_space={"trial": tune.grid_search(list(orders))},
        tune_config=tune.TuneConfig(scheduler=halving, reuse_actors=False),
        run_config=tune.RunConfig(
            name="search",
            storage_path=folder,
            stop=stopper,
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # the job sees to its own
            failure_config=tune.FailureConfig(max_failures=retries),
        ),
    )
