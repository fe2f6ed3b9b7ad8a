"""Training with integers alone: the step as a pure function of state and batch, its options and its proof."""

from .backward import ExponentError
from .masters import initial_masters, masters_of, project
from .options import Options, OptionsError
from .proof import prove_step
from .step import Alone, Metrics, Run, State, initial_state, train_step
