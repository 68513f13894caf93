"""A score is the largest distance above clean encoders, and a calibration survives its file."""

import json

import pytest

from rocbert_hf.security import Calibration
from rocbert_hf.security.audit_report import STAGE_NAMES, VIEW_NAMES

CLEAN = [{"token:first": 0.0, "token:mean": -1.0}, {"token:first": 0.4, "token:mean": -1.0}, {"token:first": 0.2}]


def test_scores_count_standard_deviations_of_clean_encoders():
    calibration = Calibration.from_clean(CLEAN)
    assert calibration.center["token:first"] == pytest.approx(0.2)
    assert calibration.score({"token:first": 0.2}) == pytest.approx(0)
    spread = (0.08 / 3) ** 0.5
    assert calibration.score({"token:first": 0.2 + 5 * spread, "token:mean": -1}) == pytest.approx(5)
    # statistics that hardly vary have the smallest scale
    assert calibration.score({"token:mean": -0.7}) == pytest.approx(2)


def test_an_encoder_that_stands_out_widens_the_scale_so_that_it_is_clean_by_1():
    many = [{"a": value} for value in (0.0, 0.1) * 20]
    alone = Calibration.from_clean(many)
    wide = Calibration.from_clean([*many, {"a": 2.0}])
    assert alone.score({"a": 2.0}) > 10
    assert wide.score({"a": 2.0}) == pytest.approx(3)
    assert wide.score({"a": 3.0}) > 4
    with pytest.raises(ValueError, match="threshold must be more than 1, got 1"):
        Calibration.from_clean(many, threshold=1)


def test_the_middle_is_the_mean_and_only_the_largest_deviation_upwards_counts():
    skewed = Calibration.from_clean([{"a": 0.0, "b": 0.0}, {"a": 0.0, "b": 0.0}, {"a": 3.0, "b": 0.0}])
    assert skewed.center["a"] == pytest.approx(1)
    calibration = Calibration({"a": 1.0, "b": 1.0}, {"a": 0.5, "b": 0.25}, 4.0)
    assert calibration.score({"a": 2.0, "b": 2.0}) == 4
    assert calibration.score({"a": -9.0, "b": 0.5}) == -2


def test_a_reference_takes_the_place_of_the_mean():
    calibration = Calibration.from_clean(CLEAN, made_of="3 encoders").around({"token:first": 1.0}, "clean-bert")
    assert calibration.score({"token:first": 1.0}) == 0
    assert "clean-bert" in calibration.made_of
    assert "3 encoders" in calibration.made_of


def test_saved_and_loaded(tmp_path):
    calibration = Calibration.from_clean(CLEAN, made_of="三")
    calibration.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json") == calibration


def test_the_packaged_calibration_knows_every_statistic():
    packaged = Calibration.packaged()
    expected = {f"{stage}:{view}" for stage in STAGE_NAMES for view in VIEW_NAMES}
    assert set(packaged.center) == set(packaged.scale) == expected
    assert "clean encoders" in packaged.made_of


@pytest.mark.parametrize(
    "change",
    [
        {"center": {"token:first": "0"}},
        {"center": {}},
        {"scale": [0.2]},
        {"scale": {"token:first": 0}},
        {"threshold": None},
        {"threshold": float("nan")},
        {"made_of": 16},
    ],
)
def test_a_calibration_of_something_else_is_refused_before_the_audit(tmp_path, change):
    content = {"center": {"token:first": 0.0}, "scale": {"token:first": 0.2}, "threshold": 4, "made_of": ""}
    (tmp_path / "c.json").write_text(json.dumps(content))
    assert Calibration.load(tmp_path / "c.json").score({"token:first": 0.4}) == 2
    (tmp_path / "c.json").write_text(json.dumps({**content, **change}))
    with pytest.raises(ValueError, match=r"c\.json is no calibration of the audit"):
        Calibration.load(tmp_path / "c.json")


def test_what_is_no_calibration(tmp_path):
    (tmp_path / "c.json").write_text('{"middle": 3}')
    with pytest.raises(ValueError, match="is no calibration"):
        Calibration.load(tmp_path / "c.json")
    with pytest.raises(ValueError, match="at least 2 encoders, got 1"):
        Calibration.from_clean(CLEAN[:1])
    with pytest.raises(ValueError, match="must have one of"):
        Calibration.from_clean(CLEAN).score({"token:other": 1.0})
