"""The file of measurements: found again by what they depend on, whole lines only."""

from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import EvaluationError
from engine.evaluation.record import FILE, Measurement, Record

ONE = Measurement("cup", "plain", "views", "k1", 0.5, {"psnr_db": 20.5, "lpips": None})


def test_what_was_added_is_found_by_the_next_run(tmp_path: Path) -> None:
    record = Record(tmp_path)
    record.add(ONE)
    record.add(replace(ONE, key="k2", figures={"failed": "nothing"}))
    for one in (record, Record(tmp_path)):
        assert one.find("cup", "plain", "views", "k1") == ONE
        assert one.find("cup", "plain", "views", "k3") is None
        assert one.find("cup", "3d-aware", "views", "k1") is None


def test_a_line_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    record = Record(tmp_path)
    record.add(ONE)
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole + whole[:20])
    again = Record(tmp_path)
    assert (tmp_path / FILE).read_bytes() == whole
    again.add(replace(ONE, uid="mug"))
    assert Record(tmp_path).find("mug", "plain", "views", "k1") is not None


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    Record(tmp_path).add(ONE)
    with (tmp_path / FILE).open("a") as file:
        file.write("{}\n")
    with pytest.raises(EvaluationError, match=r"measurements.jsonl: line 2 is no measurement .*; delete the line, or"):
        Record(tmp_path)
