"""A scan as a value: what was scored, of which model, how."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from spectrum.checkpoint.fingerprint import Fingerprint
from spectrum.naming.parameters import Kind
from spectrum.spectra.snr import NoiseModel, Score

# The same as in spectrum.spectra.solver, which a reader of scan files cannot import: it brings torch.
Precision = Literal["auto", "float32", "float64"]
NameMapping = Literal["exact", "table", "identity"]
Names = Literal["runtime", "checkpoint"]


@dataclass(frozen=True)
class Model:
    """The model a scan speaks of. What an imported file does not say is None.

    Attributes:
        id: 'owner/name', or the folder's name.
        revision: commit on the Hub.
        fingerprint: of the checkpoint.
        model_class: the transformers class whose parameters are named.
        transformers: version that made the names.
        name_mapping: how they were made.
        parameters: number of weights in all.
        auto_classes: {auto class of transformers: the class it loads the checkpoint with}; {} if not known.
    """

    id: str
    revision: str | None = None
    fingerprint: Fingerprint | None = None
    model_class: str | None = None
    transformers: str | None = None
    name_mapping: NameMapping = "identity"
    parameters: int | None = None
    auto_classes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """How a scan was made. An imported one has an origin and no versions.

    Attributes:
        noise_model: of the scores in the file; others come from the stored spectra.
        tool: version of this package.
        torch: version that decomposed.
        device: where, for example 'cpu'.
        precision: 'auto', 'float32' or 'float64'.
        modules: patterns of module types asked for; () is all.
        exclude: patterns left out.
        all_modules: embeddings, heads and routers were asked for.
        names: 'runtime' as the trainer sees them, or 'checkpoint' as the file has them.
        model_class: the class asked for; None if the usual one was taken.
        experts: how many experts of each layer were scored, drawn with a fixed seed; None is all.
        origin: name of the older file it was imported from.
        complete: every parameter in scope is scored.
        algorithm: version of the numerical method; files of release 0.1.0 do not say and have 1.
    """

    noise_model: NoiseModel = "iqr"
    tool: str | None = None
    torch: str | None = None
    device: str | None = None
    precision: Precision = "auto"
    modules: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    all_modules: bool = False
    names: Names = "runtime"
    model_class: str | None = None
    experts: int | None = None
    origin: str | None = None
    complete: bool = True
    algorithm: int = 1


@dataclass(frozen=True)
class MatrixScore:
    """Score of one of the several matrices of a parameter, for example of an expert.

    Attributes:
        label: distinguishes it from the others, for example '3' for the fourth expert.
        shape: (rows, cols); None if an imported file does not say.
        snr: None if saturated.
        saturated: nothing lies below the threshold.
        score: everything else; None if an imported file does not say.
        redone: how it was decomposed if float32 was not enough; None otherwise.
    """

    label: str
    shape: tuple[int, int] | None
    snr: float | None = None
    saturated: bool = False
    score: Score | None = None
    redone: str | None = None


@dataclass(frozen=True)
class ParameterScore:
    """Score of one parameter.

    Attributes:
        name: as the trainer sees it; `*` replaces the expert number if a trainer keeps one module per expert.
        module_type: the parameters it is ranked among.
        layer: None outside numbered layers.
        kind: what it is.
        shape: None if an imported file does not say.
        dtype: of the checkpoint; None if an imported file does not say.
        snr: None if saturated; of several matrices the median.
        saturated: nothing lies below the threshold.
        score: everything else; None if an imported file does not say.
        tensors: of the checkpoint.
        matrices: per-matrix scores; empty if it is one plain matrix.
        redone: how it was decomposed if float32 was not enough; None otherwise or if there are several.
    """

    name: str
    module_type: str
    layer: int | None
    kind: Kind
    shape: tuple[int, ...] | None
    dtype: str | None
    snr: float | None = None
    saturated: bool = False
    score: Score | None = None
    tensors: tuple[str, ...] = ()
    matrices: tuple[MatrixScore, ...] = ()
    redone: str | None = None


@dataclass(frozen=True)
class Unscored:
    """A parameter that has no score but can be trained: a norm, a bias, the embedding."""

    name: str
    kind: Kind
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Scan:
    """The result of scoring one checkpoint at one revision.

    Attributes:
        model: what was scored.
        settings: how.
        parameters: scores, in natural order of name.
        unscored: the model's other parameters, in natural order of name.
        skipped: parameter or tensor -> why it has no score.
    """

    model: Model
    settings: Settings
    parameters: tuple[ParameterScore, ...]
    unscored: tuple[Unscored, ...]
    skipped: Mapping[str, str]

    @property
    def entries(self) -> tuple[ParameterScore | Unscored, ...]:
        """Every parameter, the scored ones first."""
        return (*self.parameters, *self.unscored)
