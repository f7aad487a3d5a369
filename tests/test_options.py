"Every option is declared once; config, command line, functions and the table of keys all come from that declaration."
import inspect
import json
from pathlib import Path

import pytest
import yaml

import segtune.config
import segtune.options
from segtune.config import Config
from segtune.declare import Options, make_options, options_table
from segtune.options import LoraOptions, TrainOptions
from segtune.segments import ConfigError

ROOT = Path(__file__).resolve().parent.parent
GROUPS = [c for m in (segtune.options, segtune.config) for c in vars(m).values()
          if inspect.isclass(c) and issubclass(c, Options) and c.__module__ == m.__name__]

def declarations():
    "Option -> the groups whose body declares it"
    found = {}
    for c in GROUPS:
        for k in vars(c).get("__annotations__", {}):
            if k in c.model_fields: found.setdefault(k, []).append(c)
    return found

@pytest.mark.parametrize("key", sorted(Config.model_fields))
def test_every_key_has_one_declaration(key):
    (group,) = declarations()[key]
    here, there = group.model_fields[key], Config.model_fields[key]
    assert (here.default, here.annotation, here.description) == (there.default, there.annotation, there.description)
    assert here.description and here.json_schema_extra["axolotl"]

def test_every_declared_option_is_a_key_of_the_config():
    assert set(declarations()) == set(Config.model_fields)

def test_a_config_is_every_group():
    assert all(issubclass(Config, c) for c in GROUPS)

def test_the_page_of_config_keys_shows_every_key():
    cells = json.loads((ROOT / "nbs/guides/config_keys.ipynb").read_text(encoding="utf-8"))["cells"]
    shown = "".join("".join(o["data"]["text/markdown"]) + "\n" for c in cells for o in c.get("outputs", []) if "text/markdown" in o.get("data", {}))
    for line in options_table(Config).splitlines()[2:]: assert line in shown, "run tools/notebooks.py nbs/guides/config_keys.ipynb"


# ---- what a run records is what it recorded before options had one declaration

FROZEN = json.loads((Path(__file__).parent / "data/run_settings.json").read_text(encoding="utf-8"))
CONFIGS = dict(
    least={},
    whole=dict(adapter="lora", lora_r=4, lora_alpha=8, lora_target_linear=True, lora_dropout=0.1, val_set_size=0.2, max_steps=3, num_epochs=2,
               learning_rate=1e-3, warmup_steps=2, weight_decay=0.1, adam_beta2=0.95, save_steps=2, eval_steps=1, early_stopping_patience=2,
               optimizer="adamw_torch", data_seed=7, gradient_checkpointing=True, fp16=False, tf32=False, peft_use_rslora=True,
               lisa_step_interval=4, sequence_len=256, seed=3),
    odd=dict(adam_beta1=0, adam_epsilon=0, group_by_length=False, lora_target_linear=0, curriculum_sampling=None, lora_alpha=16, num_epochs=1,
             report_to=[], lr_scheduler_kwargs={}, load_best_model_at_end=False, bf16=False, eval_strategy="no"))
CALLS = dict(
    py_least={},
    py_lora=dict(lora_target_linear=True, max_steps=1, num_epochs=2, lora_alpha=4, tokens=["<x>"]),
    py_none=dict(adapter=None, fp16=None, adam_beta1=None, peft_layers_to_transform=[1], lora_target_modules=("q_proj",)))

class Settled(Exception): pass

@pytest.fixture
def settings(tmp_path, monkeypatch):
    "The settings of the run that is started next, which does not begin"
    import segtune.training.run as run
    monkeypatch.chdir(tmp_path)
    row = dict(segments=[dict(label=False, text="Q: Capital of France?\nA:"), dict(label=True, text=" Paris</s>")])
    (tmp_path / "a.jsonl").write_text((json.dumps(row) + "\n") * 10)
    made, settle = {}, run.run_settings
    def caught(*args, **more):
        made.update(json.loads(json.dumps(settle(*args, **more), default=str)))
        raise Settled
    monkeypatch.setattr(run, "run_settings", caught)
    return made

def open_project(tmp_path, **keys):
    from segtune.project import Project
    (tmp_path / "c.yml").write_text(yaml.safe_dump(dict(base_model="bundled:tiny", datasets=[dict(path="a.jsonl")], **keys)))
    return Project.open(tmp_path / "c.yml")

def check_frozen(settings, name):
    known = {**FROZEN["least"], **(FROZEN[name] if name != "least" else {})}
    for k in known: assert settings.get(k) == known[k], k
    assert {k for k, v in settings.items() if v is not None} <= set(known) | {"base_model", "tokenizer", "train_rows", "eval_rows"}

@pytest.mark.parametrize("name", CONFIGS)
def test_run_settings_of_a_config_stay(settings, tmp_path, name):
    with pytest.raises(Settled): open_project(tmp_path, **CONFIGS[name]).train(log=lambda o: None)
    check_frozen(settings, name)

@pytest.mark.parametrize("name", CALLS)
def test_run_settings_of_a_call_stay(settings, tmp_path, name):
    from segtune.training.run import train
    rows = open_project(tmp_path).rows()[0]
    with pytest.raises(Settled): train("bundled:tiny", rows, output_dir=tmp_path / "o", log=lambda o: None, **CALLS[name])
    check_frozen(settings, name)


# ---- as arguments

@pytest.mark.parametrize("given, said", [
    (dict(lora_rank=8), "lora_rank: unknown option. Did you mean lora_r?"),
    (dict(lora_r=0), "lora_r: expected at least 1, got 0."),
    (dict(lora_dropout="high"), "lora_dropout: expected a number, got 'high'."),
    (dict(foo=1), "foo: unknown option.")])
def test_an_argument_is_checked_as_a_key_is(given, said):
    with pytest.raises(ConfigError) as e: make_options(LoraOptions, given)
    assert str(e.value) == said

def test_groups_know_their_own_keys_only():
    assert set(TrainOptions.model_fields) < set(Config.model_fields)
