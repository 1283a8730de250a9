import lightning as L
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from vit.tasks.checkpoint import Checkpoints, load_checkpoint
from vit.tasks.classify import Classifier
from vit.tasks.ema import EMA
from vit.tasks.finite import LIMIT, Finite

NAN, INF = torch.tensor(float("nan")), torch.tensor(float("inf"))


class Poison(L.Callback):
    """Makes the pictures of some micro-batches no numbers."""

    def __init__(self, *batches):
        self.batches, self.samples = batches, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch * trainer.num_training_batches + batch_idx in self.batches:
            batch.images.fill_(float("nan"))
            self.samples += batch.index.tolist()


def alone(decision):
    return decision


def test_a_loss_that_is_not_finite_stops_the_run_before_the_weights_move(tiny_net, digits, trainer, tmp_path):
    poison = Poison(3)
    with pytest.raises(FloatingPointError, match="the loss of step 3 is not finite; training samples ") as caught:
        trainer(callbacks=[poison, Checkpoints(every_n_steps=1)]).fit(Classifier(tiny_net), digits)
    assert f"samples {', '.join(map(str, poison.samples))};" in str(caught.value)
    last = load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert last["global_step"] == 3 and all(tensor.isfinite().all() for tensor in last["state_dict"].values())


def test_a_skipped_step_is_counted_and_leaves_all_as_it_was(tiny_net, digits, trainer, tmp_path, capsys):
    before = []

    class Look(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            before.append([parameter.clone() for parameter in pl_module.parameters()])

    options = {"callbacks": [Poison(3, 8), Look(), EMA(0.9), Checkpoints()], "gradient_clip_val": 1.0}
    trainer(**options).fit(Classifier(tiny_net, nonfinite="skip"), digits)
    assert_close(before[3], before[2], rtol=0, atol=0)
    assert not torch.equal(before[4][0], before[3][0])
    last = load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert (last["global_step"], last["vit"]["skipped"]) == (12, 2)
    assert {float(state["step"]) for state in last["optimizer_states"][0]["state"].values()} == {10.0}
    assert all(tensor.isfinite().all() for tensor in last["callbacks"]["EMA"]["weights"].values())
    said = capsys.readouterr().out
    assert "step 3 is not finite" in said and "skipped, 2 so far" in said


def test_skips_in_a_row_stop_the_run_too(tiny_net, digits, trainer):
    with pytest.raises(FloatingPointError, match=f"{LIMIT} steps in a row were not finite"):
        trainer(callbacks=[Poison(*range(2, 12))]).fit(Classifier(tiny_net, nonfinite="skip"), digits)


def test_only_the_micro_batch_at_fault_is_named():
    finite = Finite()
    finite.see(torch.tensor([1, 2]), torch.tensor(0.5))
    finite.see(torch.tensor([3, 5]), NAN)
    with pytest.raises(FloatingPointError, match=r"the loss of step 7 is not finite; training samples 3, 5;"):
        finite.admits(INF, 7, alone)


def test_where_only_the_gradient_is_at_fault_all_samples_are_named_unless_a_scaler_looks_for_it():
    finite = Finite()
    finite.see(torch.tensor([1, 2]), torch.tensor(0.5))
    with pytest.raises(FloatingPointError, match=r"the gradient of step 7 is not finite; training samples 1, 2;"):
        finite.admits(INF, 7, alone)
    finite.see(torch.tensor([1, 2]), torch.tensor(0.5))
    assert finite.admits(None, 7, alone)


def test_running_statistics_of_a_skipped_step_are_put_back():
    finite, norm = Finite("skip"), nn.BatchNorm1d(3)
    finite.begin(norm)
    norm(torch.full((5, 3), float("nan")))
    finite.see(torch.arange(5), NAN)
    assert not finite.admits(NAN, 1, alone)
    assert_close(norm.running_mean, torch.zeros(3))
    assert norm.num_batches_tracked == 0


def test_another_process_s_loss_counts():
    finite = Finite("skip")
    finite.see(torch.arange(5), torch.tensor(0.5))
    assert not finite.admits(torch.tensor(1.0), 1, lambda decision: False)


def test_an_unknown_policy_is_refused():
    with pytest.raises(ValueError, match="nonfinite must be one of stop, skip, got 'ignore'"):
        Finite("ignore")


def test_spoiled_weights_never_replace_a_checkpoint(tiny_net, digits, trainer, tmp_path):
    class Spoil(L.Callback):
        def on_validation_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                next(pl_module.parameters()).data.fill_(float("inf"))

    with pytest.raises(FloatingPointError, match=r"is not finite at step 12: .*\.ckpt stays as it was"):
        trainer(callbacks=[Spoil(), Checkpoints()]).fit(Classifier(tiny_net), digits)
    assert load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == 6
