"""Means, standard errors, paired differences: against arithmetic by hand."""

import math

import pytest

from engine.evaluation.report import ALL, Results, summarised, table_of
from engine.evaluation.statistics import Mean, differences, mean_of, means


def test_mean_and_standard_error() -> None:
    found = mean_of([1.0, 2.0, 6.0])
    assert found is not None
    assert (found.mean, found.count) == (3.0, 3)
    assert found.error == pytest.approx(math.sqrt(7 / 3))  # variance (4 + 1 + 9) / 2, of three
    assert mean_of([4.0]) == Mean(4.0, None, 1)
    assert mean_of([]) is None


def test_objects_without_a_figure_are_left_out_of_its_mean_alone() -> None:
    objects = {"a": {"psnr_db": 10.0, "iou": None}, "b": {"psnr_db": 20.0, "iou": 0.5}, "c": {"psnr_db": 99.0}}
    found = means(objects, ["a", "b"])
    assert (found["psnr_db"].mean, found["psnr_db"].count) == (15.0, 2)
    assert found["iou"] == Mean(0.5, None, 1)


def test_paired_differences_cancel_what_objects_share() -> None:
    hard, easy = 10.0, 40.0
    better = {"a": {"psnr_db": hard + 0.5}, "b": {"psnr_db": easy + 0.7}, "only here": {"psnr_db": 0.0}}
    plain = {"a": {"psnr_db": hard}, "b": {"psnr_db": easy}}
    found = differences(better, plain, ["a", "b", "only here"])["psnr_db"]
    assert found.mean == pytest.approx(0.6)
    assert found.error == pytest.approx(0.1)  # half of the 0.2 between them, however far the objects are apart
    assert found.count == 2


def summary_of_two() -> tuple[Results, dict]:
    results = Results()
    for uid, level in (("a", 20.0), ("b", 22.0)):
        for subject, gain in (("plain", 0.0), ("3d-aware", 0.5), ("input view repeated", -1.0)):
            figures = {"psnr_db": level + gain, "ssim": 0.9, "lpips": None}
            results.put(subject, "views", uid, {"novel": figures, "paper": figures | {"psnr_db": None}})
    results.put("plain", "cross-view", "a", {"failed": "a: the views show nothing"})
    groups = {ALL: ["a", "b"], "labels unseen in training": ["b"]}
    return results, summarised(results, groups, ["plain", "3d-aware"], ["input view repeated"])


def test_the_summary_pairs_variants_with_the_first_and_with_baselines() -> None:
    results, summary = summary_of_two()
    found = summary["views"][ALL]["differences"]
    assert {name: row["psnr_db"]["mean"] for name, row in found.items()} == {
        "3d-aware - plain": 0.5, "plain - input view repeated": 1.0, "3d-aware - input view repeated": 1.5,
    }  # fmt: skip
    assert summary["views"]["labels unseen in training"]["means"]["plain"]["psnr_db"] == {
        "mean": 22.0, "error": None, "count": 1,
    }  # fmt: skip
    assert "psnr_db" not in summary["paper_views"][ALL]["means"]["plain"]
    assert results.failures() == [{"uid": "a", "of": "plain", "part": "cross-view", "why": "a: the views show nothing"}]
    assert results.scores("3d-aware", "views") == {"a": 20.5, "b": 22.5}


def test_the_table_says_it_in_lines() -> None:
    results, summary = summary_of_two()
    head = {"preset": "mini", "source": "picture", "count": 2, "size_px": 128, "seed": 3}
    lines = table_of({**head, "summary": summary, "failures": results.failures()}).splitlines()
    assert lines[0].startswith("mini from a picture: 2 objects, compared at 128 px, seed 3;")
    first = next(line for line in lines if line.startswith("  plain  "))
    assert first.split() == ["plain", "21.00", "±", "1.00", "0.9000", "±", "0.0000", "2"]
    difference = next(line for line in lines if line.startswith("  3d-aware - plain"))
    assert difference.split()[3:] == ["+0.50", "±", "0.00", "+0.0000", "±", "0.0000", "2"]
    assert lines[-1] == "could not be measured: 1, see failures in the JSON"
    assert "LPIPS" not in table_of({**head, "summary": summary, "failures": []})
