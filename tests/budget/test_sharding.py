"""What one of several GPUs holds: DeepSpeed's arithmetic written out, and torch's fully_shard run on two ranks."""

import json
import subprocess
import sys
from math import ceil
from pathlib import Path

import pytest

from spectrum.budget import Setup, Weight, memory
from spectrum.errors import SelectionError

WEIGHTS = [
    Weight((1601, 66), "embedding", trained=True), Weight((97, 66), "matrix", trained=True),
    Weight((66, 97), "matrix", trained=True), Weight((66, 97), "matrix", trained=False),
    Weight((1601, 66), "head", trained=False), Weight((67,), "norm", trained=False),
    Weight((3, 7, 5), "experts", trained=True),
]  # fmt: skip
TRAINED = 1601 * 66 + 2 * 97 * 66 + 105
FROZEN = 97 * 66 + 1601 * 66 + 67


def _four(found):
    return found.weights, found.master, found.gradients, found.state


@pytest.mark.parametrize(("precision", "itemsize"), [("bf16", 2), ("fp32-master", 4)])
@pytest.mark.parametrize("gpus", [1, 2, 5])
def test_zero2(gpus, precision, itemsize):
    """Every weight on every GPU; one flat tensor of the trained ones, padded to twice the GPUs, split evenly."""
    padded = next(n for n in range(TRAINED, TRAINED + 2 * gpus) if n % (2 * gpus) == 0)
    part = padded // gpus
    found = memory(WEIGHTS, Setup("adamw", precision, "zero2", gpus))
    assert _four(found) == (2 * (FROZEN + padded), itemsize * part, 2 * part, 2 * itemsize * part + 4)
    assert (found.trainable, found.frozen) == (TRAINED, FROZEN)


@pytest.mark.parametrize(("precision", "itemsize"), [("bf16", 2), ("fp32-master", 4)])
@pytest.mark.parametrize("gpus", [1, 2, 5])
def test_zero3(gpus, precision, itemsize):
    """Every weight padded to the GPUs and split, frozen ones too; those up to 100,000 elements also stay gathered."""
    sizes = [(1601 * 66, True), (97 * 66, True), (97 * 66, True), (97 * 66, False), (1601 * 66, False), (67, False),
             (105, True)]  # fmt: skip
    parts = sum(ceil(n / gpus) for n, _ in sizes)
    part = sum(ceil(n / gpus) for n, trained in sizes if trained)
    gathered = 3 * 97 * 66 + 67 + 105
    found = memory(WEIGHTS, Setup("adamw", precision, "zero3", gpus))
    assert _four(found) == (2 * (parts + gathered), itemsize * part, 2 * part, 2 * itemsize * part + 4)


def test_optimizers_see_flat_vectors():
    """Under ZeRO Adafactor cannot factor, 8-bit blocks run through all weights, and no embedding is told apart."""
    part = -(-TRAINED // 4) * 4 // 2
    adafactor, eight, sgd = (
        memory(WEIGHTS, Setup(name, "fp32-master", "zero2", 2)).state for name in ("adafactor", "adamw-8bit", "sgd")
    )
    assert adafactor == 4 * part + 4
    assert eight == 2 * (part + 4 * ceil(part / 256)) + 2048
    assert sgd == 0


def test_stage_3_steps_over_tensors_of_a_billion():
    """sub_group_size: each flat tensor is closed once it has that many elements, and each counts its steps."""
    weights = [Weight((600_000_000,), "matrix", trained=True)] * 5
    part = 5 * 300_000_000
    assert memory(weights, Setup("adamw", "bf16", "zero3", 2)).state == 4 * part + 2 * 4


# Bytes on rank 0 of 2, CPU, measured with DeepSpeed at commit edaa722, torch 2.13, torch.optim.AdamW: a Llama of hidden
# size 66, intermediate size 97, 2 layers, one key-value head, head size 66, 1601 tokens; trained: the embedding and the
# first layer's MLP. Weights include 182,028 bytes that stage 3 keeps gathered. Gradients of stage 2 are the partition:
# 211,332 bytes were measured, for the tensor at the border of the two ranks is kept whole, which is not counted.
MEASURED = {
    ("zero2", "fp32-master"): (604_692, 249_744, 124_872, 499_492),
    ("zero2", "bf16"): (604_692, 124_872, 124_872, 249_748),
    ("zero3", "fp32-master"): (302_346 + 182_028, 249_744, 124_872, 499_492),
    ("zero3", "bf16"): (302_346 + 182_028, 124_872, 124_872, 249_748),
}


@pytest.mark.parametrize(("sharding", "precision"), MEASURED)
def test_as_deepspeed_allocates(sharding, precision):
    """Weights, copies, gradients and state as DeepSpeed allocated them, but for the border tensor of stage 2."""
    attention = [(132, 66), (66, 66), (66, 66), (66, 132)]
    mlp = [(97, 66), (97, 66), (66, 97)]
    weights = [Weight((1601, 66), "embedding", trained=True), Weight((1601, 66), "head", trained=False)]
    for layer in range(2):
        weights += [Weight(shape, "matrix", trained=False) for shape in attention]
        weights += [Weight(shape, "matrix", trained=layer == 0) for shape in mlp]
        weights += [Weight((66,), "norm", trained=False)] * 2
    weights.append(Weight((66,), "norm", trained=False))
    assert _four(memory(weights, Setup("adamw", precision, sharding, 2))) == MEASURED[sharding, precision]


@pytest.mark.parametrize(("optimizer", "sharding", "word"), [
    ("adafactor", "fsdp", "fully_shard"), ("adamw-8bit", "fsdp", "fully_shard"), ("muon", "zero3", "flat vectors"),
])  # fmt: skip
def test_optimizers_that_cannot_step(optimizer, sharding, word):
    """Combinations that fail in the trainer are refused here."""
    with pytest.raises(SelectionError, match=word):
        memory(WEIGHTS, Setup(optimizer, sharding=sharding))


FULLY_SHARD = """
import json, sys, torch, torch.distributed as dist
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

def bytes_of(tensors):
    storages = [getattr(t, "to_local", lambda: t)().untyped_storage() for t in tensors]
    return sum({s.data_ptr(): s.nbytes() for s in storages}.values())

def measure(optimizer, precision):
    linear = lambda rows, cols: torch.nn.Linear(cols, rows, bias=False)
    blocks = [torch.nn.Sequential(torch.nn.LayerNorm(66, bias=False), linear(97, 66), linear(66, 97)) for _ in range(2)]
    model = torch.nn.Sequential(torch.nn.Embedding(101, 66), *blocks, linear(101, 66)).to(torch.bfloat16)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in ("0.weight", "1.1.weight", "1.2.weight"))
        if parameter.requires_grad and precision == "fp32-master":
            parameter.data = parameter.data.float()
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    for part in (*blocks, model):
        fully_shard(part, mp_policy=policy)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    embedding, hidden = trained[:1], trained[1:]
    optimizers = {
        "adamw": lambda: [torch.optim.AdamW(trained)],
        "sgd-momentum": lambda: [torch.optim.SGD(trained, momentum=0.9)],
        "muon": lambda: [torch.optim.Muon(hidden), torch.optim.AdamW(embedding)],
    }[optimizer]()
    model(torch.arange(16)).float().square().mean().backward()
    for each in optimizers:
        each.step()
    state = [v for each in optimizers for entry in each.state.values() for v in entry.values()]
    return [bytes_of(model.parameters()), bytes_of(p.grad for p in trained), bytes_of(state)]

rank = int(sys.argv[2])
dist.init_process_group("gloo", init_method="file://" + sys.argv[3], rank=rank, world_size=2)
found = {f"{o} {p}": measure(o, p) for o in ("adamw", "sgd-momentum", "muon") for p in ("bf16", "fp32-master")}
if rank == 0:
    open(sys.argv[1], "w").write(json.dumps(found))
dist.destroy_process_group()
"""


def test_as_fully_shard_allocates(tmp_path):
    """torch's fully_shard on two ranks, frozen and trained weights mixed, odd rows: the first rank's bytes."""
    script, result = tmp_path / "measure.py", tmp_path / "found.json"
    script.write_text(FULLY_SHARD)
    commands = [[sys.executable, script, result, rank, tmp_path / "meeting"] for rank in "01"]
    ranks = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for command in commands]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    weights = [Weight((101, 66), "embedding", trained=True), Weight((101, 66), "head", trained=False)]
    for block in range(2):
        weights.append(Weight((66,), "norm", trained=False))
        weights += [Weight(shape, "matrix", trained=block == 0) for shape in ((97, 66), (66, 97))]
    measured = json.loads(Path(result).read_text())
    for key, (held, gradients, state) in measured.items():
        optimizer, precision = key.split()
        found = memory(weights, Setup(optimizer, precision, "fsdp", 2))
        assert (found.weights, found.gradients, found.state, found.master) == (held, gradients, state, 0), key
    assert len(measured) == 6


@pytest.mark.parametrize(
    ("shape", "kind", "state"),
    [
        ((64, 64), "matrix", 2 * (4096 + 4 * 16) + 2048),
        ((4095,), "vector", 8 * 4095),  # and no code books, where nothing is in 8 bits
        ((64, 65), "position", 8 * 64 * 65),  # learned positions are an nn.Embedding
        ((1, 64, 65), "position", 2 * (4160 + 4 * 17) + 2048),  # or a bare parameter
    ],
)
def test_edges_of_8_bits(shape, kind, state):
    """4096 elements are enough; embeddings stay in fp32."""
    assert memory([Weight(shape, kind, trained=True)], Setup("adamw-8bit")).state == state


@pytest.mark.parametrize(("numel", "weights"), [(100_000, 2 * 150_000), (100_001, 2 * 50_001)])
def test_edge_of_what_stays_gathered(numel, weights):
    """DeepSpeed compares with <=."""
    assert memory([Weight((numel,), "vector", trained=False)], Setup(sharding="zero3", gpus=2)).weights == weights


@pytest.mark.parametrize(("last", "steps"), [(1_999_999_998, 1), (2_000_000_000, 2)])
def test_edge_of_a_sub_group(last, steps):
    """A flat tensor of exactly a billion elements is closed."""
    weights = [Weight((size,), "vector", trained=True) for size in (last, 2)]
    found = memory(weights, Setup("adamw", "bf16", "zero3", 2))
    assert found.state == 4 * (last // 2 + 1) + 4 * steps
