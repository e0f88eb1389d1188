"""The spectra of stacked experts: scored again in stacks, and still every damage is found."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spectrum.checking import check_spectra
from spectrum.checkpoint import Fingerprint
from spectrum.results import (
    MatrixScore,
    Model,
    ParameterScore,
    Scan,
    Settings,
    matrix_key,
    read_spectra,
    write_spectra,
)
from spectrum.scanning.scoring import rescore

PRINT = Fingerprint("h", "samples:c")
PATH = Path("x.spectra.safetensors")
NAME = "model.layers.0.mlp.experts.gate_up_proj"
LABELS = [f"{expert}.{part}" for expert in range(5) for part in ("down", "gate")]


def stored(noise_model="iqr"):
    """A parameter whose matrices have two shapes in turn, some of them saturated, and a plain one."""
    random = np.random.default_rng(0)
    shapes = [(12, 40), (30, 12)] * 5
    matrices = tuple(
        MatrixScore(label, shape, None, saturated=False, score=None)
        for label, shape in zip(LABELS, shapes, strict=True)
    )
    about = {"layer": 0, "dtype": "F32", "snr": None, "saturated": False, "score": None}
    experts = ParameterScore(
        NAME, "model.layers.*.mlp.experts.gate_up_proj", kind="experts", shape=(5, 24, 40), matrices=matrices, **about
    )
    plain = ParameterScore("model.layers.0.q", "model.layers.*.q", kind="matrix", shape=(12, 12), **about)
    spectra = {
        matrix_key(NAME, label): np.sort(random.random(12) + place % 4)[::-1] for place, label in enumerate(LABELS)
    }
    spectra["model.layers.0.q"] = np.sort(random.random(12))[::-1]
    scan = Scan(Model("m", fingerprint=PRINT), Settings(), (experts, plain), (), {})
    return rescore(scan, spectra, noise_model), spectra


def found(scan, spectra):
    write_spectra(spectra, PATH, fingerprint=PRINT)
    return [item.message for item in check_spectra(scan, PATH)]


@pytest.mark.parametrize("noise_model", ["iqr", "mp", "gavish-donoho", "std"])
def test_sound_spectra(noise_model):
    """Saturated matrices and others, of two shapes, under every noise model."""
    scan, spectra = stored(noise_model)
    kinds = {matrix.saturated for matrix in scan.parameters[0].matrices}
    assert kinds == ({True, False} if noise_model in {"iqr", "std"} else {False})
    assert found(scan, spectra) == []


def _altered(scan, place, **changes):
    experts, plain = scan.parameters
    matrices = list(experts.matrices)
    matrices[place] = replace(matrices[place], **changes)
    return replace(scan, parameters=(replace(experts, matrices=tuple(matrices)), plain))


@pytest.mark.parametrize("place", range(10))
def test_the_score_of_one_matrix(place):
    """By a hundred thousandth, or saturated where it is not, and the reverse."""
    scan, spectra = stored()
    matrix = scan.parameters[0].matrices[place]
    changed = {"snr": 1.0, "saturated": False} if matrix.saturated else {"snr": matrix.snr * 1.00001}
    message = f"The spectra in '{PATH}' give other scores than the scan holds for '{NAME}'."
    assert found(_altered(scan, place, **changed), spectra) == [message]
    if not matrix.saturated:
        assert found(_altered(scan, place, snr=None, saturated=True), spectra) == [message]
        assert found(_altered(scan, place, snr=matrix.snr * (1 + 1e-8)), spectra) == []


def test_the_median():
    """Of the parameter itself, its matrices being right."""
    scan, spectra = stored()
    experts, plain = scan.parameters
    wrong = replace(experts, snr=(experts.snr or 1.0) * 1.00001, saturated=False)
    assert len(found(replace(scan, parameters=(wrong, plain)), spectra)) == 1


def _negative(values):
    values[-1] = -values[-1]


def _swapped(values):
    values[[3, 4]] = values[[4, 3]]


def _not_a_number(values):
    values[5] = np.nan


def _infinite(values):
    values[0] = np.inf


def _flipped(values):
    values.view(np.uint64)[6] ^= 1 << 55


@pytest.mark.parametrize("damage", [_negative, _swapped, _not_a_number, _infinite, _flipped])
@pytest.mark.parametrize("key", [matrix_key(NAME, "3.gate"), "model.layers.0.q"])
def test_damage_in_one_spectrum(damage, key):
    """Named with its parameter."""
    scan, spectra = stored()
    spectra[key] = spectra[key].copy()
    damage(spectra[key])
    (message,) = found(scan, spectra)
    assert key.partition("#")[0] in message


def test_lengths_and_names():
    """A spectrum that is cut, or missing."""
    scan, spectra = stored()
    key = matrix_key(NAME, "2.down")
    (message,) = found(scan, spectra | {key: spectra[key][:-1]})
    assert f"no valid spectrum of '{NAME}'" in message
    del spectra[key]
    (message,) = found(scan, spectra)
    assert f"no valid spectrum of '{NAME}' ('{key}')" in message
    assert set(read_spectra(PATH, fingerprint=PRINT)) == set(spectra)
