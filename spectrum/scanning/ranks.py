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

# Ranks of one job start within seconds of each other; a machine that is missing after this time is lost.
JOINING = timedelta(minutes=10)
# Ranks synchronise after every round. A rank that waits longer than this for another takes it for dead. The longest
# matrix takes less on a CPU: an embedding of 256000 x 8192 redone in float64.
PATIENCE = timedelta(hours=2)

MOST_PIECES = 128  # matrices of one rank in a round


@dataclass(frozen=True)
class Team:
    """The processes of one job; a single process is a team of one.

    Attributes:
        rank: of this process, 0 to size - 1.
        size: number of processes.
        local_rank: of this process among those on its machine.
        group: of torch.distributed that joins them; None is the default group.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    group: Any = None

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
            dist.all_gather_object(values, value, group=self.group)
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
            dist.gather_object(value, values, dst=0, group=self.group)
        except RuntimeError as error:
            raise self.lost() from error
        return cast("list[T]", values or [])

    def from_leader(self, value: T | None) -> T:
        """On every rank the value that the leading one gives; the others give None.

        Raises:
            SpectrumError: another rank has ended.
        """
        return cast("T", self.gather(value)[0])

    def lost(self) -> SpectrumError:
        """The error of a rank that cannot go on without the others."""
        return SpectrumError(
            f"Rank {self.rank} of {self.size} stops: another rank has ended, or the job was stopped. "
            "Run the same command again; it carries on where it stopped."
        )


ALONE = Team()


@contextmanager
def team() -> Iterator[Team]:
    """The team that torchrun started this process in; a team of one if it did not.

    A process that has joined torch.distributed already, as trainers do, stays in it.

    Raises:
        SpectrumError: the other ranks cannot be reached.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "MASTER_ADDR" not in os.environ:
        yield ALONE
        return
    import torch.distributed as dist  # noqa: PLC0415
    from torch.distributed.rendezvous import rendezvous  # noqa: PLC0415

    # gloo also if the matrices are on GPUs: only spectra are sent, and they are on the CPU.
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if dist.is_initialized():
        group = dist.new_group(backend="gloo", timeout=PATIENCE)
        member = Team(dist.get_rank(), dist.get_world_size(), local_rank, group)
        yield member
        member.gather(None)  # nobody leaves before the leading rank has written
        dist.destroy_process_group(group)
        return
    try:
        joined = Team(int(os.environ["RANK"]), size, local_rank)
        store, rank, _ = next(rendezvous("env://", timeout=JOINING))
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=PATIENCE)
    except (KeyError, ValueError, RuntimeError) as error:
        raise SpectrumError(
            f"The ranks of this job cannot be joined ({error}). Start it with torchrun, which sets what they need."
        ) from error
    previous = signal.signal(signal.SIGTERM, lambda number, frame: _stopped(joined, number, frame))
    try:
        yield joined
        joined.gather(None)  # nobody leaves before the leading rank has written
        dist.destroy_process_group()
    finally:
        signal.signal(signal.SIGTERM, previous)


def rounds(costs: Sequence[float], size: int, *, smallest: float, most: int = MOST_PIECES) -> list[list[list[int]]]:
    """Split work over ranks, in rounds; ranks synchronise after each.

    Args:
        costs: of each piece of work, in the order in which it is to be done, most expensive first.
        size: number of ranks.
        smallest: cost for each rank below which no round ends, so that cheap pieces do not make many rounds.
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
    """Handle SIGTERM, with which torchrun ends the remaining ranks after one has failed."""
    raise member.lost()
