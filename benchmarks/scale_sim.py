"""Iterations of R ranks and their workers, event by event. Runs in this process, in simulated time.

The pacing is the run's own. Rollout k of a worker begins when its rollout k - 1 is done and version
max(0, k - L) has reached it, which is when one of its L + 1 slots is free again. Update k begins
when every rank has rollout k of each of its workers, ends on all of them together, and makes
version k + 1.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from math import inf

import numpy as np

Then = Callable[[], None]


@dataclass(frozen=True)
class Plan:
    """Who runs, and what takes time besides simulating and learning.

    Attributes:
        ranks: R.
        workers: W, of each rank.
        lag: L, `rollout.max_policy_lag`.
        cores: Of the one machine that has all ranks and local workers; when more of its processes
            compute than it has cores, all of them go slower alike. Infinite: a core for each.
        remote: How many of a rank's workers are on other machines, with a core each.
        link_s: What one remote rollout takes on its rank's link and on its way into the slot [s];
            one after the other.
        weights_s: Until remote workers have a new version [s].
        allreduce_s: Of all minibatch steps of an update together [s].
    """

    ranks: int = 1
    workers: int = 1
    lag: int = 1
    cores: float = inf
    remote: int = 0
    link_s: float = 0.0
    weights_s: float = 0.0
    allreduce_s: float = 0.0


@dataclass(frozen=True)
class Timeline:
    """When each update began and ended, [K] each [s]."""

    begin: np.ndarray
    end: np.ndarray

    def iteration_s(self, warm_up: int = 0) -> float:
        """Return the mean iteration after the first `warm_up` [s]."""
        before = self.end[warm_up - 1] if warm_up else 0.0
        return float((self.end[-1] - before) / (len(self.end) - warm_up))

    def learner_waits_s(self, warm_up: int = 1) -> float:
        """Return the learner's mean wait for rollouts [s]; `warm_up` is at least 1."""
        return float(np.mean(self.begin[warm_up:] - self.end[warm_up - 1 : -1]))


def simulate(plan: Plan, collect_KRW: np.ndarray, update_KR: np.ndarray) -> Timeline:
    """Run K iterations.

    Args:
        plan: Who runs.
        collect_KRW: What each rollout takes a core [s].
        update_KR: What each update takes its rank [s], without the all-reduce.
    """
    return _Simulation(plan, collect_KRW, update_KR).run()


class _Machine:
    """Processes that share cores evenly: each goes at min(1, cores / processes)."""

    def __init__(self, cores: float) -> None:
        self._cores, self._done, self._now = cores, 0.0, 0.0
        self._order = count()
        self._tasks: list[tuple[float, int, Then]] = []  # by what `_done` will be at their end

    def _rate(self) -> float:
        return min(1.0, self._cores / len(self._tasks))

    def _turn_to(self, now: float) -> None:
        if self._tasks:
            self._done += (now - self._now) * self._rate()
        self._now = now

    def next_end(self) -> float:
        if not self._tasks:
            return inf
        return self._now + max(0.0, self._tasks[0][0] - self._done) / self._rate()

    def begin(self, now: float, seconds: float, then: Then) -> None:
        self._turn_to(now)
        heapq.heappush(self._tasks, (self._done + seconds, next(self._order), then))

    def end(self, now: float) -> Then:
        self._turn_to(now)
        return heapq.heappop(self._tasks)[2]


class _Simulation:
    def __init__(self, plan: Plan, collect_KRW: np.ndarray, update_KR: np.ndarray) -> None:
        self.plan, self.collect, self.update = plan, collect_KRW, update_KR
        self.K, R, W = collect_KRW.shape
        self.now, self.order = 0.0, count()
        self.timers: list[tuple[float, int, Then]] = []
        self.machine = _Machine(plan.cores)
        self.next_rollout = np.zeros((R, W), int)
        self.collecting = np.zeros((R, W), bool)
        self.missing = np.full(self.K, R * W)  # rollouts that update k still waits for
        self.version = {False: 0, True: 0}  # that local and remote workers have
        self.link_free = np.zeros(R)
        self.learning, self.updated, self.behind = False, 0, 0  # `behind`: ranks in the update
        self.begin, self.end = np.zeros(self.K), np.zeros(self.K)

    def run(self) -> Timeline:
        for remote in (False, True):
            self.start_workers(remote)
        while self.updated < self.K:
            timer = self.timers[0][0] if self.timers else inf
            end = self.machine.next_end()
            self.now = min(timer, end)
            then = heapq.heappop(self.timers)[2] if timer <= end else self.machine.end(self.now)
            then()
        return Timeline(self.begin, self.end)

    def after(self, seconds: float, then: Then) -> None:
        heapq.heappush(self.timers, (self.now + seconds, next(self.order), then))

    def compute(self, seconds: float, shared: bool, then: Then) -> None:
        if shared and self.plan.cores < inf:
            self.machine.begin(self.now, seconds, then)
        else:
            self.after(seconds, then)

    def is_remote(self, w: int) -> bool:
        return w >= self.plan.workers - self.plan.remote

    def start_workers(self, remote: bool) -> None:
        for r in range(self.plan.ranks):
            for w in range(self.plan.workers):
                if self.is_remote(w) == remote:
                    self.start(r, w)

    def start(self, r: int, w: int) -> None:
        """Begin a worker's next rollout, if it may."""
        k, remote = int(self.next_rollout[r, w]), self.is_remote(w)
        if not self.collecting[r, w] and k < self.K and self.version[remote] >= k - self.plan.lag:
            self.collecting[r, w] = True
            seconds = float(self.collect[k, r, w])
            self.compute(seconds, not remote, lambda: self.collected(r, w, k))

    def collected(self, r: int, w: int, k: int) -> None:
        self.collecting[r, w] = False
        self.next_rollout[r, w] = k + 1
        self.start(r, w)
        if not self.is_remote(w):
            self.arrived(k)
            return
        self.link_free[r] = max(self.link_free[r], self.now) + self.plan.link_s
        self.after(self.link_free[r] - self.now, lambda: self.arrived(k))

    def arrived(self, k: int) -> None:
        self.missing[k] -= 1
        self.learn()

    def learn(self) -> None:
        """Begin the next update, if all of its rollouts are there."""
        k = self.updated
        if self.learning or k == self.K or self.missing[k]:
            return
        self.learning, self.begin[k] = True, self.now
        self.behind = self.plan.ranks
        for seconds in self.update[k]:
            self.compute(float(seconds), True, self.rank_done)

    def rank_done(self) -> None:
        self.behind -= 1
        if not self.behind:
            self.after(self.plan.allreduce_s, self.learned)

    def learned(self) -> None:
        self.end[self.updated] = self.now
        self.updated += 1
        self.learning = False
        version = self.updated
        self.has_version(False, version)
        if self.plan.remote:
            self.after(self.plan.weights_s, lambda: self.has_version(True, version))
        self.learn()

    def has_version(self, remote: bool, version: int) -> None:
        self.version[remote] = version
        self.start_workers(remote)
