"""What a package with a model family of its own imports; see samples/own-family/README.md. Nothing else is for it.

The package names its family, an object that is a `Family`, in the entry point group `slmc.families`.
"""

from exporters.artifact.errors import SlmcError
from exporters.ops.channels import delta_rule, linear_recurrence, plif
from exporters.ops.recurrences import spike
from exporters.states import StateSpec
from toolchain.model.config import count_layers, matrix, without_wrappers
from toolchain.model.family import Family, LanguageModel, ModelOptions, Shapes
from toolchain.model.foreign_neurons import NeuronLaw, Neurons, neurons_of
from toolchain.model.options import Config, Option, OptionTable, between, flag, one_of, positive, whole
from toolchain.model.table_family import TableFamily
from toolchain.model.tree import ModelTree, grown_tree

__all__ = [
    "Config", "Family", "LanguageModel", "ModelOptions", "ModelTree", "NeuronLaw", "Neurons", "Option", "OptionTable",
    "Shapes", "SlmcError", "StateSpec", "TableFamily", "between", "count_layers", "delta_rule", "flag", "grown_tree",
    "linear_recurrence", "matrix", "neurons_of", "one_of", "plif", "positive", "spike", "whole", "without_wrappers",
]  # fmt: skip
