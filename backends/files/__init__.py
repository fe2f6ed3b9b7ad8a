"""Files of models, states, runs, tokenizers, texts and traces. A file is whole or absent; reading it runs no code."""
