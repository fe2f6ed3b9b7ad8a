"""The application: the command line, the training loop, inspection and plots."""
