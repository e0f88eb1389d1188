"""What is trained beside the ranked parameters, and how many weights that is."""

from collections.abc import Iterable, Mapping, Sequence
from math import prod

from spectrum.naming import natural_key
from spectrum.results.scan import Scan
from spectrum.selection.choice import Choice, Selection, with_biases


def names_of(scan: Scan, *kinds: str) -> tuple[str, ...]:
    """Parameters of these kinds, scored or not, in natural order."""
    return tuple(sorted((item.name for item in scan.entries if item.kind in kinds), key=natural_key))


def always_trained(scan: Scan, choice: Choice) -> tuple[str, ...]:
    """What is trained whatever its score: embeddings with their biases, and norms."""
    embeddings = trained_embeddings(scan, choice)
    return (*with_biases(embeddings, biases(scan, embeddings)), *trained_norms(scan, choice))


def trained_embeddings(scan: Scan, choice: Choice) -> tuple[str, ...]:
    """Embedding and head, if they are trained."""
    return names_of(scan, "embedding", "head") if choice.embeddings == "train" else ()


def trained_norms(scan: Scan, choice: Choice) -> tuple[str, ...]:
    """Norms, if they are trained."""
    return names_of(scan, "norm") if choice.norms == "train" else ()


def biases(scan: Scan, weights: Sequence[str]) -> dict[str, str]:
    """Weight -> the bias beside it, for those that have one; a tied head's bias goes with the embedding."""
    known = {item.name for item in scan.unscored}
    found = {name: bias for name in weights if (bias := _bias_name(name)) in known}
    kinds = {item.name: item.kind for item in scan.entries}
    owner = "head" if "head" in kinds.values() else "embedding"
    owners = [name for name in weights if kinds[name] == owner]
    for weight, bias in zip(owners, names_of(scan, "head-bias"), strict=False):
        found.setdefault(weight, bias)
    return dict(sorted(found.items(), key=lambda pair: natural_key(pair[0])))


def sizes(scan: Scan) -> dict[str, int]:
    """Parameter -> number of weights; an imported scan does not hold them."""
    return {item.name: prod(item.shape) for item in scan.entries if item.shape is not None}


def embedding_size(selection: Selection, scan: Scan) -> int | None:
    """Number of weights of the embedding and head that are trained, with their biases; None if unknown."""
    return total(with_biases(selection.embeddings, selection.biases), sizes(scan))


def total(names: Iterable[str], known: Mapping[str, int]) -> int | None:
    """Number of weights of all these parameters; None if one of them is unknown."""
    found = [known.get(name) for name in names]
    return None if None in found else sum(size for size in found if size is not None)


def _bias_name(weight: str) -> str:
    """What a bias beside this weight is called: `x.bias` beside `x.weight`, `x_bias` beside a bare parameter `x`."""
    return f"{weight.removesuffix('.weight')}.bias" if weight.endswith(".weight") else f"{weight}_bias"
