"Runs that meet the world: several at once, several processes, signals, full disks, damaged files, odd options."

# ruff: noqa: F811
import csv
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

from segtune.segments import ConfigError, DataError, RunError

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

SCRIPT = """
import json, os, sys, time
from segtune.segments import SegtuneError
from segtune.training.run import train
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
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments(*args, **options)],
        text=True,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),   # a background shell starts its jobs deaf to Ctrl-C
    )


def wait_for(process, text):
    for line in process.stdout:
        if line.startswith(text):
            return line
    raise AssertionError(f"{text!r} was not said: {process.stderr.read()[-2000:]}")


# ---- two at once


def test_two_runs_in_one_directory_are_kept_apart(base, prepared, tmp_path):
    from segtune.training.checkpoints import hold_directory

    with (
        hold_directory(tmp_path / "out"),
        pytest.raises(RunError, match=f"is being trained by process {os.getpid()}\\."),
    ):
        run(base, prepared, tmp_path / "out", max_steps=1)
    assert run(base, prepared, tmp_path / "out", max_steps=1)[0].steps == 1
    assert not (tmp_path / "out/.lock").exists()


def test_a_killed_run_leaves_no_lock_behind(base, prepared, tmp_path):
    p = start(base, prepared, tmp_path / "out", pause=0.5, max_steps=9)
    wait_for(p, "step")
    with pytest.raises(RunError, match=f"is being trained by process {p.pid}\\."):
        run(base, prepared, tmp_path / "out", max_steps=1)
    p.kill()
    p.wait()
    assert run(base, prepared, tmp_path / "out", max_steps=1)[0].steps == 1


# ---- told to stop


@pytest.mark.parametrize("sent,code,name", [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")])
def test_a_run_told_to_stop_saves_and_says_how_to_go_on(base, prepared, tmp_path, sent, code, name):
    p = start(base, prepared, tmp_path / "out", pause=0.2)
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
    setup = (
        "import segtune.training.run as t, signal\ndef stop(*a, **k): signal.raise_signal(signal.SIGTERM)\nt.plan_run = stop"
    )
    p = start(base, prepared, tmp_path / "out", setup=setup)
    _, err = p.communicate()
    assert p.returncode == 143 and "stopped by SIGTERM at once" in err and "Traceback" not in err


def test_signals_are_given_back(base, prepared, tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    run(base, prepared, tmp_path, max_steps=1)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


# ---- the best weights

WORSE = dict(
    eval_set=rows([([0, 200, 201, 202], [-100, 200, 201, 202])]), eval_steps=2, num_epochs=10, learning_rate=3e-2
)


def held_out(base, adapter, eval_set):
    from peft import PeftModel

    from segtune.training.heldout import heldout_loss
    from segtune.training.model import load_base

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
    result, lines = run(
        base, data, tmp_path, eval_set=held, early_stopping_patience=2, eval_steps=4, learning_rate=0.03
    )
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
    with pytest.raises(Stop):
        run(base, prepared, tmp_path / "a", log=stopping_at(20), **more)
    shutil.move(tmp_path / "a", tmp_path / "b")
    moved, _ = run(base, prepared, tmp_path / "b", resume=True, **more)
    assert moved.eval_after == whole.eval_after and weights(tmp_path / "b") == weights(tmp_path / "whole")


@pytest.mark.parametrize(
    "more,expected",
    [
        (dict(save_strategy="no"), []),
        (dict(save_strategy="epoch"), [3, 6]),
        (dict(save_strategy="steps", save_steps=4), [4, 6]),
    ],
)
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
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        str(processes),
        "--master_port",
        str(port),
        str(tmp_path / "run.py"),
        *arguments(base, data, out, **options),
    ]
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
    for k in a:
        assert torch.allclose(a[k], b[k], atol=1e-4), k
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


# ---- disks and files

LIMIT = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))"


@pytest.mark.parametrize("limit", [10, 10_000, 40_000], ids=["run.json", "adapter", "optimizer"])
def test_a_full_disk_is_one_sentence_and_blocks_nothing(base, prepared, tmp_path, limit):
    out = tmp_path / "out"
    p = start(base, prepared, out, setup=LIMIT.format(limit), max_steps=2, save_steps=1)
    _, err = p.communicate()
    assert p.returncode == 1 and len(err.strip().splitlines()) == 1, err
    assert "cannot be written" in err and "Free some space" in err and str(out) in err
    assert not [o for o in out.rglob("*") if o.name.endswith(".part")]
    assert run(base, prepared, out, max_steps=2, save_steps=1, resume=True)[0].steps == 2


def test_a_directory_that_cannot_be_made_is_one_sentence(base, prepared, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match=r"output_dir: .*is a file, so nothing can lie below it") as e:
        run(base, prepared, tmp_path / "file/out", max_steps=1)
    assert e.value.exit_code == 2 and (tmp_path / "file").read_text() == "mine"


def test_files_have_the_permissions_that_the_umask_gives(base, prepared, tmp_path):
    old = os.umask(0o027)
    try:
        run(base, prepared, tmp_path / "out", max_steps=1)
    finally:
        os.umask(old)
    files = [o for o in (tmp_path / "out").rglob("*") if o.is_file()]
    assert len(files) > 10 and {oct(o.stat().st_mode & 0o777) for o in files} == {"0o640"}


# ---- damaged files


@pytest.fixture(scope="session")
def stopped(base, prepared, tmp_path_factory):
    "A run with checkpoints 3 and 6 that was lost at step 8, and its end had it not been"
    d = tmp_path_factory.mktemp("stopped")
    with pytest.raises(Stop):
        run(base, prepared, d / "out", log=stopping_at(8), save_steps=3)
    run(base, prepared, d / "whole")
    return d / "out", weights(d / "whole")


@pytest.mark.parametrize(
    "name",
    [
        "adapter_model.safetensors",
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "trainer_state.json",
        "adapter_config.json",
        "complete.json",
    ],
)
def test_flipped_bytes_are_passed_over_for_the_checkpoint_before(base, prepared, stopped, tmp_path, name):
    out = Path(shutil.copytree(stopped[0], tmp_path / "out"))
    f = out / "checkpoint-6" / name
    data = bytearray(f.read_bytes())
    data[len(data) // 2] ^= 0xFF
    f.write_bytes(data)
    result, lines = run(base, prepared, out, save_steps=3, resume=True)
    assert [o for o in lines if o.startswith("checkpoint-6 is passed over") and "damaged" in o]
    assert (result.resumed_from, weights(out)) == (3, stopped[1])


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", '{"settings": 3}', '{"settings": {}, "finished": true}', "\x00\xff"]
)
@pytest.mark.parametrize("how", [{}, dict(resume=True), dict(auto_resume_from_checkpoints=True)])
def test_a_damaged_run_json_is_named(base, prepared, stopped, tmp_path, text, how):
    out = Path(shutil.copytree(stopped[0], tmp_path / "out"))
    (out / "run.json").write_text(text, encoding="latin-1")
    with pytest.raises(RunError, match=r"run\.json: is damaged.*--overwrite"):
        run(base, prepared, out, **how)


def test_a_damaged_run_json_can_be_overwritten(base, prepared, stopped, tmp_path):
    out = Path(shutil.copytree(stopped[0], tmp_path / "out"))
    (out / "run.json").write_text("{")
    run(base, prepared, out, overwrite=True)
    assert weights(out) == stopped[1]


@pytest.mark.parametrize("state", ["{", "[]", "{}", '{"global_step": "six", "log_history": []}'])
def test_a_damaged_trainer_state_is_passed_over(base, prepared, stopped, tmp_path, state):
    "Also where the marker is from before there were digests"
    out = Path(shutil.copytree(stopped[0], tmp_path / "out"))
    d = out / "checkpoint-6"
    (d / "trainer_state.json").write_text(state)
    sizes = {o.name: o.stat().st_size for o in d.iterdir() if o.name != "complete.json"}
    (d / "complete.json").write_text(json.dumps(dict(files=sizes)))
    result, lines = run(base, prepared, out, save_steps=3, resume=True)
    assert "checkpoint-6 is passed over: trainer_state.json is damaged." in lines and result.resumed_from == 3


def test_a_checkpoint_to_resume_from_that_is_not_there(base, prepared, tmp_path):
    with pytest.raises(RunError, match="nowhere: cannot be resumed from: there is no such directory"):
        run(base, prepared, tmp_path / "out", resume_from_checkpoint="nowhere")


def test_resuming_from_elsewhere_does_not_overwrite_another_run(base, prepared, stopped, tmp_path):
    run(base, prepared, tmp_path / "out", max_steps=1)
    with pytest.raises(RunError, match="holds a finished run"):
        run(base, prepared, tmp_path / "out", resume_from_checkpoint=stopped[0] / "checkpoint-6")
    result, _ = run(base, prepared, tmp_path / "new", resume_from_checkpoint=stopped[0] / "checkpoint-6")
    assert result.resumed_from == 6 and weights(tmp_path / "new") == stopped[1]


def test_other_held_out_rows_are_not_mixed_into_one_curve(base, prepared, tmp_path):
    with pytest.raises(Stop):
        run(base, prepared, tmp_path, log=stopping_at(8), save_steps=3, eval_steps=2, eval_set=rows(ROWS[:2]))
    result, lines = run(base, prepared, tmp_path, save_steps=3, eval_steps=2, eval_set=rows(ROWS[2:6]), resume=True)
    assert [o["step"] for o in result.history if "eval_loss" in o] == [8, 10, 12] and result.eval_before is None
    assert len(result.losses) == 12 and any("held-out rows are others" in o for o in lines)
    with open(tmp_path / "loss.csv") as f:
        table = list(csv.DictReader(f))
    assert [o["step"] for o in table if o["eval_loss"]] == ["8", "10", "12"]


# ---- failures


def test_a_failed_run_ends_with_1_and_promises_no_checkpoint_that_is_not_there(base, prepared, tmp_path):
    bad = dict(learning_rate=1e30, max_grad_norm=1e30, lr_scheduler="constant")
    with pytest.raises(RunError, match="There is no checkpoint from before this") as e:
        run(base, prepared, tmp_path, **bad)
    assert e.value.exit_code == 1
    (tmp_path / "run.json").write_text(json.dumps(dict(settings={}, finished=False, result=None)))
    with pytest.raises(RunError, match="holds a run with other settings") as e:
        run(base, prepared, tmp_path, resume=True)
    assert e.value.exit_code == 2


@pytest.mark.parametrize(
    "error",
    [
        "torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB')",
        "MemoryError()",
        "RuntimeError('DefaultCPUAllocator: can\\'t allocate memory: you tried')",
    ],
)
def test_out_of_memory_says_what_helps(base, prepared, tmp_path, monkeypatch, error):
    from transformers import Trainer

    def too_much(*args, **kwargs):
        raise eval(error)

    monkeypatch.setattr(Trainer, "training_step", too_much)
    with pytest.raises(RunError, match=r"step 1: out of memory .*lower micro_batch_size \(it is 2\)") as e:
        run(base, prepared, tmp_path, max_steps=1)
    assert e.value.exit_code == 1 and "gradient_checkpointing: true" in str(e.value)


def test_rows_without_a_trained_token_name_the_key_that_leaves_them_out(base, tmp_path):
    data = rows([*ROWS, *[([0, 5, 6], [-100] * 3)] * 9])
    with pytest.raises(DataError, match="on_bad: skip"):
        run(base, data, tmp_path, micro_batch_size=1, gradient_accumulation_steps=1)


# ---- optimizers, schedules, learning rates of their own


def usable():
    from segtune.training.optimizers import usable_optimizers

    return usable_optimizers()


@pytest.mark.parametrize("optimizer", usable())
def test_every_optimizer_that_is_offered_trains(base, prepared, tmp_path, optimizer):
    result, _ = run(base, prepared, tmp_path, max_steps=2, optimizer=optimizer)
    assert result.steps == 2


@pytest.mark.parametrize(
    "optimizer,package",
    [
        ("lion_8bit", "bitsandbytes"),
        ("adamw_torch_8bit", "torchao"),
        ("galore_adamw", "galore_torch"),
        ("schedule_free_adamw", "schedulefree"),
        ("apollo_adamw", "apollo_torch"),
    ],
)
def test_an_optimizer_that_is_not_installed_names_its_package(base, prepared, tmp_path, optimizer, package):
    if optimizer in usable():
        pytest.skip(f"{package} is installed")
    with pytest.raises(ConfigError, match=f"the package {package}, which is not installed"):
        run(base, prepared, tmp_path, optimizer=optimizer)


KWARGS = dict(
    cosine_with_min_lr=dict(min_lr_rate=0.1),
    cosine_warmup_with_min_lr=dict(min_lr=1e-5),
    warmup_stable_decay=dict(num_decay_steps=1),
    reduce_lr_on_plateau=dict(patience=0),
)


def schedules():
    from transformers.training_args import SchedulerType

    return [*(o.value for o in SchedulerType), "one_cycle", "rex"]


@pytest.mark.parametrize("name", schedules())
def test_every_schedule_trains(base, prepared, tmp_path, name):
    more = dict(eval_set=rows(ROWS[:1])) if name in ("reduce_lr_on_plateau", "greedy") else {}
    result, _ = run(
        base,
        prepared,
        tmp_path,
        max_steps=3,
        warmup_steps=1,
        lr_scheduler=name,
        lr_scheduler_kwargs=KWARGS.get(name),
        **more,
    )
    assert result.steps == 3


@pytest.mark.parametrize(
    "more,said",
    [
        (dict(lr_scheduler="cosine_with_min_lr"), "min_lr_rate: 0.1"),
        (dict(lr_scheduler="warmup_stable_decay"), "num_decay_steps"),
        (dict(lr_scheduler="one_cycle", lr_scheduler_kwargs=dict(nonsense=1)), "nonsense"),
        (dict(lr_scheduler="reduce_lr_on_plateau"), "val_set_size"),
        (dict(save_strategy="best"), "val_set_size"),
        (dict(optimizer="came_pytorch"), "axolotl's own"),
        (dict(optim_args=dict(a=1)), "takes none"),
        (dict(adapter=None, loraplus_lr_ratio=4), "adapter: lora"),
        (dict(embedding_lr=0), "more than 0"),
    ],
)
def test_odd_options_are_refused_before_the_first_step(base, prepared, tmp_path, more, said):
    with pytest.raises(ConfigError) as e:
        run(base, prepared, tmp_path / "out", **more)
    assert said in str(e.value)


@pytest.mark.parametrize(
    "more",
    [
        dict(optimizer="muon"),
        dict(loraplus_lr_ratio=8),
        dict(lr_scheduler="one_cycle"),
        dict(lr_scheduler="rex", warmup_steps=2),
        dict(cosine_min_lr_ratio=0.1, cosine_constant_lr_ratio=0.5),
        dict(curriculum_sampling=True),
        dict(embedding_lr=1e-2, lora_modules_to_save=["embed_tokens"]),
        dict(optimizer="sgd", optim_args="momentum=0.9"),
        dict(lr_groups=[dict(name="a", modules=["q_proj"], lr=1e-2)]),
    ],
    ids=lambda o: next(iter(o)),
)
def test_resuming_holds_for_what_is_ours(base, prepared, tmp_path, more):
    if more.get("optimizer") == "muon" and "muon" not in usable():
        pytest.skip("torch has no Muon")
    more = dict(more, max_steps=6, save_steps=2)
    run(base, prepared, tmp_path / "plain", max_steps=6)
    whole, _ = run(base, prepared, tmp_path / "whole", **more)

    def stop(line):
        if line.startswith("step 5/6"):
            raise Stop

    with pytest.raises(Stop):
        run(base, prepared, tmp_path / "a", log=stop, **more)
    result, _ = run(base, prepared, tmp_path / "a", resume=True, **more)
    assert result.resumed_from == 4 and weights(tmp_path / "a") == weights(tmp_path / "whole") != weights(
        tmp_path / "plain"
    )
    assert result.history == whole.history


def test_lora_plus_gives_b_its_own_learning_rate(base, prepared, tmp_path):
    "From zero, plain SGD changes B by its gradient times the rate, and A by nothing"
    more = dict(
        max_steps=1, optimizer="sgd", learning_rate=0.1, lora_dropout=0.0, max_grad_norm=0, lr_scheduler="constant"
    )
    run(base, prepared, tmp_path / "a", **more)
    run(base, prepared, tmp_path / "b", loraplus_lr_ratio=4, **more)
    a, b = adapter_tensors(tmp_path / "a"), adapter_tensors(tmp_path / "b")
    for k in a:
        assert torch.allclose(b[k], a[k] * 4 if "lora_B" in k else a[k], rtol=1e-4), k


def test_rows_are_trained_in_the_order_of_the_data(base, prepared, tmp_path):
    from segtune.training.plan import plan_run

    for more in (dict(curriculum_sampling=True), dict(shuffle_merged_datasets=False)):
        plan = plan_run(str(prepared), None, log=lambda o: None, output_dir=tmp_path, **more)
        assert [list(plan.order.order(e)) for e in (0, 1)] == [list(range(10))] * 2


@pytest.mark.parametrize(
    "more,said",
    [
        (dict(lr_scheduler="constant", warmup_steps=2), "warmup_steps is not used by lr_scheduler: constant"),
        (dict(tf32=True), "tf32 is not used"),
        (dict(lr_scheduler="linear", cosine_min_lr_ratio=0.1), "cosine_min_lr_ratio is not used"),
        (dict(shuffle_merged_datasets=False), "in the order of the data"),
        (dict(warmup_steps=100), "stays below learning_rate"),
    ],
)
def test_what_has_no_effect_is_said(base, prepared, tmp_path, more, said):
    if "tf32" in more and torch.accelerator.is_available():
        pytest.skip("here it has an effect")
    _, lines = run(base, prepared, tmp_path, max_steps=2, **more)
    assert len([o for o in lines if said in o]) == 1


@pytest.mark.parametrize(
    "pair,said",
    [
        (([0, 5, 9999], [-100, -100, 9999]), "token id 9999"),
        (([0, 5, 6], [-100, -100, 9999]), "token id 9999"),
        (([0, 5, 6], [-100, -1, 6]), "-1"),
        (([0] + [5] * 200, [-100] + [5] * 200), "128"),
    ],
)
def test_what_the_model_cannot_read_is_named_before_the_first_step(base, tmp_path, pair, said):
    for how in (dict(train_set=rows([*ROWS, pair])), dict(train_set=rows(), eval_set=rows([pair]))):
        with pytest.raises(DataError, match=said):
            run(base, how.pop("train_set"), tmp_path / "out", max_steps=1, **how)


# ---- threads


def test_idle_threads_sleep_unless_told_otherwise():
    code = (
        "import os, sys; import segtune.training.packages; assert 'torch' not in sys.modules;"
        "print(os.environ['OMP_WAIT_POLICY'])"
    )
    for given, expected in ((None, "PASSIVE"), ("ACTIVE", "ACTIVE")):
        env = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"} | (
            dict(OMP_WAIT_POLICY=given) if given else {}
        )
        assert subprocess.check_output([sys.executable, "-c", code], text=True, env=env).split() == [expected]


# ---- what a run leaves


def test_a_run_says_what_it_was_made_with_and_of(base, prepared, tmp_path):
    run(base, prepared, tmp_path / "out", eval_set=prepared, max_steps=3)
    told = json.loads((tmp_path / "out" / "run.json").read_text())["watched"]
    assert told["rung"] in told["proof"] and {"torch", "transformers", "peft"} <= set(told["environment"]["versions"])
    session = told["session"]
    assert session["steps"] == 3 and session["seconds"] > 0 and session["tokens"] > session["trained_tokens"] > 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\n") and "held-out loss" in card and str(base.parent) not in card and "- `lora_r`: 4" in card


def test_a_readme_that_somebody_wrote_stays(base, prepared, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "README.md").write_text("Mine.")
    run(base, prepared, tmp_path / "out", max_steps=1)
    run(base, prepared, tmp_path / "out", max_steps=1, overwrite=True, seed=8)
    assert (tmp_path / "out" / "README.md").read_text() == "Mine."


def test_tokens_are_counted_alike_on_every_rung(base, prepared, tmp_path):
    def counts(rung):
        run(base, prepared, tmp_path / rung, max_steps=4, lora_dropout=0, step=rung)
        session = json.loads((tmp_path / rung / "run.json").read_text())["watched"]["session"]
        return session["tokens"], session["trained_tokens"]
    assert counts("share") == counts("pack") == counts("pad") == counts("plain")


def test_bf16_is_honoured_on_a_cpu_that_multiplies_in_it(base, prepared, tmp_path, monkeypatch):
    "Frozen weights in 16 bits, the adapter in 32; auto stays as it is"
    from segtune.training import model as loading
    from segtune.training.adapters import adapt
    monkeypatch.setattr(loading, "_has_fast_bf16", lambda: True)
    made = adapt(loading.load_base(base, bf16=True), lora_target_linear=True)
    kinds = {p.requires_grad: p.dtype for p in made.parameters()}
    assert kinds == {False: torch.bfloat16, True: torch.float32}
    how = dict(max_steps=6, lora_dropout=0)
    low, said = run(base, prepared, tmp_path / "low", bf16=True, **how)
    auto, _ = run(base, prepared, tmp_path / "auto", bf16="auto", **how)
    plain, _ = run(base, prepared, tmp_path / "plain", bf16=False, **how)
    assert auto.losses == plain.losses and low.losses != plain.losses
    assert low.losses == pytest.approx(plain.losses, rel=2e-2) and low.rung != "plain"
    assert not any("float32" in o for o in said)


# ---- what is handed on

def test_trackers_are_told_what_is_logged(base, prepared, tmp_path, monkeypatch):
    "`report_to` reaches the Trainer: each tracker sees the losses, and none is told anything without it"
    from transformers import TrainerCallback
    from transformers.integrations import integration_utils
    seen = {}
    def tracker(name):
        class Recorder(TrainerCallback):
            def on_log(self, args, state, control, logs=None, **kwargs): seen.setdefault(name, []).append(logs)
        return Recorder
    for name in ("tensorboard", "wandb"): monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, name, tracker(name))
    result, _ = run(base, prepared, tmp_path / "one", max_steps=3, report_to=["tensorboard", "wandb"], eval_set=prepared)
    assert seen.keys() == {"tensorboard", "wandb"}
    for logs in seen.values():
        assert [o["loss"] for o in logs if "loss" in o] == result.losses and [o["eval_loss"] for o in logs if "eval_loss" in o] == result.eval_losses
    seen.clear()
    run(base, prepared, tmp_path / "two", max_steps=1)
    assert seen == {}

def test_a_tracker_that_is_not_installed_is_one_sentence(base, prepared, tmp_path, monkeypatch):
    from transformers import TrainerCallback
    from transformers.integrations import integration_utils

    from segtune.segments import MissingError
    class Absent(TrainerCallback):
        def __init__(self): raise RuntimeError("WandbCallback requires wandb to be installed. Run `pip install wandb`.")
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "wandb", Absent)
    with pytest.raises(MissingError, match=r"report_to: wandb cannot be used \(.*pip install wandb") as e: run(base, prepared, tmp_path, report_to="wandb")
    assert e.value.exit_code == 2

@pytest.mark.parametrize("more,bits", [(dict(adapter="qlora", load_in_4bit=True), 4), (dict(adapter="lora", load_in_8bit=True), 8)])
def test_quantized_weights_are_asked_for_as_qlora_does(base, tmp_path, monkeypatch, more, bits):
    "what transformers is handed, without the package and the GPU that would do it"
    from segtune.options import ModelOptions
    from segtune.training import model
    seen = {}
    class Handed(ConfigError): "passes through the messages about models"
    def from_pretrained(path, **how):
        seen.update(how)
        raise Handed("handed on")
    monkeypatch.setattr(model, "need_packages", lambda *args: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *args: True)
    monkeypatch.setattr(model.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    given = {k: v for k, v in more.items() if k in ModelOptions.model_fields}
    with pytest.raises(Handed): model.load_base(base, **given)
    q = seen["quantization_config"]
    assert (q.load_in_4bit, q.load_in_8bit) == (bits == 4, bits == 8)
    if bits == 4: assert (q.bnb_4bit_quant_type, q.bnb_4bit_use_double_quant, q.bnb_4bit_compute_dtype) == ("nf4", True, torch.bfloat16)

def test_what_quantized_weights_need_is_said_before_they_are_loaded(base, prepared, tmp_path, monkeypatch):
    from segtune.segments import MissingError
    from segtune.training import packages
    from segtune.training.model import quantization
    with pytest.raises(ConfigError, match=r"load_in_4bit: needs a CUDA GPU.*Set load_in_4bit: false"): run(base, prepared, tmp_path, adapter="qlora", load_in_4bit=True)
    monkeypatch.setattr(packages, "find_spec", lambda o: None if o == "bitsandbytes" else object())
    with pytest.raises(MissingError, match=r"bitsandbytes is not installed.*Run: pip install bitsandbytes") as e: quantization(load_in_4bit=True, gpu=True)
    assert e.value.exit_code == 2
