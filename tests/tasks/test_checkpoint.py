import os
import resource
from contextlib import contextmanager

import lightning as L
import pytest
import torch
from torch.testing import assert_close

from vit.files import SEAL_LENGTH
from vit.tasks.checkpoint import AtomicCheckpointIO, Checkpoints, load_checkpoint
from vit.tasks.classify import Classifier
from vit.tasks.ema import EMA
from vit.tasks.moment import Moment


def test_last_is_the_newest_step_and_best_the_best_score(tiny_net, digits, trainer, tmp_path):
    class Worsens(L.Callback):
        def on_validation_epoch_end(self, trainer, pl_module):
            pl_module.log("score", 1.0 / (1 + trainer.current_epoch))

    checkpoints = Checkpoints(monitor="score")
    trainer(callbacks=[Worsens(), checkpoints], max_epochs=3).fit(Classifier(tiny_net), digits)
    best, last = (load_checkpoint(tmp_path / "checkpoints" / name) for name in ("best.ckpt", "last.ckpt"))
    assert (best["global_step"], last["global_step"]) == (6, 18)
    assert (checkpoints.best_score, checkpoints.best_step) == (1.0, 6)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_a_checkpoint_holds_raw_and_averaged_weights_and_no_constructor_arguments(tiny_net, digits, trainer, tmp_path):
    task, ema = Classifier(tiny_net), EMA(0.9)
    trainer(callbacks=[ema, Checkpoints()]).fit(task, digits)
    last = load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert_close(last["state_dict"], dict(task.state_dict()), rtol=0, atol=0)
    assert_close(last["callbacks"]["EMA"]["weights"], ema.weights, rtol=0, atol=0)
    assert "hyper_parameters" not in last
    assert last["vit"]["classes"] == [str(digit) for digit in range(10)]
    assert last["vit"]["preprocessing"]["img_size"] == [8, 8]


def test_steps_between_epochs_are_saved_on_optimiser_steps_only(tiny_net, digits, trainer, tmp_path):
    class Seen(L.Callback):
        def __init__(self):
            self.saved = []

        def on_save_checkpoint(self, trainer, pl_module, checkpoint):
            self.saved.append((checkpoint["global_step"], trainer.fit_loop.epoch_loop.batch_progress.current.ready))

    seen = Seen()
    options = {"max_epochs": 1, "accumulate_grad_batches": 2, "limit_val_batches": 0}
    trainer(callbacks=[seen, Checkpoints(every_n_steps=1)], **options).fit(Classifier(tiny_net), digits)
    assert seen.saved == [(1, 2), (2, 4), (3, 6)]


def test_best_restarts_from_what_a_checkpoint_says():
    checkpoints = Checkpoints(mode="min")
    checkpoints.load_state_dict({"best_score": 0.5, "best_step": 3})
    assert not checkpoints._improves(0.5) and checkpoints._improves(0.4) and not checkpoints._improves(float("nan"))


def test_best_is_written_again_where_its_writing_was_cut_short(tiny_net, digits, trainer, tmp_path, monkeypatch):
    class Improves(L.Callback):
        def on_validation_epoch_end(self, trainer, pl_module):
            pl_module.log("score", float(trainer.current_epoch))

    def fit(**options):
        callbacks = [Improves(), EMA(0.9), Checkpoints(monitor="score")]
        trainer(callbacks=callbacks).fit(Classifier(tiny_net.train()), digits, **options)

    def cut_short(self, checkpoint, path, storage_options=None):
        if path == best and checkpoint["global_step"] == 12:
            raise RuntimeError("stop here")
        save(self, checkpoint, path, storage_options)

    best, last = (tmp_path / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
    save = AtomicCheckpointIO.save_checkpoint
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="stop here"):
        patch.setattr(AtomicCheckpointIO, "save_checkpoint", cut_short)
        fit()
    assert (load_checkpoint(best)["global_step"], load_checkpoint(last)["global_step"]) == (6, 12)
    fit(ckpt_path=last)
    assert load_checkpoint(best)["global_step"] == 12


def test_a_run_cut_short_after_a_step_before_it_is_whole_keeps_the_one_before(
    tiny_net, digits, trainer, tmp_path, monkeypatch
):
    def cut_short(trainer, module):
        if trainer.global_step == 3:
            raise RuntimeError("stop here")
        return of(trainer, module)

    of = Moment.of
    monkeypatch.setattr(Moment, "of", cut_short)
    with pytest.raises(RuntimeError, match="stop here"):
        trainer(callbacks=[EMA(0.9), Checkpoints(every_n_steps=2)]).fit(Classifier(tiny_net), digits)
    last = load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    trained = last["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["processed"]
    assert last["global_step"] == trained == 2


def test_a_misspelt_monitor_names_what_is_logged(tiny_net, digits, trainer):
    with pytest.raises(ValueError, match=r"monitors 'val/accuracy', which is not logged; logged are .*val/acc"):
        trainer(callbacks=[Checkpoints(monitor="val/accuracy")]).fit(Classifier(tiny_net), digits)


def test_a_failing_write_leaves_the_old_file_and_no_part(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)

    def cut_short(checkpoint, file):
        file.write(b"half")
        raise OSError(28, "disk full")

    monkeypatch.setattr(torch, "save", cut_short)
    with pytest.raises(OSError, match=r"cannot write .*last\.ckpt: disk full"):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
    assert load_checkpoint(path) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


@contextmanager
def files_limited_to(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 1000, 300_000])
def test_a_full_disk_is_named_and_leaves_the_checkpoint_before(tmp_path, size):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    with files_limited_to(size), pytest.raises(OSError, match=r"^cannot write .*last\.ckpt: File too large$"):
        AtomicCheckpointIO().save_checkpoint({"step": 2, "weights": torch.ones(100_000)}, path)
    assert load_checkpoint(path) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_every_flipped_bit_and_every_cut_is_found_or_does_no_harm(tmp_path):
    path, content = tmp_path / "best.ckpt", {"weights": torch.arange(16.0)}
    AtomicCheckpointIO().save_checkpoint(content, path)
    whole, found = path.read_bytes(), 0
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        found += refused(path, content)
        path.write_bytes(whole[:place])
        found += refused(path, content)
    assert found >= 2 * len(range(0, len(whole), 7)) - 2 * SEAL_LENGTH


def refused(path, content):
    try:
        assert_close(load_checkpoint(path), content, rtol=0, atol=0)
    except ValueError as error:
        assert "damaged" in str(error)
        return True
    return False


def test_the_last_but_one_stays_until_training_ends(tiny_net, digits, trainer, tmp_path):
    io, folder = AtomicCheckpointIO(), tmp_path / "io"
    for step in (1, 2, 3):
        io.save_checkpoint({"step": step}, folder / "last.ckpt")
    assert [load_checkpoint(folder / name)["step"] for name in ("last.ckpt", "previous.ckpt")] == [3, 2]
    (folder / "previous.ckpt").unlink()
    os.link(folder / "last.ckpt", folder / "previous.ckpt")  # killed between keeping the one and placing the other
    io.save_checkpoint({"step": 4}, folder / "last.ckpt")
    assert [load_checkpoint(folder / name)["step"] for name in ("last.ckpt", "previous.ckpt")] == [4, 3]
    assert len(list(folder.iterdir())) == 2


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_what_is_not_a_plain_local_checkpoint_is_refused_in_one_line(tmp_path, capsys):
    torch.save({"x": Evil()}, tmp_path / "evil.ckpt")
    (tmp_path / "cut.ckpt").write_bytes(b"PK\x03\x04 cut")
    (tmp_path / "empty.ckpt").touch()
    for name, message in {
        "evil.ckpt": "damaged or not a checkpoint of plain tensors",
        "cut.ckpt": "damaged or not",
        "empty.ckpt": "damaged or not",
        "none.ckpt": "no checkpoint at",
    }.items():
        with pytest.raises(ValueError, match=message) as caught:
            load_checkpoint(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="expected a local path, got the URL https://"):
        load_checkpoint("https://example.org/x.ckpt")
    assert "code ran" not in capsys.readouterr().out
