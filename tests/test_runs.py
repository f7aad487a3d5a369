"Runs that meet the world: several at once, several processes, signals, full disks, damaged files, odd options."
# ruff: noqa: F811
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from test_train import OPTIONS, ROWS, Stop, base, prepared, rows, run, stopping_at, weights  # noqa: F401

from segtune.segments import RunError

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

SCRIPT = """
import json, os, sys, time
from segtune.segments import SegtuneError
from segtune.train import train
import torch
torch.set_num_threads(1)
base, data, out, options, pause, setup = sys.argv[1:]
exec(setup)
def log(line):
    print(line, flush=True)
    if line.startswith('step'): time.sleep(float(pause))
try: train(base, data, output_dir=out, log=log, **json.loads(options))
except SegtuneError as e:
    if str(e): print(e, file=sys.stderr)
    sys.exit(e.exit_code)
"""

def arguments(base, data, out, pause=0, setup="", **options):
    return [str(base), str(data), str(out), json.dumps({**OPTIONS, **options}), str(pause), setup]

def start(*args, **options):
    "A training run in a process of its own"
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments(*args, **options)], text=True, env=env,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)

def wait_for(process, text):
    for line in process.stdout:
        if line.startswith(text): return line
    raise AssertionError(f"{text!r} was not said: {process.stderr.read()[-2000:]}")


# ---- two at once

def test_two_runs_in_one_directory_are_kept_apart(base, prepared, tmp_path):
    from segtune.checkpoints import hold_directory
    with hold_directory(tmp_path / "out"), pytest.raises(RunError, match=f"is being trained by process {os.getpid()}\\."):
        run(base, prepared, tmp_path / "out", max_steps=1)
    assert run(base, prepared, tmp_path / "out", max_steps=1)[0].steps == 1
    assert not (tmp_path / "out/.lock").exists()

def test_a_killed_run_leaves_no_lock_behind(base, prepared, tmp_path):
    p = start(base, prepared, tmp_path / "out", pause=.5, max_steps=9)
    wait_for(p, "step")
    with pytest.raises(RunError, match=f"is being trained by process {p.pid}\\."):
        run(base, prepared, tmp_path / "out", max_steps=1)
    p.kill()
    p.wait()
    assert run(base, prepared, tmp_path / "out", max_steps=1)[0].steps == 1


# ---- told to stop

@pytest.mark.parametrize("sent,code,name", [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")])
def test_a_run_told_to_stop_saves_and_says_how_to_go_on(base, prepared, tmp_path, sent, code, name):
    p = start(base, prepared, tmp_path / "out", pause=.2)
    wait_for(p, "step  2/12")
    p.send_signal(sent)
    _, err = p.communicate()
    last = sorted(int(o.name[11:]) for o in (tmp_path / "out").glob("checkpoint-*"))[-1]
    assert (p.returncode, len(err.strip().splitlines())) == (code, 1), err
    assert f"stopped by {name} after step {last} of 12, which is saved" in err and "--resume" in err
    result, _ = run(base, prepared, tmp_path / "out", resume=True)
    run(base, prepared, tmp_path / "alone")
    assert result.resumed_from == last < 12 and weights(tmp_path / "out") == weights(tmp_path / "alone")

def test_a_run_told_to_stop_before_the_first_step(base, prepared, tmp_path):
    setup = "import segtune.train as t, signal\ndef stop(*a, **k): signal.raise_signal(signal.SIGTERM)\nt.plan_run = stop"
    p = start(base, prepared, tmp_path / "out", setup=setup)
    _, err = p.communicate()
    assert p.returncode == 143 and "stopped by SIGTERM at once" in err and "Traceback" not in err

def test_signals_are_given_back(base, prepared, tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    run(base, prepared, tmp_path, max_steps=1)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


# ---- the best weights

WORSE = dict(eval_set=rows([([0, 200, 201, 202], [-100, 200, 201, 202])]), eval_steps=2, num_epochs=10, learning_rate=3e-2)

def held_out(base, adapter, eval_set):
    from peft import PeftModel

    from segtune.adapt import load_base
    from segtune.trainer import heldout_loss
    total, n = heldout_loss(PeftModel.from_pretrained(load_base(base), adapter), eval_set)
    return total / n

def test_early_stopping_keeps_the_best_weights_and_says_both(base, prepared, tmp_path):
    result, lines = run(base, prepared, tmp_path, early_stopping_patience=2, **WORSE)
    best, last = min(result.eval_losses), result.eval_losses[-1]
    assert last > best == result.eval_after == pytest.approx(held_out(base, tmp_path, WORSE["eval_set"]), abs=1e-5)
    assert any(f"({best:.4f})" in o and f"is {last:.4f}" in o for o in lines)

def test_the_best_weights_may_be_those_before_training(base, prepared, tmp_path):
    "Each step makes the one answer likelier, and the other less likely"
    data, held = rows([([0, 5, 6], [-100, -100, 6])] * 8), rows([([0, 5, 9], [-100, -100, 9])])
    result, lines = run(base, data, tmp_path, eval_set=held, early_stopping_patience=2, eval_steps=4, learning_rate=0.03)
    assert result.kept_step == 0 and result.eval_after == result.eval_losses[0] == min(result.eval_losses)
    assert result.eval_after == pytest.approx(held_out(base, tmp_path, held), abs=1e-5)
    assert any("Lower learning_rate" in o for o in lines)

def test_keeping_the_best_leaves_save_steps_as_they_are(base, prepared, tmp_path):
    result, _ = run(base, prepared, tmp_path, load_best_model_at_end=True, save_steps=5, **WORSE)
    there = {int(o.name[11:]) for o in tmp_path.glob("checkpoint-*")}
    best = result.history[[o.get("eval_loss") for o in result.history].index(min(result.eval_losses))]["step"]
    assert {5, 10, 15, 20, 25, 30, best} <= there and result.eval_after == min(result.eval_losses)

def test_the_best_weights_are_found_when_the_directory_was_moved(base, prepared, tmp_path):
    more = dict(WORSE, load_best_model_at_end=True)
    whole, _ = run(base, prepared, tmp_path / "whole", **more)
    with pytest.raises(Stop): run(base, prepared, tmp_path / "a", log=stopping_at(20), **more)
    shutil.move(tmp_path / "a", tmp_path / "b")
    moved, _ = run(base, prepared, tmp_path / "b", resume=True, **more)
    assert moved.eval_after == whole.eval_after and weights(tmp_path / "b") == weights(tmp_path / "whole")

@pytest.mark.parametrize("more,expected", [(dict(save_strategy="no"), []), (dict(save_strategy="epoch"), [3, 6]),
                                           (dict(save_strategy="steps", save_steps=4), [4, 6])])
def test_save_strategy(base, prepared, tmp_path, more, expected):
    run(base, prepared, tmp_path, max_steps=6, **more)
    assert sorted(int(o.name[11:]) for o in tmp_path.glob("checkpoint-*")) == expected

def test_save_strategy_best_saves_each_new_lowest_loss(base, prepared, tmp_path):
    result, _ = run(base, prepared, tmp_path, save_strategy="best", **WORSE)
    lowest, expected = float("inf"), []
    for o in result.history:
        if "eval_loss" in o and o["step"] and o["eval_loss"] < lowest:
            lowest = o["eval_loss"]
            expected.append(o["step"])
    assert sorted(int(o.name[11:]) for o in tmp_path.glob("checkpoint-*")) == expected

@pytest.mark.parametrize("strategy,expected", [("no", [0, 6]), ("epoch", [0, 3, 6]), ("steps", [0, 6])])
def test_eval_strategy(base, prepared, tmp_path, strategy, expected):
    result, _ = run(base, prepared, tmp_path, max_steps=6, eval_strategy=strategy, eval_set=rows(ROWS[:2]))
    assert [o["step"] for o in result.history if "eval_loss" in o] == expected


# ---- several processes

def two(base, data, out, tmp_path, processes=2, **options):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    (tmp_path / "run.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_port",
               str(port), str(tmp_path / "run.py"), *arguments(base, data, out, **options)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})

def adapter_tensors(out):
    from safetensors.torch import load_file
    return load_file(str(Path(out) / "adapter_model.safetensors"))

def same_run(base, data, tmp_path, **options):
    "Two processes make the steps of one"
    alone, _ = run(base, data, tmp_path / "alone", lora_dropout=0.0, **options)
    options["gradient_accumulation_steps"] = OPTIONS["gradient_accumulation_steps"] // 2
    res = two(base, data, tmp_path / "two", tmp_path, lora_dropout=0.0, **options)
    assert res.returncode == 0, res.stderr[-3000:]
    result = json.loads((tmp_path / "two/run.json").read_text())["result"]
    assert [o["loss"] for o in result["history"]] == pytest.approx(alone.losses, abs=1e-4)
    a, b = adapter_tensors(tmp_path / "alone"), adapter_tensors(tmp_path / "two")
    for k in a: assert torch.allclose(a[k], b[k], atol=1e-4), k
    return res

def test_two_processes_equal_one_where_rows_do_not_divide(base, tmp_path):
    "13 rows, four a step: a last step of one row, which only one process reads"
    rows([*ROWS, *ROWS[:3]]).save_to_disk(str(tmp_path / "rows"))
    res = same_run(base, tmp_path / "rows", tmp_path, num_epochs=2, optimizer="sgd", learning_rate=1.0)
    assert "find_unused_parameters" not in res.stderr
    said = [o for o in res.stdout.splitlines() if "parameters are trained" in o]
    assert len(said) == 1

@pytest.mark.slow
@pytest.mark.parametrize("n", [27, 2, 9, 14])
def test_two_processes_equal_one_for_any_number_of_rows(base, tmp_path, n):
    rows((ROWS * 3)[:n]).save_to_disk(str(tmp_path / "rows"))
    same_run(base, tmp_path / "rows", tmp_path, num_epochs=3, optimizer="sgd", learning_rate=1.0)
