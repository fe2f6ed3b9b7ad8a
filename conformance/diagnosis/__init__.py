"""The diagnosis of a failing case: it is made small, and rerun through a catalogue of known mistakes."""
