"""What a parameter is, decided by the module that owns it."""

import re
from typing import Any

from spectrum.naming.embeddings import embeddings_of
from spectrum.naming.parameters import Kind

# Words in the names of classes and attributes of transformers 5.23. They decide only between classes that have no
# common base: most norms, experts and routers are plain modules.
_EXPERTS = re.compile(r"Expert")
_ROUTER = re.compile(r"Router|Gating|TopK|Gate\b")
_ROUTER_ATTRIBUTE = re.compile(r"(^|_)(gate|router|gating)$")
_POSITION = re.compile(r"Position|RelPos")
_POSITION_ATTRIBUTE = re.compile(r"position|pos_emb|^wpe$|relative_attention_bias|rel_pos")
_NORM = re.compile(r"Norm(?![a-z])")  # LlamaRMSNorm and MambaRMSNormGated, not InklingNormedEmbedding


class Owners:
    """The modules of a model, asked for the kind of its parameters."""

    def __init__(self, model: Any) -> None:
        import torch  # noqa: PLC0415 - costs a second

        self._nn = torch.nn
        self._modules = dict(model.named_modules(remove_duplicate=False))
        self._embeddings = embeddings_of(model)

    def module(self, path: str) -> Any:
        """The module at a path."""
        return self._modules[path]

    def expert_lists(self) -> list[str]:
        """Paths of the lists that hold one module per expert."""
        lists = (self._nn.ModuleList, self._nn.ModuleDict)
        return [path for path, module in self._modules.items() if _is_experts(path) and isinstance(module, lists)]

    def kind(self, name: str, parameter: Any) -> Kind:
        """Kind of a parameter of the model."""
        path, _, attribute = name.rpartition(".")
        if ".parametrizations." in path:  # weight norm: the module is the one that is parametrized
            path, _, attribute = path.rpartition(".parametrizations.")
        owner = self._modules[path]
        found = self._embeddings.kind(owner, parameter)
        if found is not None:
            return found
        if self._is_norm(owner):
            return "norm"
        if attribute == "bias" or attribute.endswith("_bias"):
            return "bias"
        if isinstance(owner, self._nn.modules.conv._ConvNd):  # noqa: SLF001 - the common base of all convolutions
            return "convolution"
        if parameter.ndim < 2:
            return "vector"
        return self._kind_of_array(path, attribute, parameter)

    def experts(self, path: str) -> int | None:
        """Number of experts in the block that a module stands in, at most two levels up; None outside such a block."""
        for _ in range(3):
            count = self._experts_in(path)
            if count is not None:
                return count
            path = path.rpartition(".")[0]
        return None

    def _kind_of_array(self, path: str, attribute: str, parameter: Any) -> Kind:
        """Kind of what has two axes or more."""
        owner = self._modules[path]
        if self._is_position(owner, path.rpartition(".")[2] if attribute == "weight" else attribute):
            return "position"
        if isinstance(owner, self._nn.Embedding):
            return "lookup"
        return self._kind_of_weight(path, attribute, parameter)

    def _kind_of_weight(self, path: str, attribute: str, parameter: Any) -> Kind:
        """Kind of an array that is neither looked up nor added."""
        owner = self._modules[path]
        if self.holds_experts(path, parameter):
            return "experts"
        if parameter.ndim > 2:
            return "other"
        if self._routes(path, parameter):
            return "router"
        if 1 in parameter.shape:
            return "vector"
        linear = isinstance(owner, self._nn.Linear) or type(owner).__name__ == "Conv1D"
        return "matrix" if linear or attribute == "weight" or attribute.endswith("_weight") else "other"

    def holds_experts(self, path: str, parameter: Any) -> bool:
        """Whether a parameter is a stack of experts: 3-D, or flattened to (experts * rows, cols) as dbrx does."""
        owner = self._modules[path]
        if not _EXPERTS.search(type(owner).__name__):
            return False
        return parameter.ndim == 3 or (parameter.ndim == 2 and flattened_experts(owner, parameter.shape) is not None)

    def _routes(self, path: str, parameter: Any) -> bool:
        owner, leaf = self._modules[path], path.rpartition(".")[2]
        parent = self._modules.get(path.rpartition(".")[0])
        classes = f"{type(owner).__name__} {type(parent).__name__}"
        if parameter.ndim != 2 or not (_ROUTER.search(classes) or _ROUTER_ATTRIBUTE.search(leaf)):
            return False
        count = self.experts(path)
        return count is not None and (count in parameter.shape or 1 in parameter.shape)

    def _experts_in(self, path: str) -> int | None:
        """Number of experts among the children of a module."""
        for name, child in self._modules[path].named_children():
            if _is_experts(name) and isinstance(child, (self._nn.ModuleList, self._nn.ModuleDict)):
                return len(child)
            if _EXPERTS.search(type(child).__name__):
                counts = [p.shape[0] for p in child.parameters(recurse=False) if p.ndim == 3]
                counts += [getattr(child, attribute, None) for attribute in ("num_experts", "moe_num_experts")]
                if any(counts):
                    return int(next(count for count in counts if count))
        return None

    def _is_norm(self, owner: Any) -> bool:
        """Whether a module scales what it normalises, and does nothing else."""
        if isinstance(owner, (self._nn.LayerNorm, self._nn.GroupNorm, self._nn.RMSNorm)):
            return True
        other = isinstance(owner, (self._nn.Embedding, self._nn.Linear, self._nn.modules.conv._ConvNd))  # noqa: SLF001
        children = any(True for child in owner.children() for _ in child.parameters())
        return not other and not children and bool(_NORM.search(type(owner).__name__))

    def _is_position(self, owner: Any, leaf: str) -> bool:
        if isinstance(owner, self._nn.Linear):  # computes positions; a table of them is looked up or added
            return False
        return bool(_POSITION.search(type(owner).__name__) or _POSITION_ATTRIBUTE.search(leaf))


def flattened_experts(owner: Any, shape: tuple[int, ...]) -> int | None:
    """Number of experts in a 2-D parameter of shape (experts * rows, cols); None where the owner does not tell."""
    count = getattr(owner, "moe_num_experts", None)
    return int(count) if count and shape[0] % int(count) == 0 else None


def _is_experts(path: str) -> bool:
    return path.rpartition(".")[2] == "experts"
