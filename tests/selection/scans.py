"""Scans made by hand, to choose from."""

from spectrum.naming import layer, module_type
from spectrum.results import Model, ParameterScore, Scan, Settings
from spectrum.spectra.snr import Score


def entry(name, snr, *, nuclear=1.0, kind="matrix", shape=(4, 4), ratio=None, stable_rank=1.0):
    """A parameter of this score."""
    saturated = snr is None
    score = Score(
        snr, saturated, None if saturated else snr if ratio is None else ratio, 1.0, 0.5, 2, nuclear, stable_rank
    )
    return ParameterScore(name, module_type(name), layer(name), kind, shape, "F32", snr, saturated, score, (name,))


def make_scan(entries, unscored=(), *, origin=None, **model):
    """A scan of a model of 1000 weights."""
    return Scan(
        Model("m", **{"parameters": 1000} | model), Settings(origin=origin), tuple(entries), tuple(unscored), {}
    )


def layers(scores, module="mlp.up", **facts):
    """A parameter per layer of one module type."""
    return [entry(f"model.layers.{number}.{module}.weight", snr, **facts) for number, snr in enumerate(scores)]


def chosen(selection):
    """Label of each module type -> the layers selected, best first."""
    return {group.label: [item.layer for item in group.selected] for group in selection.groups}
