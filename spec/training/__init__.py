"""Training with integers alone: the step as a pure function, data order, checkpoints, and the loop that resumes."""

from .backward import ExponentError
from .checkpoint import Training, TrainingError, load_training, origin_masters, read_training, save_training
from .data import Corpus, CorpusError, prepare_corpus
from .loop import Habits, Step, train
from .masters import initial_masters, masters_of, project
from .options import Options, OptionsError
from .proof import prove_step
from .step import Alone, Metrics, Run, State, initial_state, train_step
