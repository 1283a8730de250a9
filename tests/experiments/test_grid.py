"""The cells of a grid, and the command line of each."""

import pytest

from tests.experiments.studies import study
from vit.experiments.grid import TUNE_SEED, Arm, Cell, arguments, best_trial, steps_of


def test_every_arm_is_tuned_alike_and_on_pictures_of_no_run():
    cells = list(study().tuning())
    assert len(cells) == 4 and {cell.kind for cell in cells} == {"tune"}
    per_arm = [[(cell.size, cell.seed, cell.trial) for cell in cells if cell.arm == arm] for arm in ("vit", "cnn")]
    assert per_arm[0] == per_arm[1] == [(30, TUNE_SEED, 0), (30, TUNE_SEED, 1)]
    assert TUNE_SEED not in study().seeds


def test_runs_are_the_whole_grid_seed_by_seed():
    cells = list(study(compare_precision="bf16-mixed").runs())
    assert [(cell.seed, cell.size, cell.arm) for cell in cells if cell.precision == "32-true"] == [
        (seed, size, arm) for seed in (0, 1) for size in (30, 100) for arm in ("vit", "cnn")
    ]
    compared = [cell for cell in cells if cell.precision == "bf16-mixed"]
    assert [(cell.seed, cell.size, cell.arm) for cell in compared] == [
        (seed, 30, arm) for seed in (0, 1) for arm in ("vit", "cnn")
    ]
    assert len({cell.key for cell in cells}) == len(cells) == 12


def test_an_arm_that_is_pretrained_is_so_once_for_each_seed_on_all_training_pictures():
    pretrained = Arm("vit-mae", ("model/vit_pico",), {}, 101, 1009, ("pretrain/mae",), 70, {"model.optimizer.lr": 0.1})
    mixed = study(arms=(*study().arms, pretrained))
    cells = list(mixed.pretraining())
    assert cells == [Cell("pretrain", "vit-mae", 1295, seed, "32-true") for seed in (TUNE_SEED, 0, 1)]
    assert [mixed.steps(cell) for cell in cells] == [(70, 81)] * 3
    for cell in (*mixed.tuning(), *mixed.runs()):  # whatever its size, a run has the pretraining of its seed
        assert cell.arm != "vit-mae" or (mixed.stage_one(cell.arm, cell.seed) in cells and mixed.steps(cell)[0] == 40)
    assert not list(study().pretraining())
    written = {arm["name"]: arm for arm in mixed.to_dict()["arms"]}
    assert written["vit-mae"]["pretrain"] == ("pretrain/mae",) and "pretrain" not in written["vit"]


def test_steps_are_equal_for_every_size_or_epochs_are():
    assert [steps_of(study(), size) for size in (30, 100)] == [(40, 2), (40, 7)]
    assert [steps_of(study(budget="epochs"), size) for size in (30, 100)] == [(80, 2), (280, 7)]


def test_a_cells_options():
    options = arguments(study(), Cell("run", "cnn", 100, 1, "bf16-mixed"), {"lr": 0.003, "weight_decay": 0.1})
    assert options == [
        "--seed_everything=1",
        "--data.train_size=100",
        "--trainer.max_epochs=-1",
        "--trainer.max_steps=40",
        "--trainer.check_val_every_n_epoch=null",
        "--trainer.val_check_interval=40",
        "--trainer.precision=bf16-mixed",
        f"--model.optimizer.warmup_epochs={0.1 * 40 / 7}",
        "--model.optimizer.lr=0.003",
        "--model.optimizer.weight_decay=0.1",
        "--model.width=0.5",
    ]


def test_the_best_trial_is_by_validation_accuracy_then_loss():
    rows = [
        {"status": "done", "val_acc": acc, "val_loss": loss, "trial": trial}
        for trial, (acc, loss) in enumerate([(0.7, 0.9), (0.8, 0.6), (0.8, 0.5), (0.6, 0.1)])
    ]
    assert best_trial([*rows, {"status": "failed"}])["trial"] == 2
    with pytest.raises(ValueError, match="every tuning run failed"):
        best_trial([{"status": "failed"}])
