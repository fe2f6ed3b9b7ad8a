"""JUnit's XML, which CI systems show: a suite for each backend, a test for each op."""

from xml.etree import ElementTree

from mamba_integer.backends.escapes import escaped

from ..render import card_text
from ..report import Report, Result, Text

SKIPPED = ("missing", "skipped", "partial", "known", "not run")


def junit(report: Report) -> bytes:
    """Return the report as XML. Incomplete ops are skipped, with the reason; stale known failures have failed."""
    suites = ElementTree.Element("testsuites")
    for backend in dict.fromkeys(result.backend for result in report.results):
        results = [result for result in report.results if result.backend == backend]
        texts = [text for text in (*report.texts, *report.models) if text.backend == backend]
        statuses = [result.status for result in results] + [text.status for text in texts]
        suite = ElementTree.SubElement(
            suites,
            "testsuite",
            name=legal(backend),
            tests=str(len(statuses)),
            failures=str(sum(status in ("failed", "stale") for status in statuses)),
            skipped=str(sum(status in SKIPPED for status in statuses)),
        )
        for result in results:
            case = ElementTree.SubElement(suite, "testcase", classname=legal(backend), name=result.op)
            add_status(case, result.status, reason_of(result), card_text(result) if result.failure else "")
        for text in texts:
            case = ElementTree.SubElement(suite, "testcase", classname=legal(backend), name=legal(text.source))
            add_status(case, text.status, text.message, differing(text))
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, "utf-8", xml_declaration=True) + b"\n"


def add_status(case: ElementTree.Element, status: str, reason: str, details: str) -> None:
    if status in ("failed", "stale"):
        failure = ElementTree.SubElement(case, "failure", type=status, message=legal(reason or status))
        failure.text = legal(details)
    elif status in SKIPPED:
        ElementTree.SubElement(case, "skipped", message=legal(f"{status}: {reason}" if reason else status))


def reason_of(result: Result) -> str:
    """Return in one line why a result isn't a pass."""
    if result.status == "stale":
        return f"it passes: take it out of the known failures ({result.known})"
    if result.known:
        return result.known
    if result.failure:
        return f"{result.failure.kind}: {result.failure.message}"
    return "; ".join([*result.notes, *(f"{count} cases: {reason}" for reason, count in result.skipped.items())])


def differing(text: Text) -> str:
    return "\n".join(f"{stage}: {text.stages.get(stage, 'none')}, want {want}" for stage, want in text.want.items())


def legal(text: str) -> str:
    return escaped(text, "\t\n")
