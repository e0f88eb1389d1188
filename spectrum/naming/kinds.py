"""The kind of a parameter, decided by the module that owns it."""

import re
from typing import Any

from spectrum.naming.embeddings import embeddings_of
from spectrum.naming.parameters import Kind

# Words in the names of classes and attributes of transformers 5.23, for classes that have no common base: most norms,
# experts and routers are plain modules.
_EXPERTS = re.compile(r"Expert")
_ROUTER = re.compile(r"Router|Gating|TopK|Gate\b")
_ROUTER_ATTRIBUTE = re.compile(r"(^|_)(gate|router|gating)$")
_POSITION = re.compile(r"Position|RelPos")
_POSITION_ATTRIBUTE = re.compile(r"position|pos_emb|^wpe$|relative_attention_bias|rel_pos")
_NORM = re.compile(r"Norm(?![a-z])")  # LlamaRMSNorm and MambaRMSNormGated, not InklingNormedEmbedding


class Owners:
    """The modules of a model, which decide the kind of its parameters.

    Attributes:
        modules: by path.
    """

    def __init__(self, model: Any) -> None:
        from torch import nn  # noqa: PLC0415 - costs a second

        self.modules = dict(model.named_modules(remove_duplicate=False))
        self._embeddings = embeddings_of(model)
        self._lists = (nn.ModuleList, nn.ModuleDict)
        self._convolution = nn.modules.conv._ConvNd  # noqa: SLF001 - the common base of all convolutions
        self._norms = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
        self._linear, self._embedding = nn.Linear, nn.Embedding

    def expert_lists(self) -> list[str]:
        """Paths of the lists that hold one module per expert."""
        return [path for path, module in self.modules.items() if self._is_list_of_experts(path, module)]

    def kind(self, name: str, parameter: Any) -> Kind:
        """Kind of a parameter of the model."""
        path, _, attribute = name.rpartition(".")
        if ".parametrizations." in path:  # weight norm: the module is the one that is parametrized
            path, _, attribute = path.rpartition(".parametrizations.")
        of_embeddings: Kind | None = self._embeddings.kind(self.modules[path], parameter)
        return of_embeddings or self._kind(path, attribute, parameter)

    def _kind(self, path: str, attribute: str, parameter: Any) -> Kind:
        """Kind of a parameter that is not part of the embedding or the head."""
        owner = self.modules[path]
        if self._is_norm(owner):
            return "norm"
        if attribute == "bias" or attribute.endswith("_bias"):
            return "bias"
        if isinstance(owner, self._convolution):
            return "convolution"
        if parameter.ndim < 2:
            return "vector"
        if self._is_position(owner, path.rpartition(".")[2] if attribute == "weight" else attribute):
            return "position"
        return "lookup" if isinstance(owner, self._embedding) else self._kind_of_weight(path, attribute, parameter)

    def _kind_of_weight(self, path: str, attribute: str, parameter: Any) -> Kind:
        """Kind of an array that is neither looked up nor added."""
        owner = self.modules[path]
        if _EXPERTS.search(type(owner).__name__) and (parameter.ndim == 3 or flattened_experts(owner, parameter.shape)):
            return "experts"
        if parameter.ndim > 2:
            return "other"
        if self._routes(path, parameter):
            return "router"
        if 1 in parameter.shape:
            return "vector"
        linear = isinstance(owner, self._linear) or type(owner).__name__ == "Conv1D"
        return "matrix" if linear or attribute == "weight" or attribute.endswith("_weight") else "other"

    def _routes(self, path: str, parameter: Any) -> bool:
        """Whether a 2-D weight chooses experts: one output for each of those in its block, or a single gate."""
        parent, _, leaf = path.rpartition(".")
        classes = f"{type(self.modules[path]).__name__} {type(self.modules.get(parent)).__name__}"
        if not (_ROUTER.search(classes) or _ROUTER_ATTRIBUTE.search(leaf)):
            return False
        blocks = (path, parent, parent.rpartition(".")[0])  # the experts may be two levels up
        count = next(filter(None, map(self._experts_in, blocks)), None)
        return count is not None and (count in parameter.shape or 1 in parameter.shape)

    def _experts_in(self, path: str) -> int | None:
        """Number of experts among the children of a module."""
        for name, child in self.modules[path].named_children():
            if self._is_list_of_experts(name, child):
                return len(child)
            if _EXPERTS.search(type(child).__name__):
                counts = [p.shape[0] for p in child.parameters(recurse=False) if p.ndim == 3]
                counts += [getattr(child, attribute, None) for attribute in ("num_experts", "moe_num_experts")]
                if any(counts):
                    return int(next(count for count in counts if count))
        return None

    def _is_list_of_experts(self, path: str, module: Any) -> bool:
        return path.rpartition(".")[2] == "experts" and isinstance(module, self._lists)

    def _is_norm(self, owner: Any) -> bool:
        """Whether a module scales what it normalises, and does nothing else."""
        if isinstance(owner, self._norms):
            return True
        other = isinstance(owner, (self._embedding, self._linear, self._convolution))
        children = any(True for child in owner.children() for _ in child.parameters())
        return not other and not children and bool(_NORM.search(type(owner).__name__))

    def _is_position(self, owner: Any, leaf: str) -> bool:
        if isinstance(owner, self._linear):  # it computes positions; a table of them is looked up or added
            return False
        return bool(_POSITION.search(type(owner).__name__) or _POSITION_ATTRIBUTE.search(leaf))


def flattened_experts(owner: Any, shape: tuple[int, ...]) -> int | None:
    """Number of experts in a 2-D parameter of shape (experts * rows, cols); None if the owner does not say."""
    count = getattr(owner, "moe_num_experts", None)
    return int(count) if count and len(shape) == 2 and shape[0] % int(count) == 0 else None
