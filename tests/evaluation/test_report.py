"""The report: what it says is what was measured, anything may be in it, and it needs nothing from elsewhere."""

import json
import re
import warnings
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from rocbert_hf.attackers import AdvAttacker, ArgotAttacker, AttackerSpec, Example, TextFoolerAttacker
from rocbert_hf.evaluation import RobustnessEvaluator
from rocbert_hf.evaluation.report import charts
from rocbert_hf.evaluation.report.content import Groups

NASTY = "<script>alert(1)</script>|*a*|$x^2_\\"
NASTY_NUMBER = "5 [<script>alert(2)</script>]"  # looks like a number with its interval


def shaky(queries):
    """Calls anything positive that has a 好 in it, or a 很 and no 不."""
    positive = np.array([0.9 if "好" in text or ("很" in text and "不" not in text) else 0.2 for text in queries])
    return np.stack([1 - positive, positive], axis=1)


def constant(queries):
    return np.tile([0.4, 0.6], (len(queries), 1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    good = [f"这家<b>店</b>的服务很好，房间也不错{i}" for i in range(6)]
    bad = [f"房间太小，味道难闻，再也没有下次了{i}" for i in range(6)]
    examples = [Example(text, 1) for text in good] + [Example(text, 0) for text in bad]
    models = {"shaky": shaky} | dict.fromkeys((NASTY, NASTY_NUMBER), constant)
    attackers = list(map(AttackerSpec.parse, ["adv", "argot", "adv:phonetic", "argot@0.1", "argot@0.3"]))
    evaluator = RobustnessEvaluator(models, attackers, {"评论/1": examples}, folder, resamples=50, progress=False)
    evaluator.run()
    return folder


class Tags(HTMLParser):
    VOID = ("meta", "img", "br")

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.links = [], [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_escaped_and_self_contained(folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(page)
    assert not tags.open
    assert "script" not in tags.seen
    assert tags.seen.count("b") == page.count("<b>")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "[&lt;script&gt;alert(2)&lt;/script&gt;]" in page
    assert "这家&lt;b&gt;" in page
    assert tags.links
    assert all(link.startswith("data:image/png;base64,") for link in tags.links)
    assert "http" not in page.replace("https-", "")
    assert "ruby" in tags.seen


def test_charts_are_pictures_beside_the_page(folder):
    charts = sorted(file.name for file in folder.glob("*.png"))
    assert charts == ["accuracy-评论-1.png", "attacks-评论-1.png", "ratio-评论-1-argot.png"]
    for name in charts:
        image = np.asarray(Image.open(folder / name).convert("L"))
        assert image.shape[0] > 300
        assert image.std() > 10  # not blank
        assert name in (folder / "report.md").read_text(encoding="utf-8")


def test_tables_hold_the_numbers_of_the_report(folder):
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    lines = (folder / "report.md").read_text(encoding="utf-8").splitlines()
    (row,) = [line for line in lines if line.startswith("| shaky |")][:1]
    numbers = [float(number) for number in re.findall(r"\| \**([0-9.]+)\**", row)]
    of = [report["clean"]["评论/1"], *(report["attacked"]["评论/1"][name] for name in ("adv", "argot"))]
    assert numbers == pytest.approx([100 * scores["shaky"]["accuracy"]["value"] for scores in of], abs=0.05)
    for line, following in pairwise(lines):
        if line.startswith("|") and following.startswith("|"):  # of one table
            assert line.replace("\\|", "").count("|") == following.replace("\\|", "").count("|")
    assert not any("<script>" in line for line in lines if not line.startswith("    "))  # but for the settings, as code


def test_attackers_of_any_name_and_one_resample_still_make_a_report(tmp_path):
    examples = [Example(f"这家店的服务很好，房间也不错{i}", 1) for i in range(3)] + [Example("味道难闻", 0)]
    names = ["argot@small", "@0.1", "argot@0.1", "adv:split"]  # the user's own: not taken apart
    attackers = {name: AdvAttacker() for name in names} | {AttackerSpec("argot", ratio=0.2): AdvAttacker()}
    evaluator = RobustnessEvaluator({"m": constant}, attackers, {"d": examples}, tmp_path, resamples=1, progress=False)
    groups = Groups.of(evaluator.run())
    assert groups == Groups(tuple(names), {"argot": ((0.2, "argot@0.2"),)}, {})
    assert sorted(file.name for file in tmp_path.glob("*.png")) == ["accuracy-d.png", "ratio-d-argot.png"]


def test_the_time_it_took_is_kept_apart(folder):
    timing = json.loads((folder / "timing.json").read_text(encoding="utf-8"))
    assert {cell["attacker"] for cell in timing} == {"adv", "argot", "adv:phonetic", "argot@0.1", "argot@0.3"}
    assert all(cell["examples"] == 12 and cell["seconds"] >= 0 and cell["queries"] >= 12 for cell in timing)
    assert "seconds" not in (folder / "report.json").read_text(encoding="utf-8")


def opening_of(folder, models, attackers, examples):
    RobustnessEvaluator(models, attackers, {"d": examples}, folder, resamples=10, progress=False).run()
    lines = (folder / "report.md").read_text(encoding="utf-8").split("\n\n")
    return lines[: lines.index("## d: 4 texts, 2 labels")]


PAIRED = [
    Example("这家店的服务很好", 1),
    Example("房间很漂亮", 1),
    Example("味道难闻", 0),
    Example("再也没有下次了", 0),
]


def test_the_first_lines_warn_of_a_constant_classifier(tmp_path):
    warning = "Careful: m gives every text of d the label 1."
    opening = opening_of(tmp_path / "constant", {"m": constant}, [AttackerSpec("argot")], PAIRED)
    assert opening[1].startswith(warning)
    assert f"<li>{warning}" in (tmp_path / "constant" / "report.html").read_text(encoding="utf-8")
    assert not any(
        "Careful" in line for line in opening_of(tmp_path / "m", {"m": shaky}, [AttackerSpec("adv")], PAIRED)
    )


def test_the_first_lines_tell_of_an_attacker_without_candidates(tmp_path):
    attackers = {AttackerSpec("textfooler"): TextFoolerAttacker(synonyms=lambda word: ())}
    opening = opening_of(tmp_path, {"m": shaky}, attackers, PAIRED)
    found = [line for line in opening if "textfooler found nothing that it could change in 4 of 4 attacks on d" in line]
    assert "(--synonyms)" in found[0].replace("\\", "")
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["attacked"]["d"]["textfooler"]["m"]["without_candidates"] == 4


def test_an_attacker_with_a_ratio_alone_stands_with_the_others(tmp_path):
    nothing, argot = TextFoolerAttacker(synonyms=lambda word: ()), AttackerSpec("argot", ratio=0.3)
    attackers = {AttackerSpec("adv"): nothing, argot: ArgotAttacker()}
    opening = "".join(opening_of(tmp_path, {"m": shaky}, attackers, PAIRED))
    assert "under its worst attacker, argot@0.3" in opening
    took = (tmp_path / "report.md").read_text(encoding="utf-8").split("### What the attacks took")[1]
    assert "| argot@0.3 | m |" in took.split("###")[0]


def test_the_first_lines_tell_of_a_variant_that_is_worse_or_has_no_candidates(tmp_path):
    nothing, split = TextFoolerAttacker(synonyms=lambda word: ()), AttackerSpec("adv", attack="split")
    worse = "".join(
        opening_of(tmp_path / "a", {"m": shaky}, {AttackerSpec("adv"): nothing, split: ArgotAttacker()}, PAIRED)
    )
    assert re.search(
        r"worst attacker, adv, on 100.0% \(0.0% of the attacks succeed\), and under the variant adv:split on ", worse
    )
    better = "".join(
        opening_of(tmp_path / "b", {"m": shaky}, {AttackerSpec("adv"): ArgotAttacker(), split: nothing}, PAIRED)
    )
    assert "variant" not in better
    assert "Careful: adv:split (4 of 4) found nothing to change" in better


def test_missing_typefaces_are_said_once(tmp_path, monkeypatch):
    attackers = [AttackerSpec("adv"), AttackerSpec("adv", attack="split")]
    evaluator = RobustnessEvaluator({"模型": shaky}, attackers, {"d": PAIRED}, tmp_path, resamples=10, progress=False)
    for fonts, count in (((), 1), (("DejaVu Sans",), 0)):  # as if that one had Chinese characters
        monkeypatch.setattr(charts, "CJK_FONTS", fonts)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            evaluator.run()
        said = [str(warning.message) for warning in caught if "boxes" in str(warning.message)]
        assert len(said) == count
        assert not any("Glyph" in str(warning.message) for warning in caught)
    assert all("fonts-noto-cjk" in line for line in said)


def test_the_share_that_was_attacked_stands_beside_each_ratio(folder):
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    lines = (folder / "report.md").read_text(encoding="utf-8").splitlines()
    at = lines.index("### By share of the characters attacked: argot")
    rows = [line for line in lines[at:] if line.startswith("| shaky |")][1]
    numbers = [float(number) for number in re.findall(r"\| ([0-9.]+) ", rows)]
    expected = [
        100 * report["attacked"]["评论/1"][name]["shaky"]["attempted_share"]["value"]
        for name in ("argot@0.1", "argot@0.3")
    ]
    assert numbers == pytest.approx(expected, abs=0.05)
