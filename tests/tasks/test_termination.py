"""Ctrl-C as typed, to a run of one process; tests/test_exact_resume.py has SIGTERM to several."""

import os
import signal
import threading
from collections.abc import Iterator

import lightning as L
import pytest
from lightning.pytorch.utilities.exceptions import SIGTERMException

from vit.tasks.checkpoint import Checkpoints, load_checkpoint
from vit.tasks.classify import Classifier
from vit.tasks.termination import Termination


@pytest.fixture(autouse=True)
def usual() -> Iterator[None]:
    """Who starts the tests in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Typed(L.Callback):
    """Ctrl-C, so many times, after a step's optimiser and before what follows it is done."""

    def __init__(self, step, times=1):
        self.step, self.times, self.handler = step, times, None

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            self.handler = signal.getsignal(signal.SIGINT)
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("step", [3, 6, 12])  # 6 ends an epoch, 12 the run
def test_ctrl_c_within_a_step_waits_until_it_can_be_saved(tiny_net, digits, trainer, tmp_path, step):
    termination = Termination()
    with pytest.raises(SIGTERMException):
        trainer(callbacks=[Typed(step), Checkpoints(), termination]).fit(Classifier(tiny_net), digits)
    assert termination.interrupted
    last = load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    trained = last["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["processed"]
    assert last["global_step"] == trained == step
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_between_validation_and_the_end_of_the_epoch_too(tiny_net, digits, trainer, tmp_path):
    class Late(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(SIGTERMException):
        trainer(callbacks=[Late(), Checkpoints(), Termination()]).fit(Classifier(tiny_net), digits)
    last = load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert (last["global_step"], last["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]) == (6, 1)


def test_a_second_ctrl_c_acts_at_once(tiny_net, digits, trainer, tmp_path):
    typed = Typed(3, times=2)
    with pytest.raises(SystemExit) as ended:
        trainer(callbacks=[typed, Checkpoints(every_n_steps=2), Termination()]).fit(Classifier(tiny_net), digits)
    assert isinstance(ended.value.__context__, KeyboardInterrupt)
    assert load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == 2


def test_ctrl_c_that_is_ignored_stays_so(tiny_net, digits, trainer):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    typed = Typed(3)
    trainer(callbacks=[typed, Checkpoints(), Termination()], max_epochs=1).fit(Classifier(tiny_net), digits)
    assert typed.handler is signal.SIG_IGN


def test_training_in_a_thread_leaves_the_handler_alone(tiny_net, digits, trainer):
    typed, callbacks = Typed(3, times=0), [Checkpoints(), Termination()]
    fitted = trainer(callbacks=[typed, *callbacks], max_epochs=1)
    thread = threading.Thread(target=lambda: fitted.fit(Classifier(tiny_net), digits))
    thread.start()
    thread.join()
    assert fitted.global_step == 6 and typed.handler is signal.default_int_handler
