"""Several processes, on one machine or many: torchrun starts them, torch.distributed joins them.

Every rank reads the checkpoint itself and decomposes its share; spectra are the only thing sent. No shared file
system is needed: rank 0 alone writes.
"""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Any, NoReturn, TypeVar, cast

from spectrum.errors import SpectrumError

T = TypeVar("T")

# Ranks of one job start within seconds of each other; a machine that has not come by then is not coming.
JOINING = timedelta(minutes=10)
# Ranks meet after every round. One that waits longer than this for another takes it for dead: longer than the longest
# matrix takes on a CPU, an embedding of 256000 x 8192 redone in float64.
PATIENCE = timedelta(hours=2)

MOST_PIECES = 128  # matrices of one rank between two meetings


@dataclass(frozen=True)
class Team:
    """The processes of one job; a single process is a team of one.

    Attributes:
        rank: of this process, 0 to size - 1.
        size: number of processes.
        local_rank: of this process among those on its machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in order of rank, on every rank.

        Raises:
            SpectrumError: another rank has ended.
        """
        if self.size == 1:
            return [value]
        import torch.distributed as dist  # noqa: PLC0415

        values: list[Any] = [None] * self.size
        try:
            dist.all_gather_object(values, value)
        except RuntimeError as error:
            raise self.lost() from error
        return cast("list[T]", values)

    def collect(self, value: T) -> list[T]:
        """The values of all ranks, in order of rank, on the rank that leads; none on the others.

        Raises:
            SpectrumError: another rank has ended.
        """
        if self.size == 1:
            return [value]
        import torch.distributed as dist  # noqa: PLC0415

        values: list[Any] | None = [None] * self.size if self.leads else None
        try:
            dist.gather_object(value, values, dst=0)
        except RuntimeError as error:
            raise self.lost() from error
        return cast("list[T]", values or [])

    def lost(self) -> SpectrumError:
        """The error of a rank that cannot go on without the others."""
        return SpectrumError(
            f"Rank {self.rank} of {self.size} stops: another rank has ended, or the job was told to stop. "
            "Run the same command again; it carries on where it stopped."
        )


ALONE = Team()


@contextmanager
def team() -> Iterator[Team]:
    """The team that torchrun started this process in; a team of one where it did not.

    Raises:
        SpectrumError: the other ranks cannot be reached.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "MASTER_ADDR" not in os.environ:
        yield ALONE
        return
    import torch.distributed as dist  # noqa: PLC0415
    from torch.distributed.rendezvous import rendezvous  # noqa: PLC0415

    try:
        joined = Team(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_RANK", "0")))
        # gloo also where the matrices are on GPUs: what is sent are spectra, and they are on the CPU.
        store, rank, _ = next(rendezvous("env://", timeout=JOINING))
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=PATIENCE)
    except (KeyError, ValueError, RuntimeError) as error:
        raise SpectrumError(
            f"The ranks of this job cannot be joined ({error}). Start it with torchrun, which sets what they need."
        ) from error
    previous = signal.signal(signal.SIGTERM, lambda number, frame: _stopped(joined, number, frame))
    try:
        yield joined
        joined.gather(None)  # nobody leaves before the rank that leads has written
        dist.destroy_process_group()
    finally:
        signal.signal(signal.SIGTERM, previous)


def rounds(costs: Sequence[float], size: int, *, smallest: float, most: int = MOST_PIECES) -> list[list[list[int]]]:
    """Split work over ranks, in rounds after each of which the ranks meet.

    Args:
        costs: of each piece of work, in the order in which it is to be done, dearest first.
        size: number of ranks.
        smallest: cost for each rank below which no round ends, so that cheap pieces do not make many meetings.
        most: pieces for each rank at which a round ends nevertheless, so that little is lost when a rank dies.

    Returns:
        Round -> rank -> indices into `costs`. Within a round each piece goes to the rank with the least to do.
    """
    result: list[list[list[int]]] = []
    loads: list[float] = []
    for index, cost in enumerate(costs):
        held = sum(map(len, result[-1])) if result else 0
        if not loads or (min(loads) > 0 and sum(loads) >= size * smallest) or held >= size * most:
            result.append([[] for _ in range(size)])
            loads = [0.0] * size
        idlest = loads.index(min(loads))
        result[-1][idlest].append(index)
        loads[idlest] += cost
    return result


def _stopped(member: Team, number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    """What SIGTERM does: torchrun ends the remaining ranks with it when one has failed."""
    raise member.lost()
