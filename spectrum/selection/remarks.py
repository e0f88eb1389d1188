"""What the user should know of a selection before relying on it, in whole sentences."""

from collections.abc import Iterable, Iterator, Sequence

from spectrum.results.scan import ParameterScore, Scan
from spectrum.selection.amounts import matching_rules
from spectrum.selection.choice import Choice, MaxWeights, PerType
from spectrum.selection.companions import names_of
from spectrum.selection.fitting import weight_limit
from spectrum.selection.pools import Pool
from spectrum.selection.wording import number

RARE = 0.02  # share of the singular values at or below the threshold, under which the SNR rests on a few of them


def cut_remarks(choice: Choice, pools: Sequence[Pool], counts: Sequence[int]) -> list[str]:
    """Where the score did not decide between what is selected and what is not."""
    if choice.strategy != "top":
        return []
    cut = [(pool, count) for pool, count in zip(pools, counts, strict=True) if 0 < count < len(pool.units)]
    if choice.whole_layers:
        return [_tied_layers(pool) for pool, count in cut if _is_tied(pool, count)]
    if choice.score not in ("snr", "ratio"):
        return [_tied(pool, count, choice) for pool, count in cut if _is_tied(pool, count)]
    saturated = [_saturated(pool, count) for pool, count in cut if _saturated_count(pool) > count]
    return saturated + [
        _tied(pool, count, choice) for pool, count in cut if _is_tied(pool, count) and _saturated_count(pool) <= count
    ]


def rule_remarks(scan: Scan, choice: Choice, types: Sequence[Pool], trainable: int | None) -> Iterator[str]:
    """What follows from the rule and may surprise."""
    if isinstance(choice.rule, PerType):
        yield from _overruled(types, choice.rule)
    if isinstance(choice.rule, MaxWeights) and trainable is not None and choice.strategy != "top":
        limit = weight_limit(scan, choice.rule)
        if trainable > limit:
            yield (
                f"This control trains {trainable:,} weights, more than {limit:,}: it takes as many parameters of each "
                "module type as the best that fit, and those are of different sizes."
            )
    outside = [unit.name for pool in types for unit in pool.units if unit.members[0].layer is None]
    if choice.whole_layers and outside:
        yield (
            f"{len(outside)} ranked parameters outside numbered layers, such as '{outside[0]}', are frozen, "
            "for whole layers are chosen."
        )


def scan_remarks(scan: Scan, choice: Choice) -> Iterator[str]:
    """What the scan lacks."""
    stacked = next((item.name for item in scan.parameters if "*" in item.name), None)
    if stacked and scan.model.name_mapping == "identity":
        yield (
            f"The names of the experts, such as '{stacked}', are those of transformers 4. Since transformers 5 the "
            "experts of a layer are one parameter: there these names match nothing. Scan the model again."
        )
    if choice.embeddings == "train" and not names_of(scan, ("embedding", "head")):
        yield (
            f"The scan of '{scan.model.id}' lists no embedding and no head, so none is selected. "
            "Add theirs by hand, or pass --embeddings freeze."
        )


def saturation_remarks(selected: Iterable[ParameterScore]) -> Iterator[str]:
    """Selected matrices of which almost nothing is at or below the threshold, so that their SNR is an accident.

    The SNR divides by the sum of the few values below the threshold; one value more or less changes it many times.
    """
    nearly = [(item, low, total) for item in selected for low, total in [_noise_values(item)] if 0 < low < RARE * total]
    if nearly:
        item, low, total = nearly[0]
        more = f", and {len(nearly) - 1} more such parameters are selected" if len(nearly) > 1 else ""
        yield (
            f"'{item.name}' is nearly saturated: {low} of its {total} singular values lie at or below the threshold, "
            f"so a small change of the weights changes its SNR many times{more}. Compare with --noise-model mp."
        )


def _noise_values(item: ParameterScore) -> tuple[int, int]:
    """Singular values at or below the threshold, and all of them; of experts summed over their matrices."""
    matrices = item.matrices or ((item,) if item.shape is not None and len(item.shape) == 2 else ())
    known = [(int(each.score.signal_count), min(each.shape)) for each in matrices if each.score and each.shape]
    return sum(total - signal for signal, total in known), sum(total for _, total in known)


def _is_tied(pool: Pool, count: int) -> bool:
    return pool.units[count - 1].key == pool.units[count].key


def _saturated_count(pool: Pool) -> int:
    return sum(unit.members[0].saturated for unit in pool.units)


def _saturated(pool: Pool, count: int) -> str:
    first = pool.units[0].members[0]
    order = (
        "They are ordered by name, for an imported scan holds no spectra; scan the model to tell them apart."
        if first.score is None
        else "They are ordered by sum(sigma)/sigma_1; another noise model, such as mp, may tell them apart."
    )
    return (
        f"{pool.label}: {_saturated_count(pool)} of {len(pool.units)} parameters are saturated (nothing below the "
        f"threshold) and {count} are selected, so the cut falls among them. {order}"
    )


def _tied(pool: Pool, count: int, choice: Choice) -> str:
    score = abs(pool.units[count].key[0])
    what = f"score {score:g}" if choice.score == "snr" else f"have the {choice.score} {score:g}"
    return (
        f"{pool.label}: the last parameter selected and the first one left out both {what}, "
        "so their names decide between them."
    )


def _tied_layers(pool: Pool) -> str:
    return f"{pool.label}: the last layer selected and the first one left out rank equal, so their numbers decide."


def _overruled(types: Sequence[Pool], rule: PerType) -> Iterator[str]:
    """Module types that several patterns match: which of them decides."""
    labels = {pool.name: pool.label for pool in types}
    several = {name: found for name, found in matching_rules(types, rule).items() if len(found) > 1}
    if several:
        name = min(several)
        given = " and ".join(f"'{pattern}={number(percent)}'" for pattern, percent in several[name])
        more = f", and so for {len(several) - 1} other module types" if len(several) > 1 else ""
        yield f"{labels[name]} matches {given}: the last one decides{more}."
