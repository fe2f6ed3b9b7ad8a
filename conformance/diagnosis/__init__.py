"""Why a case fails: the case made small, and rerun through a catalogue of variants that are known to be wrong."""
