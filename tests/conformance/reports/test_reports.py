"""Reports of a run: known failures go stale, and the badge, the XML and the page execute nothing."""

import io
import json
import re
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mamba_integer import spec
from mamba_integer.backends import Backend
from mamba_integer.backends.app.main import main
from mamba_integer.backends.app.terminal import LiteralConsole
from mamba_integer.conformance.engine.cases import extreme_cases
from mamba_integer.conformance.engine.comparison import Failure
from mamba_integer.conformance.render import show_report
from mamba_integer.conformance.report import Report, Result, Text
from mamba_integer.conformance.reports.badge import badge
from mamba_integer.conformance.reports.junit import junit, legal
from mamba_integer.conformance.reports.known import Known, KnownFailuresError, apply_known, read_known
from mamba_integer.conformance.reports.page import page

STRANGER = Path(__file__).parents[2] / "backends/programs/stranger.py"
EVIL = "<script>alert(1)</script>\x00\x1b[2J\ud800'\""


def result(op: str, status: str, **fields) -> Result:
    passed = {"groups": Counter(drawn=3), "integers": 9} if status in ("passed", "partial") else {}
    return Result(op, "mine", status=status, **passed | fields)


def full_report() -> Report:
    failure = Failure(Backend("mine", None), next(extreme_cases("isqrt")), "crash", EVIL)
    results = [
        result("isqrt", "failed", failure=failure),
        result("saturate", "passed"),
        result("argmax", "partial", skipped=Counter({EVIL: 2})),
        result("sample", "missing"),
        result("rope", "skipped", skipped=Counter({"no memory": 5})),
    ]
    return Report(results, [Text("mine", EVIL, "failed", EVIL, {"norm": "ab"}, {"norm": "cd", "scan": "ef"})])


@pytest.mark.parametrize(
    ("status", "becomes", "code"),
    [("failed", "known", 0), ("missing", "known", 0), ("partial", "known", 0), ("passed", "stale", 1)],
)
def test_known_failures(status, becomes, code):
    report = Report([result("isqrt", status), result("saturate", "passed")])
    others = [Known("rope", "", "not selected"), Known("saturate", "other", "x")]
    apply_known(report, [Known("isqrt", "", "issue 3"), *others])
    assert [one.status for one in report.results] == [becomes, "passed"]
    assert report.exit_code == code and report.results[0].known == "issue 3"


def test_known_failures_alone_are_no_pass():
    report = Report([result("isqrt", "failed")])
    apply_known(report, [Known("isqrt", "mine", "issue 3")])
    assert report.exit_code == 1, "nothing was compared"


def test_what_did_not_run_is_not_known():
    report = Report([result("isqrt", "not run"), result("saturate", "passed")])
    apply_known(report, [Known("isqrt", "", "issue 3")])
    assert report.results[0].status == "not run" and report.exit_code == 1


def test_lines_of_known_failures(tmp_path):
    """Newlines alone end lines, and a byte order mark is passed over, as in other files."""
    path = tmp_path / "known"
    comment = "\ufeff# comment\x0csqrt: more of the comment\n\n"
    path.write_text(f"{comment}isqrt: off by one: see issue 3\r\nargmax on command:./mine --fast: ties\n")
    assert read_known(path) == [
        Known("isqrt", "", "off by one: see issue 3"),
        Known("argmax", "command:./mine --fast", "ties"),
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"sqrt: x", "'sqrt' is no op"),
        (b"isqrt", "no reason"),
        (b"isqrt: ", "no reason"),
        (b"\xff", "not UTF-8"),
        (b"#" * (1 << 20) + b"##", "found 1048578 bytes, allowed 1048576"),
    ],
)
def test_bad_known_failures(content, says, tmp_path):
    (tmp_path / "known").write_bytes(content)
    with pytest.raises(KnownFailuresError, match=says):
        read_known(tmp_path / "known")


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_any_text_of_known_failures_is_read_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("known") / "known"
    path.write_text(text, errors="surrogatepass")
    try:
        read_known(path)
    except KnownFailuresError as error:
        assert str(path) in str(error)


def test_the_badge_counts_ops():
    assert badge(full_report())["color"] == "red"
    assert badge(Report([result("isqrt", "passed")]))["color"] == "yellow"
    whole = badge(Report([result(op, "passed") for op in spec.OPS]))
    assert whole["color"] == "brightgreen" and whole["schemaVersion"] == 1
    count = len(spec.OPS)
    assert re.fullmatch(
        rf"{count} of {count} ops, spec {re.escape(spec.SPEC_VERSION)}, root [0-9a-f]{{8}}", whole["message"]
    )


def test_xml_says_what_failed_and_what_was_left_out():
    (suite,) = ElementTree.fromstring(junit(full_report()))
    assert suite.attrib | {"tests": "6", "failures": "2", "skipped": "3"} == suite.attrib
    failed, passed, partial, *_ = suite
    assert failed.find("failure").get("message").startswith("crash: <script>")
    assert "mamba-integer compare --op isqrt" in failed.find("failure").text
    assert not list(passed) and partial.find("skipped").get("message").startswith("partial: 2 cases: ")
    assert "scan: none, want ef" in suite[-1].find("failure").text


def hostile_report() -> Report:
    """Return a report in which each text that a stranger may choose is hostile."""
    report = full_report()
    for one in report.results:
        one.backend = one.device = EVIL
        one.notes.append(EVIL)
        one.known = EVIL if one.status == "partial" else ""
        if one.failure:
            one.failure.backend = replace(one.failure.backend, name=EVIL, device=EVIL)
            one.failure.purpose = one.failure.variant = EVIL
    for text in report.texts:
        text.backend, text.want[EVIL], text.stages[EVIL] = EVIL, EVIL, EVIL
    return report


def plain(text: str) -> bool:
    return all(c.isprintable() or c in "\n\t" for c in text)


@pytest.mark.parametrize("terminal", [False, True])
def test_no_text_of_a_stranger_reaches_a_terminal_as_it_is(terminal):
    file = io.StringIO()
    show_report(LiteralConsole(file=file, width=200, force_terminal=terminal, color_system=None), hostile_report())
    assert plain(file.getvalue())
    assert file.getvalue().count(r"\x00\x1b[2J\ud800") > 10


def test_no_report_holds_the_text_of_a_stranger_as_it_is():
    report = hostile_report()
    for text in (junit(report).decode(), page(report, {"seed": EVIL})):
        assert plain(text) and text.count(r"\x00\x1b[2J\ud800") > 10


@given(st.text())
def test_text_of_strangers_is_legal_xml(text):
    ElementTree.fromstring(f"<a>{legal(text).replace('&', '').replace('<', '')}</a>")


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        assert not {name for name, _ in attributes} & {"src", "href", "onload", "onclick", "style"}


def test_the_page_is_whole_and_runs_nothing():
    text = page(full_report(), {"preset": EVIL, "environment": {"machine": EVIL}})
    tags = Tags()
    tags.feed(text.encode(errors="replace").decode())
    assert not {"script", "link", "img", "iframe"} & set(tags.seen)
    assert tags.seen.count("table") == 3 and tags.seen.count("pre") == 1
    assert "http" not in text and "FAILED: " in text and "&lt;script&gt;" in text


def command(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["mamba-integer", *arguments])
    with pytest.raises(SystemExit) as exit:
        main()
    out, err = capsys.readouterr()
    return exit.value.code, out, err


def test_one_run_writes_all(tmp_path, monkeypatch, capsys):
    known = tmp_path / "known"
    known.write_text("isqrt: it skips what is large\n")
    program = f"{sys.executable} {STRANGER}"
    files = {name: tmp_path / name for name in ("report", "html", "junit", "badge")}
    options = [part for name, path in files.items() for part in (f"--{name}", str(path))]
    code, out, _ = command(
        monkeypatch, capsys, "conform", "--command", program, "--implemented", "--preset", "smoke", *options
    )
    assert code == 1 and "cases skipped: more than 64 integers" in out and "1 partial" in out
    (only,) = json.loads(files["report"].read_text())["results"]
    assert only["op"] == "isqrt" and only["status"] == "partial"
    assert only["skipped"]["more than 64 integers"] > 1 and only["cases"] > 5
    assert "partial" in files["html"].read_text() and json.loads(files["badge"].read_text())["color"] == "red"
    assert ElementTree.parse(files["junit"]).getroot()[0].get("skipped") == "1"
    code, out, _ = command(
        monkeypatch, capsys, "conform", "--command", program, "--implemented", "--preset", "smoke",
        "--known-failures", str(known),
    )  # fmt: skip
    assert code == 0 and "known: it skips what is large" in out


def test_usage_errors_come_before_the_run(tmp_path, monkeypatch, capsys):
    for options in (
        ["--known-failures", str(tmp_path / "none")],
        ["--html", str(tmp_path / "no/folder")],
        ["--junit", str(tmp_path)],
        ["--command", "/no/such/program"],
    ):
        code, out, err = command(monkeypatch, capsys, "conform", "--op", "isqrt", *options)
        assert code == 2 and not out and err.count("\n") == 1


def test_a_failing_program_is_explained_in_every_report(tmp_path, monkeypatch, capsys):
    source = STRANGER.read_text().replace("math.isqrt(value)", "math.isqrt(value) + (value == 49)")
    (tmp_path / "wrong.py").write_text(source)
    report = tmp_path / "report"
    program = f"{sys.executable} {tmp_path}/wrong.py"
    command(monkeypatch, capsys, "conform", "--command", program, "--op", "isqrt", "--report", str(report))
    case = '{"op":"isqrt","parameters":{},"inputs":[{"dtype":"int32","shape":[1],"data":"49"}]}'
    backends = f"golden,command:{program}"
    code, out, _ = command(monkeypatch, capsys, "compare", "--op", "isqrt", "--backends", backends, "--case", case)
    assert code == 1 and "v = [49]" in out and "0x00000008" in out
    code, script, _ = command(
        monkeypatch, capsys, "vectors", "reproduce", "--backend", f"command:{program}", "--case", case
    )
    assert code == 0 and len(script.splitlines()) <= 20
    exec(compile(script, "script", "exec"), {})
    assert capsys.readouterr().out == "r got [8] want [7]\n"
