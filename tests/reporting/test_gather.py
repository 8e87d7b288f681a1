"""Runs sorted out: trainings belong to their evaluations, and a climb to its parts."""

import pytest

from tests.reporting.made import climbed, evaluated, pair
from tunesmith.errors import RunError
from tunesmith.reporting.gather import gather
from tunesmith.runs.run import Run


def test_a_climbs_trainings_belong_to_their_rungs(tmp_path):
    told = gather([climbed(tmp_path / "climb")])
    assert [(one.name, one.trained and one.trained.name) for one in told.evaluated] == [
        ("zero-shot", None),
        ("1-shot", None),
        ("4-shot", None),
        ("prompt tuning", "prompt_tuning"),
        ("LoRA", "lora"),
    ]


def test_an_evaluation_finds_the_training_it_names(tmp_path):
    runs = pair(tmp_path)
    assert gather(runs).evaluated[1].trained == runs[1]
    assert gather([runs[0], runs[2]]).evaluated[1].trained is None


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path):
    runs = [evaluated(tmp_path / "a", 3, method="lora"), evaluated(tmp_path / "b", 9, method="lora")]
    assert [one.name for one in gather(runs).evaluated] == [f"LoRA ({run.folder})" for run in runs]


def test_every_run_has_a_name_of_its_own_and_a_training_comes_before_its_evaluation(tmp_path):
    told = gather(pair(tmp_path))
    assert list(told.named().values()) == ["zero-shot", "LoRA (training)", "LoRA"]


def test_a_climb_without_its_rungs_is_refused(tmp_path):
    begun = Run.create(tmp_path / "climb", {"verb": "climb", "task": "demo"})
    with pytest.raises(RunError, match="has not come to its end"):
        gather([begun])


def test_a_run_of_another_kind_is_refused(tmp_path):
    with pytest.raises(RunError, match="is a run of 'bench'"):
        gather([Run.create(tmp_path / "run", {"verb": "bench"})])


def test_two_verdicts_are_none(tmp_path):
    climbs = [climbed(tmp_path / "a"), climbed(tmp_path / "b")]
    assert gather(climbs[:1]).verdict.recommended == "LoRA"
    assert gather(climbs).verdict is None
