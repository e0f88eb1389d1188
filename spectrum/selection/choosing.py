"""From a choice to the parameters to train."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from spectrum.errors import SelectionError
from spectrum.naming import match_module_types
from spectrum.results.scan import Scan
from spectrum.selection.amounts import amounts
from spectrum.selection.choice import Choice, Group, Selection, TopPercent, Treatment, with_biases
from spectrum.selection.companions import biases, sizes, total, trained_embeddings, trained_norms
from spectrum.selection.pools import Pool, in_order, layer_pools, module_type_pools
from spectrum.selection.ranking import score_keys
from spectrum.selection.reading import arguments
from spectrum.selection.remarks import remarks
from spectrum.selection.wording import describe, tag


def select_top(
    scan: Scan, top_percent: float, *, embeddings: Treatment = "train", norms: Treatment = "freeze"
) -> Selection:
    """The top P percent of each module type by SNR: floor(n * P / 100) of n, but at least one.

    Args:
        scan: to choose from.
        top_percent: 0 < P <= 100.
        embeddings: whether the embedding and the head are trained, whatever their score.
        norms: whether all norms are trained.

    Raises:
        SelectionError: top_percent out of range, or a scan without anything to rank.
    """
    return select(scan, Choice(TopPercent(top_percent), embeddings=embeddings, norms=norms))


def select(scan: Scan, choice: Choice, *, conditions: Mapping[str, float] | None = None) -> Selection:
    """The parameters to train.

    Args:
        scan: to choose from.
        choice: how.
        conditions: parameter -> condition number; needed if the score is "condition".

    Raises:
        SelectionError: nothing to rank, nothing that the rule takes, or not even the smallest choice fits.
        SpectrumError: a pattern that matches no module type.
    """
    types = _module_types(scan, choice, conditions)
    pools = layer_pools(types) if choice.whole_layers else types
    if not pools:
        raise SelectionError(f"The scan of '{scan.model.id}' scores nothing inside numbered layers.")
    percent, counts = amounts(scan, choice, pools)
    taken = [in_order(pool, choice.strategy, choice.seed)[:count] for pool, count in zip(pools, counts, strict=True)]
    groups = _groups(types, {member.name for units in taken for unit in units for member in unit.members})
    embeddings, norms = trained_embeddings(scan, choice), trained_norms(scan, choice)
    weights = [*embeddings, *(item.name for group in groups for item in group.selected)]
    beside = biases(scan, weights)
    trainable = total([*with_biases(weights, beside), *norms], sizes(scan))
    selection = Selection(
        choice=choice,
        options=arguments(choice, scan.settings.noise_model),
        description=describe(choice, scan.settings.noise_model, percent=percent),
        tag=tag(choice, scan.settings),
        top_percent=percent,
        groups=groups,
        embeddings=embeddings,
        norms=norms,
        biases=beside,
        trainable=trainable,
        warnings=(),
    )
    cuts = list(zip(pools, counts, strict=True))
    return replace(selection, warnings=tuple(remarks(selection, scan, types, cuts)))


def _module_types(scan: Scan, choice: Choice, conditions: Mapping[str, float] | None) -> list[Pool]:
    """The pools of the module types that `modules` and `exclude` leave."""
    # Patterns that the scan was made with need not match again.
    modules = () if choice.modules == scan.settings.modules else choice.modules
    exclude = [pattern for pattern in choice.exclude if pattern not in scan.settings.exclude]
    wanted = match_module_types({item.module_type for item in scan.parameters}, modules, exclude)
    pools = module_type_pools(scan, score_keys(scan, choice.score, conditions=conditions), wanted)
    if not pools:
        raise SelectionError(
            f"No scored weight matrix of '{scan.model.id}' is left to rank. If --modules or --exclude "
            "was given, leave a module type in; 'spectrum show' lists them."
        )
    return pools


def _groups(types: Sequence[Pool], chosen: Collection[str]) -> tuple[Group, ...]:
    ranked = [(pool, [item for unit in pool.units for item in unit.members]) for pool in types]
    return tuple(
        Group(pool.name, pool.label, tuple(items), tuple(item for item in items if item.name in chosen))
        for pool, items in ranked
    )
