"""The version of the specification: raised whenever a clause changes an integer of any op."""

SPEC_VERSION = "0.5.0"
