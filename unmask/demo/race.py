"""Several decoders at once, for the eye: each works as long as its own clock is behind the others'."""

import threading
import time
from collections.abc import Callable, Sequence

Pass = Callable[[float], None]  # called with the seconds that a racer has worked since it was last let go on


class Race:
    """Racers in threads, of which one works at a time.

    A racer is a function that gets `Pass` and calls it after every step. So answers grow side by side as fast
    as each would alone, though the machine is busy with one of them at a time. `slow` is how many times
    slower.
    """

    def __init__(self, racers: Sequence[Callable[[Pass], None]], slow: float = 1.0):
        self.racers, self.clocks, self.slow = list(racers), [0.0] * len(racers), slow
        self.running = set(range(len(racers)))
        self.at_work, self.changed, self.errors = 0, threading.Condition(), []

    def run(self) -> None:
        """Until all have finished; what a racer raises is raised here."""
        threads = [threading.Thread(target=self._race, args=(i,), daemon=True) for i in self.running.copy()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for error in self.errors:
            raise error

    def _race(self, racer: int) -> None:
        try:
            self._pass(racer, 0.0)
            self.racers[racer](lambda seconds: self._pass(racer, seconds))
        except BaseException as error:  # told by the thread that waits
            self.errors.append(error)
        finally:
            with self.changed:
                self.running.discard(racer)
                self._choose()

    def _pass(self, racer: int, seconds: float) -> None:
        """Let the slowest clock go on; returns when that is this racer's."""
        time.sleep((self.slow - 1) * seconds)
        with self.changed:
            self.clocks[racer] += seconds
            if self.at_work == racer:
                self._choose()
            self.changed.wait_for(lambda: self.at_work == racer)

    def _choose(self) -> None:
        self.at_work = min(self.running, key=lambda racer: self.clocks[racer], default=-1)
        self.changed.notify_all()
