"""The errors of transcripts, one for each way in which a file from a stranger can be wrong."""


class TranscriptError(ValueError):
    """A transcript or an opening that can't be used: names the file, the value found and the value allowed."""


class VersionError(TranscriptError):
    """A transcript of another version of the specification."""


class CountError(TranscriptError):
    """A count that no run has, or a file of another size than its count says."""


class MissingLeafError(TranscriptError):
    """A leaf is left out between two others."""


class RepeatedLeafError(TranscriptError):
    """A leaf stands twice."""


class ReorderedLeafError(TranscriptError):
    """A leaf stands after one that it should precede."""


class TruncatedRunError(TranscriptError):
    """A run has fewer calls than its request asks for."""


class AlteredError(TranscriptError):
    """The hashes of a file don't lead to the root that it names."""


class RequestError(TranscriptError):
    """A request that describes no run, or two transcripts of different requests."""
