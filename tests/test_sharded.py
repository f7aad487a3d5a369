"A model shared out by FSDP gives the losses and the adapter of one process; DeepSpeed and torch.compile reach transformers."
# ruff: noqa: F811  fixtures of test_train are arguments here
import json
import os
import socket
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from test_step_training import MORE, SHARED
from test_train import base, rows, run  # noqa: F401  `base` is a fixture

from segtune.config import load_config
from segtune.segments import ConfigError, MissingError
from segtune.training import arguments, processes
from segtune.training.arguments import log_eval_save_args, training_arguments
from segtune.training.batches import count_steps
from segtune.training.step import rungs

FSDP = dict(fsdp_version=2, fsdp_config=dict(auto_wrap_policy="TRANSFORMER_BASED_WRAP", reshard_after_forward=True))
# one pair of processes makes all runs, one after the other; a run that names `undo` is made again from that checkpoint
SCRIPT = '''
import json, shutil, sys, torch
from pathlib import Path
torch.set_num_threads(1)
from accelerate import PartialState
from segtune.training.run import train
base, data, out, runs = sys.argv[1:]
for name, more in json.loads(runs).items():
    undo = more.pop("undo", None)
    where = Path(out) / name
    held = data if more.pop("held", False) else None
    train(base, data, output_dir=where, eval_set=held, log=None, **more)
    if undo is None: continue
    if PartialState().is_main_process:
        state = json.loads((where / "run.json").read_text())
        (where / "run.json").write_text(json.dumps(dict(state, finished=False, result=None)))
        shutil.copytree(where, where.with_name(name + "-whole"))
        (where / "adapter_model.safetensors").unlink()
        for o in where.glob("checkpoint-*"):
            if int(o.name[11:]) > undo: shutil.rmtree(o)
    PartialState().wait_for_everyone()
    train(base, data, output_dir=where, eval_set=held, log=None, resume=True, **more)
'''

def in_two(tmp_path, base, runs):
    "What `run.json` says of each run, made by two processes"
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    (tmp_path / "run.py").write_text(SCRIPT)
    rows(SHARED).save_to_disk(str(tmp_path / "rows"))
    runs = {k: dict(MORE, gradient_accumulation_steps=1, **FSDP, **v) for k, v in runs.items()}
    res = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port), str(tmp_path / "run.py"), str(base),
                          str(tmp_path / "rows"), str(tmp_path / "two"), json.dumps(runs)], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=500)
    assert res.returncode == 0, "\n".join(o for o in res.stderr.splitlines() if o.startswith("[rank"))[-3000:]
    return {k: json.loads((tmp_path / "two" / k / "run.json").read_text()) for k in runs}

def losses(told): return [o["loss"] for o in told["result"]["history"] if "loss" in o]

def held_out(told): return [o["eval_loss"] for o in told["result"]["history"] if "eval_loss" in o]

def same_weights(a, b, tolerance=1e-4):
    from safetensors.torch import load_file
    name = "adapter_model.safetensors" if (a / "adapter_config.json").exists() else "model.safetensors"
    a, b = load_file(a / name), load_file(b / name)
    assert a.keys() == b.keys()
    for k in a: torch.testing.assert_close(a[k], b[k], atol=tolerance, rtol=tolerance)

@pytest.mark.slow
def test_a_shared_out_model_equals_one_process(base, tmp_path):
    from segtune.training.load import load_adapter
    runs = {**{o: dict(step=o) for o in rungs}, "held": dict(held=True, save_steps=2, evals_per_epoch=1, undo=2), "last": dict(save_steps=2, undo=6),
            "packed": dict(sample_packing=True, sequence_len=48)}
    told = in_two(tmp_path, base, {**runs, "best": dict(held=True, load_best_model_at_end=True, learning_rate=0.5, evals_per_epoch=3, max_steps=2)})
    for name, more in runs.items():
        more = {k: v for k, v in more.items() if k not in ("held", "undo")}
        out = tmp_path / "alone" / name
        alone, _ = run(base, tmp_path / "rows", out, **{**MORE, **more}, eval_set=tmp_path / "rows" if runs[name].get("held") else None)
        assert losses(told[name]) == pytest.approx(alone.losses, rel=1e-5), name
        assert held_out(told[name]) == pytest.approx(alone.eval_losses, rel=1e-5), name
        assert told[name]["result"]["rung"] == alone.rung
        same_weights(tmp_path / "two" / name, out)
    for name in ("held", "last"):
        assert told[name]["result"]["resumed_from"] == runs[name]["undo"]
        assert (tmp_path / "two" / name / "adapter_model.safetensors").read_bytes() == (tmp_path / "two" / f"{name}-whole" / "adapter_model.safetensors").read_bytes()
    best = told["best"]["result"]
    step = min((o for o in best["history"] if "eval_loss" in o), key=lambda o: o["eval_loss"])["step"]
    assert best["kept_step"] == (step if step < best["steps"] else None) and best["eval_after"] == min(held_out(told["best"]))
    same_weights(tmp_path / "two/best", tmp_path / f"two/best/checkpoint-{step}", 0)
    ids = torch.tensor([[0, 5, 6, 7, 8]])
    ours, theirs = (load_adapter(tmp_path / o / "share")[0](input_ids=ids).logits for o in ("two", "alone"))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)

@pytest.mark.slow
def test_a_trained_head_is_shared_out_and_computed_plainly(base, tmp_path):
    runs = {"full": dict(adapter=None, lora_r=None, lora_alpha=None, lora_target_linear=False), "head": dict(lora_target_linear=False, lora_target_modules=["q_proj", "lm_head"])}
    told = in_two(tmp_path, base, runs)
    for name, more in runs.items():
        alone, _ = run(base, tmp_path / "rows", tmp_path / "alone" / name, **{**MORE, **more})
        assert told[name]["watched"]["rung"] == "plain" and "the head is trained, and FSDP gives each process a part of it" in told[name]["watched"]["proof"]
        assert losses(told[name]) == pytest.approx(alone.losses, rel=1e-5), name
        same_weights(tmp_path / "two" / name, tmp_path / "alone" / name)


# ---- the keys

LEAST = "base_model: bundled:tiny\ndatasets: [{path: a.jsonl}]\n"

@pytest.mark.parametrize("text", ["fsdp_version: 2\nfsdp_config: {offload_params: true, reshard_after_forward: true, transformer_layer_cls_to_wrap: LlamaDecoderLayer, state_dict_type: FULL_STATE_DICT}",
                                  "fsdp: [full_shard, auto_wrap, offload]\nfsdp_config: {fsdp_transformer_layer_cls_to_wrap: LlamaDecoderLayer}",
                                  "fsdp: full_shard auto_wrap\nfsdp_config: {fsdp_offload_params: true, fsdp_sharding_strategy: FULL_SHARD, fsdp_transformer_layer_cls_to_wrap: LlamaDecoderLayer}"])
def test_every_spelling_of_fsdp_means_the_same(tmp_path, text, monkeypatch):
    (tmp_path / "c.yml").write_text(LEAST + text)
    cfg, _ = load_config(tmp_path / "c.yml")
    monkeypatch.setenv("WORLD_SIZE", "2")
    seen = {}
    monkeypatch.setattr(arguments, "TrainingArguments", recorder(seen))
    training_arguments(4, log_eval_save_args(count_steps(8)), output_dir=tmp_path, fsdp=cfg.fsdp, fsdp_version=cfg.fsdp_version, fsdp_config=cfg.fsdp_config)
    assert seen["fsdp"] is True and seen["fsdp_config"] == dict(version=2, state_dict_type="FULL_STATE_DICT", auto_wrap_policy="TRANSFORMER_BASED_WRAP", cpu_offload=True,
                                                              reshard_after_forward=True, transformer_layer_cls_to_wrap="LlamaDecoderLayer")

class Recorded: pass

def recorder(seen):
    from transformers import TrainingArguments
    def make(**how):
        seen.update(how)
        return Recorded()
    make.__dataclass_fields__ = TrainingArguments.__dataclass_fields__
    return make

def test_a_single_process_shares_nothing_and_says_so(base, tmp_path):
    result, lines = run(base, rows(SHARED), tmp_path / "out", **{**MORE, **FSDP, "max_steps": 1})
    assert result.steps == 1 and "fsdp: there is one process, so nothing is shared out." in lines

def test_deepspeed_reaches_transformers(base, tmp_path, monkeypatch):
    (tmp_path / "zero2.json").write_text('{"zero_optimization": {"stage": 2}}')
    monkeypatch.setattr(processes, "find_spec", lambda o: object())
    monkeypatch.setattr(processes, "_needs_gpu", lambda gpu: None)
    seen = {}
    monkeypatch.setattr(arguments, "TrainingArguments", recorder(seen))
    training_arguments(4, log_eval_save_args(count_steps(8)), output_dir=tmp_path, deepspeed=str(tmp_path / "zero2.json"))
    assert seen["deepspeed"] == str(tmp_path / "zero2.json")

@pytest.mark.parametrize("installed,gpu,value,error,said", [(False, True, "zero2.json", MissingError, "Run: pip install deepspeed"), (True, False, "zero2.json", ConfigError, "deepspeed: needs a CUDA GPU"),
                                                           (True, True, "nosuch.json", ConfigError, "no such file: 'nosuch.json'"), (True, True, "broken.json", ConfigError, "is not JSON"),
                                                           (True, True, "list.json", ConfigError, "expected keys and values")])
def test_what_deepspeed_needs_is_said_before_the_model_is_loaded(base, tmp_path, monkeypatch, installed, gpu, value, error, said):
    for name, text in {"zero2.json": "{}", "broken.json": "{", "list.json": "[]"}.items(): (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes, "find_spec", lambda o: object() if installed else None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    with pytest.raises(error, match=said) as e: processes.deepspeed_settings(deepspeed=value)
    assert e.value.exit_code == 2

def test_a_deepspeed_file_is_looked_up_beside_the_config(tmp_path):
    from segtune.project import Project
    (tmp_path / "c.yml").write_text(LEAST + "deepspeed: zero2.json")
    (tmp_path / "zero2.json").write_text("{}")
    assert Project.open(tmp_path / "c.yml").cfg.deepspeed == str(tmp_path / "zero2.json")

def test_compiling_is_passed_on_and_never_by_default(tmp_path):
    def made(**how): return training_arguments(4, log_eval_save_args(count_steps(8)), output_dir=tmp_path, **how)
    assert not made().torch_compile and not made(torch_compile="auto").torch_compile
    args = made(torch_compile=True, torch_compile_backend="aot_eager")
    assert args.torch_compile and args.torch_compile_backend == "aot_eager"

@pytest.mark.slow
def test_a_compiled_model_trains_alike(base, tmp_path):
    plain, _ = run(base, rows(SHARED), tmp_path / "plain", **MORE)
    compiled, _ = run(base, rows(SHARED), tmp_path / "compiled", **MORE, torch_compile=True, torch_compile_backend="aot_eager")
    assert compiled.losses == pytest.approx(plain.losses, rel=1e-4)
