"""A run stopped in any way at any place ends with the bits of one that was not; children are forks of one process."""

import csv
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from vit import cli, evaluate, run
from vit.commandline.runfolder import LAST, newest_checkpoint
from vit.tasks.checkpoint import AtomicCheckpointIO, load_checkpoint
from vit.tasks.classify import Classifier
from vit.tasks.faults import NONFINITE

CONFIG = """
trainer:
  max_epochs: 3
  limit_train_batches: 6
  accumulate_grad_batches: 2
  callbacks:
    - {class_path: vit.tasks.ema.EMA, init_args: {decay: 0.9}}
    - {class_path: vit.tasks.progress.Progress}
    - {class_path: vit.tasks.pictures.Confusion}
    - {class_path: vit.tasks.release.Release, init_args: {weights: last}}
    - {class_path: vit.tasks.checkpoint.Checkpoints, init_args: {every_n_steps: 2}}
model:
  init_args:
    mixing: {class_path: vit.data.mixing.Mixing, init_args: {mixup_alpha: 0.2, cutmix_alpha: 1.0}}
    net:
      init_args:
        backbone:
          init_args:
            embed_dim: 12
            depth: 1
            patch_size: 4
            patch_drop: 0.3
            drop_path: 0.3
            block: {init_args: {mixer: {init_args: {proj_drop: 0.2}}, mlp: {init_args: {drop: 0.2}}}}
data: {batch_size: 16, augment: medium}
"""
STOPS = ("exception", "SIGTERM", "SIGKILL")
PLACES = ("epoch", "accumulation", "validation", "end")
WORKERS = (0, 2)
ENDS = {"exception": 1, "SIGTERM": 143, "SIGKILL": -signal.SIGKILL}
KEPT = {"epoch": 5, "accumulation": 5, "validation": 6, "end": 4}
"""Step that a stop which leaves time to save keeps, of three an epoch; SIGTERM at an epoch's end waits for its own."""
TWO = ("--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.max_epochs=2")
CHEAP = {("exception", "accumulation", 0), ("SIGTERM", "validation", 0), ("SIGKILL", "epoch", 2)}
SLOW = pytest.mark.slow
CELLS = [pytest.param(*cell, marks=() if cell in CHEAP else SLOW) for cell in product(STOPS, PLACES, WORKERS)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("whole") / "run"
    fit(folder, workers=0)
    return digests(folder)


def options(folder: Path, workers: int, *further: str) -> list[str]:
    config = folder.parent / f"cells-{os.getpid()}.yaml"  # two processes of one run would read what the other writes
    config.write_text(CONFIG)
    return ["-c", "model/vit_nano", "-c", str(config), f"--data.num_workers={workers}", "--run", str(folder), *further]


def fit(folder: Path, workers: int, *further: str) -> None:
    run.fit(options(folder, workers, *further))


def child(work: Callable[[], object]) -> int:
    """Exit code of a fork that does it; minus the signal's number where one killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(begin(work), 0)[1])


def begin(work: Callable[[], object]) -> int:
    """Process number of a fork that does it."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        except RuntimeError as error:
            if "stop here" not in str(error):
                traceback.print_exc()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return pid


def together(work: Callable[[], object], seconds: float = 120) -> list[int]:
    """Exit codes of two processes of one run, as torchrun starts them; an AssertionError where they hang."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def member(rank: int) -> None:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0}
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": port}
        os.environ.update({name: str(value) for name, value in {**place, **meeting}.items()})
        work()

    running, codes = {begin(partial(member, rank)): rank for rank in (0, 1)}, [0, 0]
    until = time.monotonic() + seconds
    while running and time.monotonic() < until:
        for pid, rank in list(running.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                codes[rank] = os.waitstatus_to_exitcode(status)
                del running[pid]
        time.sleep(0.05)
    for pid in running:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert not running, f"ranks {sorted(running.values())} hung for {seconds} s"
    return codes


def stop(kind: str) -> None:
    if kind == "exception":
        raise RuntimeError("stop here")
    os.kill(os.getpid(), getattr(signal, kind))


def fit_until(kind: str, place: str, folder: Path, workers: int, *further: str) -> None:
    """Into the second epoch: between its steps, between micro-batches of one, in or after its validation."""
    hook = {"validation": "validation_step", "end": "on_train_epoch_end"}.get(place, "training_step")
    late = kind == "SIGTERM"  # answered when the micro-batch is done
    batch = {"epoch": 4 - late, "accumulation": 5 - late, "validation": 1, "end": None}[place]
    inner = getattr(Classifier, hook)

    def wrapped(self: Classifier, *args: Any) -> Any:
        if self.current_epoch == 1 and (batch is None or args[1] == batch):
            stop(kind)
        return inner(self, *args)

    setattr(Classifier, hook, wrapped)
    fit(folder, workers, *further)


def digests(folder: Path) -> dict[str, str]:
    last = load_checkpoint(folder / LAST)
    parts = {name: last[name] for name in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step")}
    return {name: digest(part) for name, part in {**parts, **last["callbacks"]}.items()}


def digest(value: object) -> str:
    if isinstance(value, torch.Tensor):
        content = str((value.dtype, tuple(value.shape))).encode() + value.numpy().tobytes()
    elif isinstance(value, dict):
        content = "".join(f"{key}:{digest(item)}" for key, item in value.items()).encode()
    elif isinstance(value, list | tuple):
        content = "".join(map(digest, value)).encode()
    else:
        content = repr(value).encode()
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(("kind", "place", "workers"), CELLS)
def test_a_stopped_run_ends_bit_for_bit_as_a_whole_one(
    kind: str, place: str, workers: int, whole: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    assert child(lambda: fit_until(kind, place, folder, workers)) == ENDS[kind]
    step = load_checkpoint(folder / LAST)["global_step"]
    if kind == "SIGKILL":
        assert step == 4
    elif (kind, place) == ("SIGTERM", "end"):
        assert step == 6
    else:
        assert step == KEPT[place]
    assert child(lambda: run.fit(["--resume", str(folder)])) == 0
    assert digests(folder) == whole


def test_ctrl_c_as_typed_saves_and_exits_with_130(whole: dict[str, str], tmp_path: Path) -> None:
    folder, train = tmp_path / "run", Classifier.training_step

    def typed() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts the tests in the background ignores it

        def interrupted(self: Classifier, *args: Any) -> Any:
            if self.current_epoch == 1 and args[1] == 4:
                os.kill(os.getpid(), signal.SIGINT)
            return train(self, *args)

        Classifier.training_step = interrupted
        sys.exit(cli.main(["fit", *options(folder, workers=0)]))

    assert child(typed) == 130
    assert load_checkpoint(folder / LAST)["global_step"] == 5
    assert child(lambda: sys.exit(cli.main(["fit", "--resume", str(folder)]))) == 0
    assert digests(folder) == whole


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["Lightning", "torchrun"])
def test_two_processes_started_from_the_command_line(launcher: str, tmp_path: Path) -> None:
    """Both make the same run; one folder, one line at the end, one row for each step."""
    start = {
        "Lightning": ["-m", "vit"],
        "torchrun": ["-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "--", "vit"],
    }
    ddp = ("--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.max_epochs=1")
    folder, alone = tmp_path / "run", tmp_path / "alone"

    def typed(*args: str) -> str:
        command = [sys.executable, *start[launcher], "fit", *args]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    said = typed(*options(folder, 0, *ddp))
    assert said.count("next: vit test") == said.count("epoch 1/1") == 1
    assert typed("--resume", str(folder), "--trainer.max_epochs=2").count("epoch 2/2") == 1
    assert together(lambda: fit(alone, 0, *ddp[:-1], "--trainer.max_epochs=2")) == [0, 0]
    last, other = load_checkpoint(folder / LAST), load_checkpoint(alone / LAST)
    assert last["global_step"] == other["global_step"] == 6
    with (folder / "metrics.csv").open() as file:
        measured = [row for row in csv.DictReader(file) if row["val/acc"]]
    assert [row["epoch"] for row in measured] == ["0", "1"]
    single = evaluate.validate(["--load", str(folder / LAST)])
    for name in ("val/acc", "val/loss"):
        assert float(measured[-1][name]) == pytest.approx(single[name], rel=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_two_processes_fit_resume_and_measure_as_one_does(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert together(lambda: fit(whole, 0, *TWO)) == [0, 0]
    assert together(lambda: fit_until("exception", "accumulation", cut, 0, *TWO)) == [1, 1]
    assert load_checkpoint(cut / LAST)["global_step"] == 4
    assert together(lambda: run.fit(["--resume", str(cut)])) == [0, 0]
    assert digests(cut) == digests(whole)
    with (whole / "metrics.csv").open() as file:
        measured = list(csv.DictReader(file))[-1]
    alone = evaluate.validate(["--load", str(whole / LAST)])
    for name in ("val/acc", "val/loss"):
        assert float(measured[name]) == pytest.approx(alone[name], rel=1e-5)


@pytest.fixture(scope="module")
def whole_of_two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("whole") / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # the tests' own marks do not reach here
        assert together(lambda: fit(folder, 0, *TWO, "--trainer.max_epochs=3")) == [0, 0]
    return digests(folder)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("ranks", "place"),
    [
        ((0,), "epoch"),
        ((0,), "validation"),
        ((1,), "accumulation"),
        ((1,), "validation"),
        ((1,), "end"),
        ((0, 1), "accumulation"),
    ],
)
def test_sigterm_to_one_of_two_processes_saves_and_ends_both(
    ranks: tuple[int, ...], place: str, whole_of_two: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is enough, and both at once do no harm, in whatever order their signals come."""
    folder = tmp_path / "run"
    kill = stop
    monkeypatch.setitem(globals(), "stop", lambda kind: kill(kind) if int(os.environ["RANK"]) in ranks else None)
    assert together(lambda: fit_until("SIGTERM", place, folder, 0, *TWO, "--trainer.max_epochs=3")) == [143, 143]
    assert load_checkpoint(folder / LAST)["global_step"] == (6 if place == "end" else KEPT[place])
    assert together(lambda: run.fit(["--resume", str(folder)])) == [0, 0]
    assert digests(folder) == whole_of_two


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("ranks", "codes"), [((0, 1), [130, 130]), ((1,), [143, 130])])
def test_ctrl_c_to_two_processes_saves_and_ends_both(
    ranks: tuple[int, ...], codes: list[int], whole_of_two: dict[str, str], tmp_path: Path
) -> None:
    """A terminal's reaches both; one that alone hears of it takes the other along, as SIGTERM does."""
    folder, train = tmp_path / "run", Classifier.training_step

    def typed(self: Classifier, *args: Any) -> Any:
        if self.current_epoch == 1 and args[1] == 4 and self.global_rank in ranks:
            os.kill(os.getpid(), signal.SIGINT)
        return train(self, *args)

    def work() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts the tests in the background ignores it
        Classifier.training_step = typed
        sys.exit(cli.main(["fit", *options(folder, 0, *TWO, "--trainer.max_epochs=3")]))

    assert together(work) == codes
    assert load_checkpoint(folder / LAST)["global_step"] == 5
    assert together(lambda: run.fit(["--resume", str(folder)])) == [0, 0]
    assert digests(folder) == whole_of_two


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_process_whose_loss_is_not_finite_names_its_samples(tmp_path: Path) -> None:
    folder, train = tmp_path / "run", Classifier.training_step

    def poisoned(self: Classifier, *args: Any) -> Any:
        batch, place = args
        if (self.global_rank, self.current_epoch, place) == (1, 0, 2):
            batch.images.fill_(float("nan"))
            (tmp_path / "samples.json").write_text(json.dumps([f"digits #{sample}" for sample in batch.index.tolist()]))
        return train(self, *args)

    def work() -> None:
        Classifier.training_step = poisoned
        fit(folder, 0, *TWO, "--model.nonfinite=skip")

    assert together(work) == [0, 0]
    samples = json.loads((tmp_path / "samples.json").read_text())
    assert json.loads((folder / NONFINITE).read_text()) == [{"step": 1, "what": "loss", "samples": samples}]


@pytest.mark.slow
def test_a_checkpoint_loads_after_every_one_of_100_kills_in_the_middle_of_writing(tmp_path: Path) -> None:
    steps, parts = [], 0

    def write() -> None:
        io, step = AtomicCheckpointIO(), max([0, *steps])
        while True:
            step += 1
            content = {"global_step": step, "weights": torch.full((300_000,), float(step))}
            io.save_checkpoint(content, tmp_path / LAST)

    AtomicCheckpointIO().save_checkpoint({"global_step": 0, "weights": torch.zeros(1)}, tmp_path / LAST)
    for trial in range(100):
        pid = os.fork()
        if pid == 0:
            write()
        time.sleep(random.Random(trial).uniform(0.02, 0.1))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        parts += any((tmp_path / "checkpoints").glob(".*.part"))
        found, problem = newest_checkpoint(tmp_path)
        assert found == tmp_path / LAST and not problem
        content = load_checkpoint(found)
        assert (content["weights"] == content["global_step"]).all()
        steps.append(content["global_step"])
    assert steps == sorted(steps) and steps[-1] > 100 and parts > 10
