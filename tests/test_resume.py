"""What can go wrong with a run's files: damaged checkpoints, full disks, two processes in one folder."""

import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers import TINY
from vit import run
from vit.commandline.runfolder import BEST, LAST, PREVIOUS, held, newest_checkpoint
from vit.tasks.checkpoint import AtomicCheckpointIO, load_checkpoint
from vit.tasks.classify import Classifier


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


DAMAGES = [cut, emptied, flipped]


def same_weights(one: Path, other: Path) -> bool:
    first, second = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_newest_whole_checkpoint_is_found(folder: Path, damage: Callable[[Path], None]) -> None:
    assert newest_checkpoint(folder) == (folder / LAST, "")
    early = load_checkpoint(folder / BEST)
    for name, step in ((PREVIOUS, 2), (BEST, 1)):
        AtomicCheckpointIO().save_checkpoint({**early, "global_step": step}, folder / name)
    damage(folder / LAST)
    found, problem = newest_checkpoint(folder)
    assert found == folder / PREVIOUS
    assert "last.ckpt is damaged" in problem and problem.endswith("; continuing from previous.ckpt, step 2")
    damage(folder / PREVIOUS)
    assert newest_checkpoint(folder)[0] == folder / BEST
    damage(folder / BEST)
    with pytest.raises(ValueError, match=r"has no checkpoint to continue from: .*last\.ckpt is damaged.*best\.ckpt is"):
        newest_checkpoint(folder)
    shutil.rmtree(folder / "checkpoints")
    assert newest_checkpoint(folder) == (None, "")


def test_a_damaged_last_checkpoint_costs_steps_but_no_run(folder: Path, finished: Path, capsys) -> None:
    flipped(folder / LAST)
    (folder / "model.safetensors").unlink()
    (folder / "checkpoints/.last.ckpt.part").touch()
    run.fit(["--resume", str(folder)])
    assert capsys.readouterr().out.count("last.ckpt is damaged") == 1
    assert same_weights(folder, finished)
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}


def test_one_process_at_a_time(folder: Path) -> None:
    config = (folder / "config.yaml").read_text()
    with held(folder), pytest.raises(ValueError, match="is in use: another process is training this run"):
        run.fit(["--resume", str(folder), "--trainer.max_epochs", "3"])
    assert (folder / "config.yaml").read_text() == config and not (folder / ".lock").exists()


def test_a_full_disk_is_said_before_training(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(ValueError, match=r"run needs 0 MB for checkpoints, its disk has 0 MB left"):
        run.fit([*TINY, "--run", str(tmp_path / "run")])
    assert not any(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_said_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"no run can be written to .*file/run: Not a directory"):
        run.fit([*TINY, "--run", str(tmp_path / "file/run")])


def test_a_disk_that_fills_up_leaves_a_run_to_continue(finished: Path, tmp_path: Path, monkeypatch) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self: Classifier) -> None:
        if self.current_epoch == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))

    folder = tmp_path / "run"
    try:
        with monkeypatch.context() as patch, pytest.raises(OSError, match=r"cannot write .*\.ckpt: File too large"):
            patch.setattr(Classifier, "on_train_epoch_start", fill)
            run.fit([*TINY, "--run", str(folder)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert load_checkpoint(folder / LAST)["global_step"] == 3
    run.fit(["--resume", str(folder)])
    assert same_weights(folder, finished)


def test_out_of_memory_comes_with_advice(tmp_path: Path, monkeypatch) -> None:
    def grab(self: Classifier, batch: object, batch_idx: int) -> None:
        if self.current_epoch == 1:
            raise torch.OutOfMemoryError("tried to allocate 2 GiB\nof which")

    monkeypatch.setattr(Classifier, "on_train_batch_start", grab)
    advice = (
        r"batches of 64: a new run with --data\.batch_size 32 --trainer\.accumulate_grad_batches 4 .*last\.ckpt is kept"
    )
    with pytest.raises(torch.OutOfMemoryError, match=advice):
        options = ["--data.batch_size=64", "--trainer.accumulate_grad_batches=2"]
        run.fit([*TINY, *options, "--run", str(tmp_path / "run")])
    assert load_checkpoint(tmp_path / "run" / LAST)["epoch"] == 0


def test_pictures_that_do_not_fit_in_memory_come_with_other_advice(tmp_path: Path, monkeypatch) -> None:
    def grab(self: Classifier, stage: str) -> None:
        raise MemoryError("Unable to allocate 2 GiB")

    monkeypatch.setattr(Classifier, "setup", grab)
    with pytest.raises(MemoryError, match=r"out of memory: --data\.cache_gb 0 keeps no decoded pictures in it"):
        run.fit([*TINY, "--run", str(tmp_path / "run")])
