"""The parameters a trainer will see, and the matrices inside each. Knows nothing of singular values."""

from spectrum.naming.classes import auto_classes
from spectrum.naming.experts import sample_experts
from spectrum.naming.identity import identity_parameters
from spectrum.naming.parameters import RANKED, Kind, Matrix, Parameter, layer, module_type, natural_key
from spectrum.naming.runtime import Naming, name_parameters
from spectrum.naming.scope import Scope, common_prefix, match_module_types, split_by_scope

__all__ = [
    "RANKED", "Kind", "Matrix", "Naming", "Parameter", "Scope", "auto_classes", "common_prefix", "identity_parameters",
    "layer", "match_module_types", "module_type", "name_parameters", "natural_key", "sample_experts",
    "split_by_scope",
]  # fmt: skip
