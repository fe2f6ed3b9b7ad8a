"""The environment of a measurement, so that a reader can repeat it: versions, devices, commit, date."""

import datetime
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mamba_integer.spec.version import SPEC_VERSION

from ..processors import cores
from ..protocol import Backend

PACKAGES = ("mamba-integer", "numpy", "numba", "torch", "triton", "hypothesis")


def environment(backends: Sequence[Backend], packages: Sequence[str] = ()) -> dict[str, Any]:
    """Return the versions (of ``packages`` too), devices, commit and date, so that a reader can repeat the run."""
    return {
        "spec_version": SPEC_VERSION,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **commit_here(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {cores()} cores",
        "devices": {backend.name: device_name(backend) for backend in backends},
        "versions": {name: _version(name) for name in (*PACKAGES, *packages)},
    }


def device_name(backend: Backend) -> str:
    if not backend.device.startswith("cuda"):
        return backend.device
    import torch

    return f"{backend.device} ({torch.cuda.get_device_name(backend.device)})"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit_here() -> dict[str, Any]:
    """Return the commit of the checkout that this package is in, if it is in one, and whether tracked files differ."""
    if named := os.environ.get("MAMBA_INTEGER_COMMIT"):
        return {"commit": named, "modified": None}
    if not (commit := _git("rev-parse", "HEAD")) or not _git("ls-files", Path(__file__).name):
        return {"commit": None, "modified": None}
    return {"commit": commit, "modified": bool(_git("status", "--porcelain", "--untracked-files=no"))}


def _git(*arguments: str) -> str:
    """Return the output of git, or nothing where it fails or isn't installed."""
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, timeout=60, cwd=Path(__file__).resolve().parent
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
