"Every option is declared once; config, command line, functions and the table of keys all come from that declaration."
import ast
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

@pytest.mark.parametrize("key, least", [("lora_r", "at least 1"), ("lora_alpha", "more than 0")])
def test_an_adapter_of_size_0_is_refused_and_without_an_adapter_it_says_nothing(tmp_path, key, least):
    from segtune.config import load_config
    config = tmp_path / "c.yml"
    config.write_text(f"base_model: bundled:tiny\nadapter: lora\nlora_target_linear: true\n{key}: 0\ndatasets: [{{path: a.jsonl}}]\n")
    with pytest.raises(ConfigError, match=f"c.yml:4 {key}: expected {least}, got 0."): load_config(config)
    config.write_text(config.read_text().replace("adapter: lora\n", ""))
    assert getattr(load_config(config)[0], key) is None


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


# ---- no function has a default of its own

# Arguments that share an option's name and mean something else, or are asked at a place that knows nothing of a config
OTHERS = {
    "training.trainer.SegmentTrainer.save_model.output_dir": "as transformers declares the method",
    "axolotl.chat_template._chat_template_legacy.chat_template": "the older format's own template",
    "data_commands.inspect.seed": "which rows to look at", "look.view.sample.seed": "which rows to look at",
    "data_commands.preprocess.debug": "a flag of the command",
    "demo.write_starter.base_model": "what a starter project is written for", "start_commands.init.base_model": "the same",
    "encoder.Encoder.__init__.boundary": "there is no format that could say it", "pieces.row2pieces.boundary": "the same",
    "formats.base.guard_special.boundary": "the same", "formats.base.FormatContext.boundary": "the same",
    "formats.base.Format.boundary": "what a format sets", "data.formats.RowFormat.special_in_data": "what the type sets",
    "formats.base.FormatContext.special_in_data": "the same",
    "formats.base.FormatContext.sequence_len": "no limit",
    "data.formats.find_format.sequence_len": "no limit", "look.page.overview_html.sequence_len": "no line in the picture",
    "look.report.write_report.sequence_len": "the same", "look.stats.totals.sequence_len": "the same",
    "look.stats.plot_lengths.sequence_len": "the same", "look.stats.stats_lines.sequence_len": "the same",
    "lint.rules.LintContext.sequence_len": "no limit",
    "training.trainer.make_trainer.optimizer": "an optimizer itself", "training.trainer.OwnChoices.create_scheduler.optimizer": "the same",
    "training.rates.LearningRates.loraplus_lr_embedding": "what the option's meaning promises where it is not given",
    "training.interruptions.StopSignals.interrupted.step": "the number of a step",
}

def own_defaults(tree, path=()):
    "`(path, name of an argument or a field, its default)` of all functions and classes"
    for node in ast.iter_child_nodes(tree):
        named = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        here = (*path, node.name) if named else path
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            a = node.args
            before = a.posonlyargs + a.args
            pairs = [*zip(before[len(before) - len(a.defaults):], a.defaults, strict=True), *zip(a.kwonlyargs, a.kw_defaults, strict=True)]
            yield from ((here, arg.arg, value) for arg, value in pairs if value is not None)
        if isinstance(node, ast.ClassDef):
            fields = [o for o in node.body if isinstance(o, ast.AnnAssign) and o.value is not None and isinstance(o.target, ast.Name)]
            yield from ((here, o.target.id, o.value) for o in fields)
        yield from own_defaults(node, here)

def repeats_a_default(key, value):
    "Is this a value of its own where the option declares one? None, false and empty say that nothing is asked."
    if isinstance(value, ast.Call | ast.Attribute): return False   # read from the declaration
    try: own = ast.literal_eval(value)
    except ValueError: return True
    declared = Config.model_fields[key].get_default(call_default_factory=True)
    return bool(own) or bool(declared) and Config.model_fields[key].is_required() is False

def test_no_function_has_a_default_of_its_own_for_an_option():
    found = set()
    for file in (ROOT / "segtune").rglob("*.py"):
        if file.stem in ("_modidx", "options", "config"): continue
        module = ".".join(file.relative_to(ROOT / "segtune").with_suffix("").parts)
        tree = ast.parse(file.read_text(encoding="utf-8"))
        found |= {".".join([module, *at, k]) for at, k, v in own_defaults(tree) if k in Config.model_fields and repeats_a_default(k, v)}
    assert found - set(OTHERS) == set(), "read the default from the declaration, as in SeedOptions().seed"

@pytest.mark.parametrize("text, wanted", [("def f(seed=42): 0", True), ("def f(*, on_bad='error'): 0", True), ("class A:\n    sequence_len: int = 512", True),
                                          ("def f(seed=SeedOptions().seed): 0", False), ("def f(tokens=()): 0", False), ("def f(fp16=None): 0", False),
                                          ("def f(sequence_len=None): 0", True), ("class A:\n    def f(self, lora_dropout=0.1): 0", True)])
def test_what_is_a_default_of_its_own(text, wanted):
    assert [repeats_a_default(k, v) for _, k, v in own_defaults(ast.parse(text))] == [wanted]
