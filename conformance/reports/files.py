"""The files that a run writes: its report as JSON, a page, JUnit's XML, a badge."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mamba_integer.backends.files.atomic import write_atomically, write_json

from ..report import Report
from .junit import junit
from .page import page


@dataclass(frozen=True)
class Files:
    """Paths by option, None for a file that nobody asked for."""

    report: Path | None
    html: Path | None
    junit: Path | None
    badge: Path | None

    def write_report(self, report: Report, about: dict[str, Any]) -> None:
        if self.report:
            write_json(self.report, report.to_dict() | about)

    def write(self, report: Report, about: dict[str, Any]) -> None:
        """Write all files, each whole."""
        self.write_report(report, about)
        if self.html:
            write_atomically(self.html, page(report, about).encode(errors="replace"))
        if self.junit:
            write_atomically(self.junit, junit(report))
        if self.badge:
            from .badge import badge  # it reads vectors, and loads what runs cases

            write_json(self.badge, badge(report))
