"""What LoRA adapts: the selection as PEFT names it, for PEFT itself and for Axolotl.

How PEFT 0.20 reads it (tuners/tuners_utils.py, utils/other.py, utils/transformers_weight_conversion.py):

- An entry of a `target_modules` list is a module's full name, or its end after a dot; likewise `target_parameters`
  among parameters. A `target_modules` string is one expression for re.fullmatch.
- On transformers 5, in models of stacked experts, an entry that ends in `gate_proj`, `up_proj`, `down_proj` (or `w1`,
  `w2`, `w3`) or `gate` is taken for the experts of transformers 4 and becomes all experts of all layers; a string is
  first resolved to such last names. So there, linear layers with these names (shared experts, dense layers among the
  others) are named by their parameter, and a string is never written.
- `modules_to_save` are matched by the end of a module's name, without a dot, and read as an expression where adapters
  are kept off them. A module inside one whose parameter is adapted has another name by then.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from math import log2
from statistics import median
from typing import TypeAlias

from spectrum.errors import SelectionError
from spectrum.exporting.header import refuse_control
from spectrum.exporting.matching import confirm, escaped, expanded, expression, runtime_names
from spectrum.results.scan import ParameterScore, Scan
from spectrum.selection import Group, Selection, embedding_size

_OF_EXPERTS = re.compile(r"(^|\.)(gate|gate_proj|up_proj|down_proj|w1|w2|w3)$")
_TIEABLE = "embed_tokens"  # the name under which PEFT finds an embedding that the head is tied to
DEFAULT_RANK = 16
_STEPS = 2  # ranks lie between a quarter and four times the one asked for


Setting: TypeAlias = bool | str | tuple[str, ...] | dict[str, int]


@dataclass(frozen=True)
class LoraOptions:
    """How the adapters are made.

    Attributes:
        rank: of every adapter, or of the typical one if ranks follow SNR; None is 16.
        alpha: scale of the adapter's output is alpha / rank; None is twice the rank.
        by_snr: a matrix of more SNR than its module type's median gets a higher rank, one of less a lower.
        four_bit: the linear layers are held in 4 bit (QLoRA).
    """

    rank: int | None = None
    alpha: int | None = None
    by_snr: bool = False
    four_bit: bool = False

    @property
    def r(self) -> int:
        """The rank, as given or by default."""
        return DEFAULT_RANK if self.rank is None else self.rank

    @property
    def lora_alpha(self) -> int:
        """Alpha, as given or by default."""
        return 2 * self.r if self.alpha is None else self.alpha


@dataclass(frozen=True)
class LoraTargets:
    """The selection as PEFT takes it.

    Attributes:
        modules: full names, or one expression if the model has one module per expert.
        parameters: full names of parameters that no linear layer owns, such as stacked experts.
        saved: modules that are trained in full: embeddings and norms.
        tied: the head shares the weights of the embedding among `saved`.
        ranks: expression -> rank, if it is not the one asked for.
        alphas: the same for alpha, so that alpha / rank stays as it is.
        notes: whole sentences on what the user should know.
    """

    modules: tuple[str, ...] | str
    parameters: tuple[str, ...]
    saved: tuple[str, ...]
    tied: bool
    ranks: dict[str, int]
    alphas: dict[str, int]
    notes: tuple[str, ...]

    def settings(self) -> dict[str, Setting]:
        """The arguments of LoraConfig that are not empty."""
        settings: dict[str, Setting] = {
            "target_modules": self.modules,
            "target_parameters": self.parameters,
            "modules_to_save": self.saved,
            "ensure_weight_tying": self.tied,
            "rank_pattern": self.ranks,
            "alpha_pattern": self.alphas,
        }
        return {name: value for name, value in settings.items() if value}


def lora_targets(selection: Selection, scan: Scan, options: LoraOptions) -> LoraTargets:
    """The modules that LoRA adapts and those trained beside them, matched back the way PEFT matches.

    Raises:
        SelectionError: a selection that PEFT cannot express, or would match differently.
    """
    for name in selection.names:
        refuse_control(name)
    if not selection.weights:
        raise SelectionError("No weight matrix is selected, so there is nothing that LoRA could adapt.")
    stacked = any(item.kind == "experts" and "*" not in item.name for item in scan.entries)
    by_parameter = [item for item in selection.chosen if _needs_parameter(item, stacked=stacked)]
    parameters = tuple(item.name for item in by_parameter)
    known = frozenset(parameters)
    by_module = [item for item in selection.chosen if item.name not in known]
    if options.four_bit:
        _refuse_four_bit(by_parameter)
    ranks = _ranks(selection.groups, options) if options.by_snr else {}
    # PEFT puts an optional prefix before a key that it matches; `^` in the key leaves no room for one.
    keys = {name: f"^{escaped(name if name in known else _owner(name))}" for name in selection.weights}
    targets = LoraTargets(
        modules=_modules(by_module, scan, stacked=stacked),
        parameters=parameters,
        saved=tuple(dict.fromkeys(_owner(name) for name in (*selection.embeddings, *selection.norms))),
        tied=bool(selection.embeddings) and _is_tied(selection, scan),
        ranks={keys[name]: rank for name, rank in ranks.items()},
        alphas={keys[name]: max(1, round(options.lora_alpha * rank / options.r)) for name, rank in ranks.items()},
        notes=tuple(_notes(selection, scan, by_parameter, options)),
    )
    _confirm(targets, by_module, scan)
    return targets


def _modules(items: Sequence[ParameterScore], scan: Scan, *, stacked: bool) -> tuple[str, ...] | str:
    """A list, or one expression for thousands of experts of transformers 4."""
    owners = [_owner(item.name) for item in items]
    if any("*" in owner for owner in owners):
        if stacked:
            raise SelectionError(
                f"The scan of '{scan.model.id}' has stacked experts and experts in modules of their own; PEFT cannot "
                "select exactly some of them. Leave one kind out with --exclude."
            )
        return expression(owners)
    return tuple(owners)


def _needs_parameter(item: ParameterScore, *, stacked: bool) -> bool:
    """Whether PEFT must be given the parameter instead of the module that owns it."""
    if "*" in item.name:
        return False
    # Since transformers 5 most routers are not linear layers.
    if item.kind in ("experts", "router") or not item.name.endswith(".weight"):
        return True
    return stacked and _OF_EXPERTS.search(_owner(item.name)) is not None


def _refuse_four_bit(items: Sequence[ParameterScore]) -> None:
    """PEFT adapts a parameter by adding to it, and packed 4-bit numbers cannot be added to."""
    packed = next((item for item in items if item.kind != "experts" and item.name.endswith(".weight")), None)
    if packed:
        raise SelectionError(
            f"PEFT can adapt '{packed.name}' only as a parameter (it would mistake its module for the experts, or it "
            f"is a router), which does not work in 4 bit. Leave it out with --exclude '{packed.module_type}', or train "
            "without --qlora."
        )


def _is_tied(selection: Selection, scan: Scan) -> bool:
    """Whether a head shares the embedding's weights, and so is not a parameter of its own.

    Raises:
        SelectionError: PEFT would train a copy that the head does not share.
    """
    if any(item.kind == "head" for item in scan.entries):
        return False
    if not any(_owner(name).rpartition(".")[2] == _TIEABLE for name in selection.embeddings):
        raise SelectionError(
            f"'{selection.embeddings[0]}' may share its weights with the head, and PEFT keeps the two together only "
            f"if the embedding is called {_TIEABLE}. Pass --embeddings freeze."
        )
    return True


def _ranks(groups: Sequence[Group], options: LoraOptions) -> dict[str, int]:
    """Parameter -> rank, if it differs from the one asked for.

    It is that one times a power of two near SNR / median SNR of the module type's selected parameters. A saturated
    parameter counts as the highest number there is.
    """
    ranks = {}
    for group in groups:
        numbers = [item.snr for item in group.selected if item.snr]
        middle = median(numbers) if numbers else 1.0
        for item in group.selected:
            snr = max(numbers, default=1.0) if item.snr is None else item.snr
            step = max(-_STEPS, min(_STEPS, round(log2(snr / middle)))) if snr > 0 else -_STEPS
            rank = max(1, round(options.r * 2.0**step))
            if rank != options.r:
                ranks[item.name] = rank
    return ranks


def bias_notes(selection: Selection) -> Iterator[str]:
    """That LoRA leaves out the biases of a selection, if it has some."""
    if selection.biases:
        yield f"LoRA adapts matrices: the {len(selection.biases)} biases beside selected weights stay as they are."


def _notes(
    selection: Selection, scan: Scan, by_parameter: Sequence[ParameterScore], options: LoraOptions
) -> Iterator[str]:
    if selection.embeddings:
        size = embedding_size(selection, scan)
        both = "Embedding and head" if size is None else f"Embedding and head, {size:,} weights,"
        yield f"{both} are trained in full beside the adapters. --embeddings freeze leaves them out."
    else:
        yield "Embedding and head are frozen, as is usual with adapters. --embeddings train trains them as well."
    yield from bias_notes(selection)
    if any("*" in name for name in selection.weights):
        yield (
            "These names are for transformers 4: on transformers 5, PEFT looks at their last part only, in all layers."
        )
    if by_parameter and options.four_bit:
        yield (
            "bitsandbytes quantises linear layers only: stacked experts stay in 16 bit, unless Axolotl's "
            "quantize_moe_experts is set."
        )


def _confirm(targets: LoraTargets, by_module: Sequence[ParameterScore], scan: Scan) -> None:
    """Match back, as PEFT does, against all modules and parameters of the model."""
    members = runtime_names(scan)
    parameters = [name for group in members.values() for name in group]
    modules = {name[: dot.start()] for name in parameters for dot in re.finditer(r"\.", name)}
    wanted = [_owner(name) for name in expanded([item.name for item in by_module], members)]
    kept = [module for module in modules if any(_is_saved(text, module) for text in targets.saved)]
    if isinstance(targets.modules, str):
        adapted = [module for module in modules if re.fullmatch(targets.modules, module)]
    else:
        adapted = _ending(modules, targets.modules)
    confirm([module for module in adapted if module not in kept], wanted, "PEFT's target_modules")
    confirm(_ending(parameters, targets.parameters), targets.parameters, "PEFT's target_parameters")
    wrapped = {_owner(name) for name in targets.parameters}
    saved = [
        module
        for module in modules
        if targets.saved and module.endswith(targets.saved) and not any(module.startswith(f"{at}.") for at in wrapped)
    ]
    confirm(saved, targets.saved, "PEFT's modules_to_save")


def _ending(names: Collection[str], targets: Sequence[str]) -> list[str]:
    """Names that are a target, or end with a dot and a target."""
    exact, endings = set(targets), tuple(f".{target}" for target in targets)
    return [name for name in names if name in exact or name.endswith(endings)]


def _is_saved(text: str, module: str) -> bool:
    """Whether PEFT 0.20 keeps adapters off a module that is saved: it reads the text as an expression."""
    try:
        return re.match(rf"(^|.*\.){text}($|\..*)", module) is not None
    except re.error as error:
        raise SelectionError(
            f"PEFT reads modules_to_save as expressions, and '{text}' is not one. Pass --embeddings freeze --norms "
            "freeze."
        ) from error


def _owner(name: str) -> str:
    return name.rpartition(".")[0]
