"""Which extra of the package brings which library."""

EXTRAS = {
    "filelock": "app",
    "matplotlib": "app",
    "rich": "app",
    "safetensors": "app",
    "tokenizers": "app",
    "typer": "app",
    "hypothesis": "conformance",
    "torch": "torch",
    "triton": "gpu",
}


def remedy(error: ImportError) -> str | None:
    """Return in one line which extra brings the library that an import missed; None if no extra does."""
    library = (error.name or "").partition(".")[0]
    if library not in EXTRAS:
        return None
    return f"{library} isn't installed; pip install 'mamba-integer[{EXTRAS[library]}]' brings it"
