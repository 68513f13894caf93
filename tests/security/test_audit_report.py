"""The report of an audit shows names and triggers of a stranger's encoder without being steered by them."""

import json
from dataclasses import replace

from rocbert_hf.security.audit_report import AuditReport, Finding, PulledText

NAME = "evil\x1b[2J\u202e<b>"


def report() -> AuditReport:
    finding = Finding(
        text="x\u200by",
        tokens=("x\u200b", "<i>"),
        view="first",
        pull=2.0,
        deviation=9.0,
        similarity_before=0.1,
        similarity_after=0.9,
        pulled=(PulledText("好", "好x\u200by"),),
        vector=(1.0, 0.0),
    )
    return AuditReport(
        name=NAME,
        score=9.0,
        threshold=4.0,
        verdict="suspicious",
        token_variety=0.5,
        findings=(finding,),
        statistics={"token:first": 2.0},
        deviations={"token:first": 9.0},
        calibrated_on="two encoders",
        marked_as_specimen=False,
        settings={},
        cost={"seconds": 1.0, "tokens": 10, "vocabulary": 5, "words": 3, "resumed": False},
    )


def test_text_and_page_name_what_cannot_be_seen(tmp_path):
    report().save(tmp_path)
    text = (tmp_path / "report.txt").read_text(encoding="utf-8")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not {"\x1b", "\u202e", "\u200b"} & {*text, *page}
    assert "evil<U+001B>[2J<U+202E><b>: suspicious (score 9.0" in text
    assert "<title>Audit of evil&lt;U+001B&gt;[2J&lt;U+202E&gt;&lt;b&gt;</title>" in page
    assert "x&lt;U+200B&gt;y" in page
    assert "strongest single token</td><td>the first token's last hidden state</td><td>2.00</td><td>+9.0<" in page
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["name"] == NAME


def test_an_inconclusive_report_says_why(tmp_path):
    replace(report(), verdict="inconclusive", score=1.0, token_variety=0.012, findings=()).save(tmp_path)
    for name in ("report.txt", "report.html"):
        assert "1.2% of their variance" in (tmp_path / name).read_text(encoding="utf-8")
