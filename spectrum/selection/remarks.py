"""What the user should know of a selection before relying on it, in whole sentences."""

from collections.abc import Iterable, Iterator, Sequence
from math import inf

from spectrum.results.scan import ParameterScore, Scan
from spectrum.selection.amounts import weight_limit
from spectrum.selection.choice import Choice, MaxWeights, Selection
from spectrum.selection.companions import names_of
from spectrum.selection.pools import Pool

RARE = 0.02  # share of the singular values at or below the threshold, under which the SNR rests on a few of them


def remarks(
    selection: Selection, scan: Scan, types: Sequence[Pool], taken: Sequence[tuple[Pool, int]]
) -> Iterator[str]:
    """The warnings of a selection.

    Args:
        selection: without warnings.
        scan: that it was chosen from.
        types: the pools of the module types.
        taken: the pools that were chosen from, and how many units of each are selected.
    """
    choice = selection.choice
    if choice.strategy == "top":
        yield from _at_the_cut(choice, [(pool, count) for pool, count in taken if 0 < count < len(pool.units)])
    trainable = selection.trainable or 0
    limit = weight_limit(scan, choice.rule) if isinstance(choice.rule, MaxWeights) else inf
    if trainable > limit:
        yield (
            f"This control trains {trainable:,} weights, more than {limit:,}: it takes as many parameters of each "
            "module type as the best that fit, and those are of different sizes."
        )
    outside = [unit.name for pool in types for unit in pool.units if unit.members[0].layer is None]
    if choice.whole_layers and outside:
        yield (
            f"{len(outside)} ranked parameters outside numbered layers, such as '{outside[0]}', are frozen, "
            "because whole layers are chosen."
        )
    if choice.score in ("snr", "ratio"):
        yield from _nearly_saturated(selection.chosen)
    yield from _lacking(scan, choice)


def _at_the_cut(choice: Choice, cut: Sequence[tuple[Pool, int]]) -> list[str]:
    """Pools in which the score did not decide between what is selected and what is not."""
    saturated = []
    if choice.score in ("snr", "ratio") and not choice.whole_layers:
        saturated = [(pool, count) for pool, count in cut if _saturated_count(pool) > count]
    tied = [
        (pool, count)
        for pool, count in cut
        if pool.units[count - 1].key == pool.units[count].key and (pool, count) not in saturated
    ]
    return [_saturated(*each) for each in saturated] + [_tied(*each, choice) for each in tied]


def _saturated_count(pool: Pool) -> int:
    return sum(unit.members[0].saturated for unit in pool.units)


def _saturated(pool: Pool, count: int) -> str:
    first = pool.units[0].members[0]
    order = (
        "They are ordered by name, because an imported scan holds no spectra; scan the model to tell them apart."
        if first.score is None
        else "They are ordered by sum(sigma)/sigma_1; another noise model, such as mp, may tell them apart."
    )
    return (
        f"{pool.label}: {_saturated_count(pool)} of {len(pool.units)} parameters are saturated (nothing below the "
        f"threshold) and {count} are selected, so the cut falls among them. {order}"
    )


def _tied(pool: Pool, count: int, choice: Choice) -> str:
    if choice.whole_layers:
        return f"{pool.label}: the last layer selected and the first one left out rank equal, so their numbers decide."
    score = abs(pool.units[count].key[0])
    shared = f"score {score:g}" if choice.score == "snr" else f"have the {choice.score} {score:g}"
    return (
        f"{pool.label}: the last parameter selected and the first one left out both {shared}, "
        "so their names decide between them."
    )


def _nearly_saturated(selected: Iterable[ParameterScore]) -> Iterator[str]:
    """Selected matrices whose SNR depends on a few singular values at or below the threshold.

    The SNR divides by the sum of those; one value more or less changes it many times.
    """
    nearly = [(item, low, total) for item in selected for low, total in [_noise_values(item)] if 0 < low < RARE * total]
    if nearly:
        item, low, total = min(nearly, key=lambda entry: entry[1] / entry[2])
        others = len(nearly) - 1
        more = f" So {'is 1 other' if others == 1 else f'are {others} others'} of the selected." if others else ""
        yield (
            f"'{item.name}' is nearly saturated: {low} of its {total} singular values {'lies' if low == 1 else 'lie'} "
            "at or below the threshold, so a small change of the weights changes its SNR many times."
            f"{more} Compare with --noise-model mp."
        )


def _noise_values(item: ParameterScore) -> tuple[int, int]:
    """Singular values at or below the threshold, and all of them; of experts summed over their matrices."""
    matrices = item.matrices or ((item,) if item.shape is not None and len(item.shape) == 2 else ())
    known = [(int(each.score.signal_count), min(each.shape)) for each in matrices if each.score and each.shape]
    return sum(total - signal for signal, total in known), sum(total for _, total in known)


def _lacking(scan: Scan, choice: Choice) -> Iterator[str]:
    """What the scan lacks."""
    stacked = next((item.name for item in scan.parameters if "*" in item.name), None)
    if stacked and scan.model.name_mapping == "identity":
        yield (
            f"The names of the experts, such as '{stacked}', are those of transformers 4. Since transformers 5 the "
            "experts of a layer are one parameter: there these names match nothing. Scan the model again."
        )
    if choice.embeddings == "train" and not names_of(scan, "embedding", "head"):
        yield (
            f"The scan of '{scan.model.id}' lists no embedding and no head, so none is selected. "
            "Add theirs by hand, or pass --embeddings freeze."
        )
