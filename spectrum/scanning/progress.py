"""What a scan reports while it runs, and to whom."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a scan is. Costs are in the unit of `tasks.estimated_cost`.

    Attributes:
        done: matrices finished, in earlier runs as well.
        total: matrices to decompose.
        earlier: of `done`, those that an interrupted run had finished.
        done_cost: of the finished matrices.
        total_cost: of all.
        earlier_cost: of those that an interrupted run had finished.
    """

    done: int
    total: int
    earlier: int
    done_cost: float
    total_cost: float
    earlier_cost: float

    def seconds_left(self, elapsed: float) -> float | None:
        """Time left if the rest goes as fast as this run so far; None before it has finished a matrix.

        Args:
            elapsed: seconds since this run began.
        """
        own_cost = self.done_cost - self.earlier_cost
        return elapsed * (self.total_cost - self.done_cost) / own_cost if own_cost > 0 else None


def _ignore(_: object) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Listener:
    """Receives the reports of a scan.

    Attributes:
        hint: is given each message about what happens.
        warn: is given each message that the user should know before relying on the result.
        progress: is called when decomposing begins and after every matrix.
    """

    hint: Callable[[str], None] = _ignore
    warn: Callable[[str], None] = _ignore
    progress: Callable[[Progress], None] = _ignore


SILENT = Listener()
