"""Files of models, states, runs, tokenizers, corpora and traces. A file is whole or absent; reading it runs no code."""
