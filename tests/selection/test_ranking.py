"""What ranks the parameters."""

from dataclasses import replace

import numpy as np
import pytest
from selection.scans import chosen, entry, layers, make_scan

from spectrum.errors import SelectionError
from spectrum.results import MatrixScore
from spectrum.selection import Choice, Count, condition_numbers, score_keys, select


def test_each_score_has_its_sense():
    """SNR, ratio and stable rank: higher first. Condition number: lower first."""
    facts = [(5, 1, 7, 30.0), (4, 9, 1, 20.0), (3, 2, 9, 40.0), (2, 3, 3, 10.0)]
    scan = make_scan(
        entry(f"l.{number}.w.weight", snr, ratio=ratio, stable_rank=rank)
        for number, (snr, ratio, rank, _) in enumerate(facts)
    )
    conditions = {f"l.{number}.w.weight": fact[3] for number, fact in enumerate(facts)}
    orders = {
        score: chosen(select(scan, Choice(Count(4), score=score), conditions=conditions))["w"]
        for score in ("snr", "ratio", "stable-rank", "condition")
    }
    assert orders == {
        "snr": [0, 1, 2, 3],
        "ratio": [1, 3, 2, 0],
        "stable-rank": [2, 0, 3, 1],
        "condition": [3, 1, 0, 2],
    }


def test_saturated_lead_by_ratio_too():
    """There is no ratio where nothing is noise."""
    entries = [
        entry("l.0.w.weight", 3.0),
        entry("l.1.w.weight", None, nuclear=2.0),
        entry("l.2.w.weight", None, nuclear=5),
    ]
    assert chosen(select(make_scan(entries), Choice(Count(3), score="ratio")))["w"] == [2, 1, 0]


def test_condition_numbers():
    """Of one matrix, against NumPy; of three, the median; singular and zero matrices are infinite."""
    random = np.random.default_rng(0)
    matrices = {"l.0.w.weight": random.standard_normal((20, 30))}
    matrices |= {f"l.0.experts#{e}": random.standard_normal((20, 30 + e)) for e in range(3)}
    spectra = {key: np.linalg.svd(matrix, compute_uv=False) for key, matrix in matrices.items()}
    spectra |= {"l.1.w.weight": np.array([3.0, 0.0]), "l.2.w.weight": np.array([0.0, 0.0])}
    experts = tuple(MatrixScore(str(e), (20, 30 + e), 1.0, saturated=False, score=None) for e in range(3))
    stacked = replace(entry("l.0.experts", 1.0, kind="experts"), matrices=experts)
    scan = make_scan([*(entry(f"l.{n}.w.weight", 1.0) for n in range(3)), stacked])
    found = condition_numbers(scan, {key: (values[0], values[-1]) for key, values in spectra.items()})
    expected = {key: np.linalg.cond(matrix) for key, matrix in matrices.items()}
    assert found == {
        "l.0.w.weight": pytest.approx(expected["l.0.w.weight"]),
        "l.0.experts": pytest.approx(np.median([expected[f"l.0.experts#{e}"] for e in range(3)])),
        "l.1.w.weight": np.inf,
        "l.2.w.weight": np.inf,
    }


def test_a_matrix_without_singular_values():
    """The spectra file is not that of the scan."""
    with pytest.raises(SelectionError, match="The spectra file lacks the matrix 'l.0.w.weight'"):
        condition_numbers(make_scan([entry("l.0.w.weight", 1.0)]), {})
    with pytest.raises(SelectionError, match="computed from the spectra"):
        score_keys(make_scan([entry("l.0.w.weight", 1.0)]), "condition")


@pytest.mark.parametrize("score", ["ratio", "stable-rank"])
def test_imported_scans_hold_snr_only(score):
    """Said with the file's name and what to do."""
    scan = make_scan([replace(entry("l.0.w.weight", 1.0), score=None)], origin="old.json")
    with pytest.raises(SelectionError) as error:
        select(scan, Choice(score=score))
    name = {"ratio": "ratio", "stable-rank": "stable rank"}[score]
    assert str(error.value) == (
        f"'l.0.w.weight' has no {name}: the scan was imported from 'old.json', which holds SNR only. "
        "Choose by --score snr, or scan the model."
    )


def test_a_tie_of_another_score_is_reported():
    """By its own number."""
    scan = make_scan(layers([1, 2, 3], stable_rank=4.5))
    selection = select(scan, Choice(Count(1), score="stable-rank", embeddings="freeze"))
    (warning,) = selection.warnings
    assert warning == (
        "mlp.up: the last parameter selected and the first one left out both have the stable-rank 4.5, "
        "so their names decide between them."
    )
