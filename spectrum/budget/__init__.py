"""Memory of training: weights, gradients, optimizer state and activations, by arithmetic alone."""

from spectrum.budget.activations import Dimensions, activation_bytes, dimensions
from spectrum.budget.budget import Memory, Setup, largest_that_fits, memory
from spectrum.budget.optimizers import OptimizerName
from spectrum.budget.report import Limit, Report, make_report
from spectrum.budget.sharding import Precision, Sharding
from spectrum.budget.sizes import parse_size, show_size
from spectrum.budget.weights import Weight, all_names, model_weights, with_lora

__all__ = [
    "Dimensions", "Limit", "Memory", "OptimizerName", "Precision", "Report", "Setup", "Sharding", "Weight",
    "activation_bytes", "all_names", "dimensions", "largest_that_fits", "make_report", "memory", "model_weights",
    "parse_size", "show_size", "with_lora",
]  # fmt: skip
