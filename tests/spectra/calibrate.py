"""Measure the accuracy of the solver from end to end; docs/explanation/accuracy.md holds the result.

PYTHONPATH=.:tests nice python -m spectra.calibrate calibration.jsonl

Appends one line per matrix to the file and continues where it was interrupted, then prints the table.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import torch
from spectra.families import DTYPES, FAMILIES, REPEATED, make, minilm
from spectra.reference import Array, reference_values, score_difference, threshold_and_snr

from spectrum.spectra.solver import TOLERANCE, singular_values

COUNTS = {  # matrices of each family and dtype
    (8, 8): 10, (24, 64): 10, (64, 64): 8, (96, 384): 6, (128, 128): 5, (128, 256): 5, (192, 384): 4, (256, 256): 3,
    (256, 1024): 2, (384, 1536): 1,
}  # fmt: skip
LARGE = ((768, 1536), (1024, 1024), (1024, 4096))  # one each in bfloat16 and float32, of these families
LARGE_FAMILIES = ("gaussian", *REPEATED)
UNDECIDED = 1e-6  # float64 SVDs of a matrix and of its transpose that differ by more do not define a score


def matrices(sizes: str) -> Iterator[tuple[str, torch.dtype, str, torch.Tensor | None]]:
    """Family, dtype, label and matrix; None instead of a matrix that is made on demand."""
    if sizes != "large":
        for (name, matrix), dtype in product(minilm(), DTYPES):
            yield "MiniLM", dtype, name, matrix.to(dtype)
        for (shape, count), family, dtype in product(COUNTS.items(), FAMILIES, DTYPES):
            for index in range(count):
                yield family, dtype, f"{shape[0]} x {shape[1]} {index}", None
    if sizes != "small":
        for shape, family, dtype in product(LARGE, LARGE_FAMILIES, (torch.bfloat16, torch.float32)):
            yield family, dtype, f"{shape[0]} x {shape[1]} 0", None


def measured(matrix: torch.Tensor) -> dict[str, object]:
    """Path, estimate, true error and seconds of one matrix."""
    start = time.perf_counter()
    found = singular_values(matrix)
    seconds = time.perf_counter() - start
    expected = reference_values(matrix)
    error = score_difference(found.values, expected, tuple(matrix.shape))
    decided = error <= UNDECIDED or is_decided(matrix, expected)
    return {
        "path": found.path,
        "estimate": float(found.error),
        "error": float(error),
        "decided": bool(decided),
        "seconds": seconds,
    }


def is_decided(matrix: torch.Tensor, expected: Array) -> bool:
    """Whether float64 defines the score: not if the threshold is rounding noise, as with equal singular values."""
    threshold, _ = threshold_and_snr(expected, tuple(matrix.shape))
    if threshold <= max(matrix.shape) * 2.0**-52 * expected[0] and expected[len(expected) // 4] > 0.0:
        return False
    return score_difference(reference_values(matrix.T), expected, tuple(matrix.shape)) <= UNDECIDED


def calibrate(out: Path, sizes: str) -> None:
    """Measure what the file does not hold yet."""
    done = {tuple(json.loads(line)["matrix"]) for line in out.read_text().splitlines()} if out.exists() else set()
    with out.open("a") as file:
        for family, dtype, label, given in matrices(sizes):
            key = (family, str(dtype).removeprefix("torch."), label)
            if key in done:
                continue
            p, q, index = (int(part) for part in label.replace(" x", "").split()) if given is None else (0, 0, 0)
            matrix = make(family, (p, q), dtype, index) if given is None else given
            file.write(json.dumps({"matrix": key, **measured(matrix)}) + "\n")
            file.flush()


def table(out: Path) -> Iterator[str]:
    """One row per family: how many were redone and how, and the largest errors."""
    groups = defaultdict(list)
    for line in out.read_text().splitlines():
        record = json.loads(line)
        groups[record["matrix"][0]].append(record)
    yield "| family | matrices | second look | redone | undecided | passed: largest error | of estimate | all: error |"
    yield "|---|---|---|---|---|---|---|---|"
    everything = [record for records in groups.values() for record in records]
    for family, records in [*sorted(groups.items()), ("all", everything)]:
        yield f"| {family} | " + " | ".join(_cells(records)) + " |"


def _cells(records: list[dict[str, float]]) -> list[str]:
    decided = [record for record in records if record["decided"]]
    passed = [record for record in decided if record["path"] in ("gram", "gram-float64-eigenvalues")]
    second = sum(record["path"] == "gram-float64-eigenvalues" for record in records)
    redone = sum(record["path"] in ("gram-float64", "svd-float64") for record in records)
    shares = [record["error"] / record["estimate"] for record in passed if record["estimate"] > 0]
    return [
        f"{len(records)}",
        f"{100 * second / len(records):.1f} %",
        f"{100 * redone / len(records):.1f} %",
        f"{len(records) - len(decided)}",
        f"{max((record['error'] for record in passed), default=0.0):.1e}",
        f"{max(shares, default=0.0):.2f}",
        f"{max((record['error'] for record in decided), default=0.0):.1e}",
    ]


def main() -> None:
    """Calibrate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sizes", choices=("small", "large", "all"), default="all")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    calibrate(options.out, options.sizes)
    sys.stdout.writelines(line + "\n" for line in table(options.out))
    records = [json.loads(line) for line in options.out.read_text().splitlines()]
    wrong = [record["matrix"] for record in records if record["decided"] and not record["error"] <= TOLERANCE]
    sys.exit(f"over {TOLERANCE}: {wrong}" if wrong else 0)


if __name__ == "__main__":
    main()
