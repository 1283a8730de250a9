import json
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from PIL import Image
from torch import nn
from torch.testing import assert_close

from tests.helpers import TINY
from vit import run
from vit.data.module import Images
from vit.tasks.checkpoint import Checkpoints, load_checkpoint
from vit.tasks.classify import Classifier
from vit.tasks.ema import EMA
from vit.tasks.faults import NONFINITE, Fault, report
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


def plainly(fault):
    return f"{fault.what} of step {fault.step}: {', '.join(map(str, fault.samples))}"


def test_a_loss_that_is_not_finite_stops_the_run_before_the_weights_move(tiny_net, digits, trainer, tmp_path):
    poison, file = Poison(3), tmp_path / NONFINITE
    with pytest.raises(FloatingPointError, match="the loss of step 3 is not finite in 16 training samples: ") as caught:
        trainer(callbacks=[poison, Checkpoints(every_n_steps=1)]).fit(Classifier(tiny_net), digits)
    names = [f"digits #{sample}" for sample in poison.samples]
    assert f"samples: {', '.join(names[:5])} and 11 more ({file} lists all); --model" in str(caught.value)
    assert json.loads(file.read_text()) == [{"step": 3, "what": "loss", "samples": names}]
    last = load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert last["global_step"] == 3 and all(tensor.isfinite().all() for tensor in last["state_dict"].values())


@pytest.mark.parametrize(("root", "below"), [("set", "set"), ("table.csv", ".")])
def test_files_are_named_from_the_datas_place(tiny_net, trainer, tmp_path, root, below):
    rows = ["path,label"]
    for number in range(60):
        path = tmp_path / "set" / f"{number % 10}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number).save(path)
        rows.append(f"{path.relative_to(tmp_path)},{number % 10}")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    data = Images(root=str(tmp_path / root), img_size=8, channels=1, batch_size=4)
    with pytest.raises(FloatingPointError):
        trainer(callbacks=[poison := Poison(1)]).fit(Classifier(tiny_net), data)
    (event,) = json.loads((tmp_path / NONFINITE).read_text())
    files = [data.splits._carved[0].pictures[sample] for sample in poison.samples]
    assert event["samples"] == [path.relative_to(tmp_path / below).as_posix() for path in files]


def test_a_run_that_only_tries_the_code_out_keeps_no_list(tiny_net, digits, trainer, tmp_path):
    with pytest.raises(FloatingPointError, match=r"digits #\d+ and 11 more; --model") as caught:
        trainer(callbacks=[Poison(0)], fast_dev_run=2).fit(Classifier(tiny_net), digits)
    assert NONFINITE not in str(caught.value) and not (tmp_path / NONFINITE).exists()


def test_a_first_step_at_fault_keeps_the_list_of_a_folder_without_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(Classifier, "on_train_start", lambda self: self.trainer.callbacks.append(Poison(0)))
    with pytest.raises(FloatingPointError, match=r"run/nonfinite\.json lists all"):
        run.fit([*TINY, "--run", str(tmp_path / "run")])
    assert len(json.loads((tmp_path / "run" / NONFINITE).read_text())) == 1
    monkeypatch.undo()
    assert run.fit(["--resume", str(tmp_path / "run")]).metrics["val/acc"] >= 0


@pytest.mark.parametrize("rank", [0, 1])
def test_of_several_processes_those_at_fault_name_their_samples(digits, monkeypatch, tmp_path, rank):
    told = [Fault(7, "gradient", [2]), Fault(7, "loss", [3]), Fault(7, "loss", [5])]
    monkeypatch.setattr(torch.distributed, "all_gather_object", lambda found, fault: found.__setitem__(slice(3), told))
    first = rank == 0
    one = SimpleNamespace(world_size=3, fast_dev_run=False, default_root_dir=str(tmp_path), is_global_zero=first)
    said = report(told[rank], one, digits)
    assert said.startswith("the loss of step 7 is not finite in 2 training samples: digits #3, digits #5 (")
    assert (tmp_path / NONFINITE).exists() is first


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
    assert [event["step"] for event in json.loads((tmp_path / NONFINITE).read_text())] == [3, 8]


def test_skips_in_a_row_stop_the_run_too(tiny_net, digits, trainer):
    with pytest.raises(FloatingPointError, match=f"{LIMIT} steps in a row were not finite"):
        trainer(callbacks=[Poison(*range(2, 12))]).fit(Classifier(tiny_net, nonfinite="skip"), digits)


def test_only_the_micro_batch_at_fault_is_named():
    finite = Finite()
    finite.see(torch.tensor([1, 2]), torch.tensor(0.5))
    finite.see(torch.tensor([3, 5]), NAN)
    with pytest.raises(FloatingPointError, match=r"^loss of step 7: 3, 5;"):
        finite.admits(INF, 7, alone, plainly)


def test_where_only_the_gradient_is_at_fault_all_samples_are_named_unless_a_scaler_looks_for_it():
    finite = Finite()
    finite.see(torch.tensor([1, 2]), torch.tensor(0.5))
    with pytest.raises(FloatingPointError, match=r"^gradient of step 7: 1, 2;"):
        finite.admits(INF, 7, alone, plainly)
    finite.see(torch.tensor([1, 2]), torch.tensor(0.5))
    assert finite.admits(None, 7, alone, plainly)


def test_running_statistics_of_a_skipped_step_are_put_back():
    finite, norm = Finite("skip"), nn.BatchNorm1d(3)
    finite.begin(norm)
    norm(torch.full((5, 3), float("nan")))
    finite.see(torch.arange(5), NAN)
    assert not finite.admits(NAN, 1, alone, plainly)
    assert_close(norm.running_mean, torch.zeros(3))
    assert norm.num_batches_tracked == 0


def test_another_process_s_loss_counts():
    finite = Finite("skip")
    finite.see(torch.arange(5), torch.tensor(0.5))
    assert not finite.admits(torch.tensor(1.0), 1, lambda decision: False, plainly)


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
