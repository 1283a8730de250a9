import re

import lightning as L
import pytest

from vit.tasks.classify import Classifier
from vit.tasks.progress import Progress


def test_one_line_per_epoch_where_nobody_watches(tiny_net, digits, trainer, capsys):
    trainer(callbacks=[Progress()], enable_progress_bar=True, enable_checkpointing=False).fit(
        Classifier(tiny_net), digits
    )
    first, second = capsys.readouterr().out.splitlines()
    number = r"[\d.e-]+"
    line = rf"epoch 1/2  val/loss {number}  val/acc {number}  train/loss {number}  {number} s"
    assert re.fullmatch(line, first) and second.startswith("epoch 2/2  ")


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "150")


def test_a_terminal_gets_one_bar_for_the_whole_run(tiny_net, digits, trainer, capsys, terminal):
    fitted = trainer(callbacks=[Progress()], enable_progress_bar=True, enable_checkpointing=False)
    fitted.fit(Classifier(tiny_net), digits)
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", capsys.readouterr().out)
    assert "epoch 2/2" in shown and "100%" in shown and "left" in shown and "val/acc" in shown
    assert "epoch 1/2  val/loss" not in shown


def test_a_failure_closes_the_bar(tiny_net, digits, trainer, terminal):
    class Breaks(L.Callback):
        def on_train_batch_end(self, *_):
            raise RuntimeError("on purpose")

    progress = Progress()
    fitted = trainer(callbacks=[progress, Breaks()], enable_progress_bar=True, enable_checkpointing=False)
    with pytest.raises(RuntimeError, match="on purpose"):
        fitted.fit(Classifier(tiny_net), digits)
    assert progress._bar is None
