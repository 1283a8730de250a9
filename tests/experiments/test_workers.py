"""Tasks in processes of their own: what goes wrong in one is a result. In a subprocess, as forking wants no threads."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path
import torch
from vit.experiments.workers import Failed, Pool

def work(task):
    print("hello from", task)
    if task == "raises":
        raise ValueError("expected this,\\n  got that")
    if task == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "sleeps":
        time.sleep(600)
    return {"task": task, "pid": os.getpid(), "threads": torch.get_num_threads()}

if __name__ == "__main__":
    method, folder, *tasks = sys.argv[1:]
    torch.set_num_threads(1)
    pool = Pool(work, lambda task: Path(folder) / f"{task}.log", workers=2, threads=3, cuda=method == "server")
    most, ticks = 0, 0
    def tick():
        global most, ticks
        most, ticks = max(most, len(pool.running)), ticks + 1
        if "sleeps" in pool.running:
            print(pool.running["sleeps"].process.pid, flush=True)
    results = dict(pool.results(tasks, tick))
    results = {task: result.error if isinstance(result, Failed) else result for task, result in results.items()}
    print(json.dumps({"results": results, "most": most, "ticks": ticks, "pid": os.getpid()}))
"""


def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def command(tmp_path: Path, *tasks: str, method: str = "fork") -> list[str]:
    return [sys.executable, str(script(tmp_path)), method, str(tmp_path / "logs"), *tasks]


ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))}


def test_results_failures_and_deaths_come_back_and_end_nothing_else(tmp_path: Path):
    tasks = ("one", "raises", "dies", "two", "three")
    done = subprocess.run(command(tmp_path, *tasks), env=ENVIRONMENT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)  # nothing a worker prints comes through
    results = found["results"]
    assert list(results) and set(results) == set(tasks) and found["most"] == 2 and found["ticks"] >= 3
    assert results["raises"] == "ValueError: expected this, got that"
    assert results["dies"] == "the process ended by signal 9, as the system does when memory runs out"
    pids = {results[task]["pid"] for task in ("one", "two", "three")}
    assert len(pids) == 3 and found["pid"] not in pids
    assert {results[task]["threads"] for task in ("one", "two", "three")} == {3}
    logs = {path.name: path.read_text() for path in (tmp_path / "logs").iterdir()}
    assert logs.keys() == {"raises.log", "dies.log"}  # those of what went well are gone
    assert "hello from raises" in logs["raises.log"] and "Traceback" in logs["raises.log"]


@pytest.mark.slow
def test_workers_for_cuda_are_forked_from_a_clean_server(tmp_path: Path):
    words = command(tmp_path, "one", "raises", "two", method="server")
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    results = json.loads(done.stdout)["results"]
    assert results["raises"] == "ValueError: expected this, got that"
    assert results["one"]["threads"] == 3 and results["one"]["pid"] != results["two"]["pid"]


@pytest.mark.parametrize("method", ["fork", "server"])
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path, method: str):
    words = command(tmp_path, "sleeps", method=method)
    with subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        assert alive(worker)
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(worker)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
