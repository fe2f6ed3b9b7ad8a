"""Chains of ops: real text through one block, whole models, and training steps, compared stage by stage."""
