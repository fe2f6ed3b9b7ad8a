"""The language model: config, parameters, state, and the model itself. Composes ops, computes nothing."""

from .config import CONFIGS, ConfigError, ModelConfig, find_config
from .formats import FORMATS, Formats, parameter_formats, state_formats
from .initial import initial_parameters
from .language_model import LanguageModel
from .proof import ProofError, formats_table, prove
from .state import State, join
