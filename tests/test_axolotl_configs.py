"axolotl's own example configs, unchanged; and configs that nobody should have written."
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from segtune.axolotl_keys import fate, is_given, why_ignored, why_refused
from segtune.config import Config, check, load_config
from segtune.declare import near_key
from segtune.models import bundled
from segtune.project import Project, open_config
from segtune.segments import ConfigError, SegtuneError

CONFIGS = json.loads((Path(__file__).parent / "data/axolotl_configs.json").read_text(encoding="utf-8"))["configs"]
PLAIN = {k: o["config"] for k, o in CONFIGS.items() if not o["not_plain_sft"]}
OTHER = {k: o for k, o in CONFIGS.items() if o["not_plain_sft"]}
LEAST = dict(base_model="m", datasets=[dict(path="a.jsonl")])

def refusals(values):
    "The keys that a config is refused by"
    try: check(values)
    except ConfigError as e: return {o["key"] for o in e.problems}
    return set()

# What axolotl can do and segtune cannot, with the number of plain configs that ask for it
NOT_DONE = {"peft.loftq_config": 1, "qat": 2, "relora": 1, "use_onebitllms": 1}

def test_plain_configs_load_or_ask_for_what_is_not_done():
    refused = {k: found for k, o in PLAIN.items() if (found := refusals(o))}
    assert all(found & set(NOT_DONE) for found in refused.values()), refused
    assert len(PLAIN) - len(refused) >= 215 and len(refused) == sum(NOT_DONE.values())

def test_open_config_agrees(tmp_path):
    "formats, styles and options of the entries too, as `segtune check` looks at them"
    for i, (name, values) in enumerate(PLAIN.items()):
        if refusals(values): continue
        (tmp_path / f"{i}.yml").write_text(yaml.safe_dump(values))
        try: open_config(tmp_path / f"{i}.yml")
        except ConfigError as e: assert "chat template" in str(e) or "thinking" in str(e), f"{name}: {e}"

WHY = dict(vision="processor_type", rl="rl", unfrozen_parameters="unfrozen_parameters", reward_model="reward_model", ebft="ebft",
           diffusion="diffusion", trl="trl", process_reward_model="process_reward_model", classifier="num_labels")

@pytest.mark.parametrize("name", sorted(OTHER))
def test_other_configs_are_refused_by_their_own_key(name):
    assert {WHY[o] for o in OTHER[name]["not_plain_sft"]} <= refusals(OTHER[name]["config"])

@pytest.mark.parametrize("name", sorted(PLAIN))
def test_what_is_ignored_is_noted_once(name):
    if refusals(PLAIN[name]): return
    told = "\n".join(check(PLAIN[name])[1])
    for k, v in PLAIN[name].items():
        what = fate(k, v) if is_given(v) else None
        assert told.count(f" {k}") >= 1 if what and what[0] == "ignored" else True, k
    assert sum(o.startswith("ignored") for o in told.splitlines()) <= 1

SCHEMA = [k for line in (Path(__file__).parent / "data/axolotl_schema_keys.txt").read_text().splitlines() if line[0] != "#" for k in line.split()]

def test_every_key_of_axolotls_schema_is_known():
    "honoured, ignored or refused, and never called unknown"
    def told(key):
        try: check({**LEAST, key: LEAST.get(key, 1)})
        except ConfigError as e: return str(e)
        return ""
    assert len(SCHEMA) > 400
    assert [k for k in SCHEMA if "unknown key" in told(k)] == []

def test_no_key_is_two_things():
    for k in Config.model_fields: assert not why_ignored(k) and not why_refused(k), k


# ---- not given, near, several

@pytest.mark.parametrize("value", [None, False, 0, "", [], {}])
@pytest.mark.parametrize("key", ["rl", "wandb_project", "deepspeed", "adapter", "debug", "early_stopping_patience", "max_steps", "lora_target_modules", "qat",
                                 "chat_template", "eot_tokens", "special_tokens", "tokens", "plugins", "peft", "save_total_limit", "report_to"])
def test_nothing_means_not_given(key, value):
    cfg, notes = check({**LEAST, key: value})
    assert notes == [] and (key not in Config.model_fields or getattr(cfg, key) == getattr(check(LEAST)[0], key))

@pytest.mark.parametrize("key", sorted(Config.model_fields))
def test_null_means_not_given_for_every_key(key):
    if key in LEAST: return
    assert check({**LEAST, key: None})[0] == check(LEAST)[0]

@pytest.mark.parametrize("key, meant", [("sequence_lenn", "sequence_len"), ("train_on_input", "train_on_inputs"), ("lora_rank", "lora_r"), ("lr", "learning_rate"),
                                        ("lora_q", None), ("rll", None), ("trll", None), ("lora_o_kernels", None), ("foo", None), ("wand_project", None)])
def test_a_hint_is_a_near_spelling_of_an_honoured_key_or_none(key, meant): assert near_key(key, Config.model_fields) == meant

def test_all_refused_keys_at_once_each_with_its_line():
    text = "base_model: m\ndatasets: [{path: a}]\nrl: dpo\nqat: {a: 1}\nunfrozen_parameters: [x]\nsequence_lenn: 3\n"
    with pytest.raises(ConfigError) as e: load_text(text)
    assert [(o["key"], o["line"]) for o in e.value.problems] == [("rl", 3), ("qat", 4), ("unfrozen_parameters", 5), ("sequence_lenn", 6)]

MANY = """base_model: bundled:nothing
learning_rat: 1
sequence_len: 0
rl: dpo
datasets:
  - path: a.jsonl
    type: alpaca
    shuffle_: true
    splt: train
    odd: 1
  - path: b.jsonl
    type: alpacca
  - path: c.jsonl
    type:
    odd: 2
  - path: d.jsonl
    type: chat
    roles: x
    odd: 3
  - type: chat_template
    chat_template: nosuch
test_datasets:
  - path: e.jsonl
    odd: 4
"""

def test_all_mistakes_at_once_wherever_they_stand(tmp_path):
    "options that no format knows beside wrong values beside unknown and refused keys, each with its line"
    (tmp_path / "c.yml").write_text(MANY, encoding="utf-8")
    with pytest.raises(ConfigError) as e: open_config(tmp_path / "c.yml")
    found = {o["key"]: (o["line"], o["message"]) for o in e.value.problems}
    lines = {k: line for k, (line, _) in found.items()}
    assert lines == {"base_model": 1, "learning_rat": 2, "sequence_len": 3, "rl": 4, "datasets.0.shuffle_": 8, "datasets.0.splt": 9, "datasets.0.odd": 10,
                     "datasets.1.type": 12, "datasets.2.odd": 15, "datasets.3.roles": 18, "datasets.3.odd": 19, "datasets.4.path": 20,
                     "datasets.4.chat_template": 21, "test_datasets.0.odd": 24}
    assert found["datasets.0.splt"][1].endswith("Did you mean 'split'?") and "'segments' has no option 'odd'" in found["datasets.2.odd"][1]

@pytest.mark.parametrize("blank", ["", "''", "null", "~"])
def test_an_entry_with_a_blank_type_is_checked_too(tmp_path, blank):
    (tmp_path / "c.yml").write_text(f"base_model: m\ndatasets:\n  - path: a.jsonl\n    type: {blank}\n    splitt: train\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"c.yml:5 datasets.0.splitt: .* Did you mean 'split'"): open_config(tmp_path / "c.yml")

def load_text(text, *overrides):
    import tempfile
    with tempfile.TemporaryDirectory() as d:
        (Path(d) / "c.yml").write_text(text, encoding="utf-8")
        return load_config(Path(d) / "c.yml", overrides)


# ---- configs that nobody should have written: one message each, with its line where it has one

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi"))

@pytest.mark.parametrize("text", ["on: true", "1: 2", "null: x", "1.5: 2", "? [a, b]\n: c", "2024-01-01: x", "x: &a [*a]", "x: " + "[" * 3000, "x: " + "{a: " * 3000,
    "seed: " + "9" * 5000, BOMB, "seed: 2024-13-45", "peft: lora", "special_tokens: [a]", "special_tokens: x", "pretraining_dataset: 5", "pretraining_dataset: [5]",
    "x: !!python/object:os.system a", "a: b: c", "\t- x", "tokens: 5", "tokens: [5]", "eot_tokens: ['']", "plugins: 5", "batch_size: x", "batch_size: -3",
    "seed: -1", "seed: 1e400", "learning_rate: .nan", "learning_rate: .inf", "num_epochs: -.inf", "weight_decay: '\\0'", 'base_model: "a\\0b"', "datasets: 5", "<<: 5",
    "save_strategy: 5", "eval_strategy: often", "gradient_checkpointing: often", "adapter: [lora]", "lora_target_modules: 5", "datasets: [a.jsonl]",
    "val_set_size: -1", "lora_dropout: 2", "micro_batch_size: 1.5", "learning_rate: {a: 1}", "peft: {backend: 5}", "peft: {1: 2}", "report_to: 5"])
def test_odd_configs_end_in_one_message(text):
    whole = text if text.startswith(("datasets", "<<")) else f"base_model: m\ndatasets: [{{path: a}}]\n{text}\n" if "base_model" not in text else f"datasets: [{{path: a}}]\n{text}\n"
    with pytest.raises(ConfigError) as e: load_text(whole)
    assert str(e.value) and "Traceback" not in str(e.value)

@pytest.mark.parametrize("option", ["roles: x", "roles: {user: x}", "roles_to_train: 5", "roles_to_train: assistant", "field_messages: 5", "chat_template: 5", "chat_template_kwargs: x",
    "chat_template_kwargs: {messages: []}", "eot_tokens: ['']", "eot_tokens: x", "message_property_mappings: [a]", "train_on_eos: often", "drop_system_message: perhaps",
    "type: 5", "type: [a]", "type: {field_instruction: 5}", "split: 5", "data_files: 5", "skip: -1", "shards: 0.5", "boundary: exact", "on: true", "path: 5", "conversation: {a: 1}"])
def test_options_of_a_dataset_entry_are_checked_with_line_and_entry(option):
    key = option.partition(":")[0]
    text = f"base_model: m\ndatasets:\n  - path: a.jsonl\n  - type: chat\n    {option}\n" + ("" if key == "path" else "    path: b.jsonl\n")
    if key == "type": text = text.replace("  - type: chat\n    type", "  - type")
    with pytest.raises(ConfigError) as e: load_text(text)
    line = next(i for i, o in enumerate(text.splitlines(), 1) if option in o)
    assert [(o["line"], o["key"].split(".")[:3]) for o in e.value.problems] == [(line, ["datasets", "1", key])]

def test_blank_datasets_beside_pretraining_dataset():
    cfg, _ = load_text("base_model: m\ndatasets:\npretraining_dataset: c.txt\n")
    assert [(o.path, o.type) for o in cfg.datasets] == [("c.txt", "pretrain")]

@pytest.mark.parametrize("assignment, message", [("sequence_len=abc", "--set sequence_len: expected an integer, got 'abc'."), ("seed=[1", "--set seed: invalid YAML"), ("seed=" + "9" * 5000, "--set seed: is a number of 5,000 digits."), ("seed=[" + "9" * 400 + "]", "--set seed:"),
    ("seed", "--set: expected key=value"), ("=3", "--set: expected key=value"), ("datasets.5.path=x", "--set datasets.5.path: there is no entry '5'."),
    ("seed.x=1", "--set seed.x: "), ("lora_rnk=1", "--set lora_rnk: unknown key."), ("rl=dpo", "--set rl: is not supported"), ("x=&a [*a]", "--set x: the alias *a leads into itself"),
    ("datasets.0.roles=x", "--set datasets.0.roles: expected keys and values, got 'x'."), ("0=1", "--set 0: unknown key."),
    ("seed.=3", "--set: expected key=value, got 'seed.=3'."), (".seed=3", "--set: expected key=value"),
    ("datasets.0=3", "--set datasets.0: expected keys and values"), ("datasets.x.path=1", "--set datasets.x.path: there is no entry 'x'."), ("seed={a: 1", "--set seed: invalid YAML"),
    ("seed.x=1", "--set seed.x: leads into 1, which has no keys. Set the key before the dot.")])
def test_a_mistake_in_set_names_it(assignment, message):
    with pytest.raises(ConfigError) as e: load_text("base_model: m\nseed: 1\ndatasets:\n  - path: a.jsonl\n", assignment)
    assert str(e.value).startswith(message)


# ---- paths

def test_one_rule_for_every_path(tmp_path, monkeypatch):
    "beside the config first, then the current directory; what is written goes beside the config"
    (tmp_path / "work").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for d in ("work", "elsewhere"):
        for f in ("data.jsonl", "t.jinja"): (tmp_path / d / f).write_text(json.dumps(dict(text=d)) + "\n")
        (tmp_path / d / "mine.py").write_text(f"def rows(row): return [({d!r}, True)]\n")
        for f in ("adapter", "saved", "model"): (tmp_path / d / f).mkdir()
    (tmp_path / "work/config.yml").write_text(yaml.safe_dump(dict(base_model="model", tokenizer_config="bundled:gpt2", lora_model_dir="adapter", adapter="lora",
        resume_from_checkpoint="saved", chat_template_jinja="t.jinja", datasets=[dict(path="data.jsonl", type="mine.rows"), dict(path="d*.jsonl", type="text")])))
    project = Project.open(tmp_path / "work/config.yml")
    cfg = project.cfg
    for found in (cfg.base_model, cfg.lora_model_dir, cfg.resume_from_checkpoint, cfg.chat_template_jinja, cfg.output_dir, cfg.dataset_prepared_path, cfg.datasets[0].path):
        assert found.startswith(str(tmp_path / "work")), found
    assert {s.name for s in project.sources} == {str(tmp_path / "work/data.jsonl")}
    assert project.sources[0].format(dict(text="x"))[0].text == "work", "the module beside the config"
    (tmp_path / "work/data.jsonl").unlink()
    assert Project.open(tmp_path / "work/config.yml").cfg.datasets[0].path == "data.jsonl", "the current directory, where nothing is beside the config"

def test_everything_is_made_once(tmp_path, monkeypatch):
    "inspect --stats --html --row 0: one tokenizer, one look at each source, one preparation"
    import segtune.project as p
    counts = dict.fromkeys(("load_tokenizer", "find_rows", "prepare_and_lint"), 0)
    def counting(name, f):
        def g(*a, **k):
            counts[name] += 1
            return f(*a, **k)
        g.__signature__ = __import__("inspect").signature(f)
        return g
    for name in counts: monkeypatch.setattr(p, name, counting(name, getattr(p, name)))
    (tmp_path / "a.jsonl").write_text('{"segments": [{"label": true, "text": "hi"}]}\n')
    (tmp_path / "config.yml").write_text("base_model: bundled:gpt2\ndatasets: [{path: a.jsonl}]\n")
    project = Project.open(tmp_path / "config.yml")
    project.stats(), project.report(tmp_path / "r.html"), project.findings(project.rows_at([0])[0])
    assert counts == dict(load_tokenizer=1, find_rows=1, prepare_and_lint=1)


# ---- every key is read by somebody

def test_every_key_is_read_somewhere():
    "a key that the config knows and nobody asks for would be ignored in silence"
    root = Path(__file__).parent.parent / "segtune"
    others = "\n".join(f.read_text(encoding="utf-8") for f in root.rglob("*.py") if f.stem not in ("config", "axolotl_keys", "_modidx"))
    unread = [k for k in Config.model_fields if not re.search(rf"\b{k}\b", others)]
    assert unread == []

@pytest.mark.parametrize("key", ["base_model", "tokenizer_config", "lora_model_dir", "chat_template_jinja", "dataset_prepared_path", "datasets.0.path", "datasets.0.type",
                                 "datasets.0.data_files", "datasets.0.chat_template_jinja"])
@pytest.mark.parametrize("name", ["a" * 5000, "a" * 5000 + ".fn", "a" * 300 + "/b", "\ud800", "é" * 200])
def test_a_name_that_no_system_takes_is_an_error_of_ours_or_does_no_harm(tmp_path, key, name):
    (tmp_path / "a.jsonl").write_text('{"segments": [{"label": true, "text": "hi"}]}\n')
    text = yaml.safe_dump(dict(base_model="bundled:tiny", adapter="lora", datasets=[dict(path="a.jsonl")]))
    (tmp_path / "c.yml").write_text(text)
    try: assert Project.open(tmp_path / "c.yml", [f"{key}={json.dumps(name)}"]).prepared
    except (ConfigError, SegtuneError) as e: assert str(e)
    except OSError as e: assert key == "dataset_prepared_path" and e.filename


# ---- a revision on the hub

def hub(folder, **revisions):
    "A hub's cache with one repository, org/model, in several revisions: name -> directory with its files"
    repo = folder / "models--org--model"
    (repo / "refs").mkdir(parents=True)
    for i, (name, files) in enumerate(revisions.items()):
        commit = f"{i}" * 40
        (repo / "refs" / name).write_text(commit)
        shutil.copytree(files, repo / "snapshots" / commit)

@pytest.fixture
def two_revisions(tmp_path, monkeypatch):
    from huggingface_hub import constants

    other = tmp_path / "other"
    shutil.copytree(bundled("tiny"), other)
    conf = json.loads((other / "tokenizer_config.json").read_text())
    (other / "tokenizer_config.json").write_text(json.dumps({**conf, "pad_token": "<unk>"}))
    hub(tmp_path / "hub", main=bundled("tiny"), v2=other)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    row = dict(segments=[dict(text="<s>Q", label=False), dict(text=" A</s>", label=True)])
    (tmp_path / "a.jsonl").write_text((json.dumps(row) + "\n") * 4)
    text = yaml.safe_dump(dict(base_model="org/model", revision_of_model="v2", adapter="lora", lora_target_linear=True, max_steps=1, datasets=[dict(path="a.jsonl")]))
    (tmp_path / "c.yml").write_text(text)
    return tmp_path / "c.yml"

def test_a_revision_is_that_of_the_tokenizer_and_of_the_model(two_revisions):
    new, old = Project.open(two_revisions), Project.open(two_revisions, ["revision_of_model=null"])
    assert (new.cfg.base_model, new.tokenizer.pad) == ("org/model@v2", "<unk>") and old.tokenizer.pad != "<unk>"
    named = Project.open(two_revisions, ["tokenizer_config=org/model", "base_model=bundled:tiny"])
    assert named.tokenizer.pad == "<unk>" and named.cfg.base_model == str(bundled("tiny"))
    assert [n for n in named.notes if n.startswith("revision_of_model is for the hub")]

def test_a_revision_that_is_not_there_is_named(two_revisions):
    with pytest.raises(ConfigError, match="'org/model@v3' is no directory, and the hub did not give it"):
        assert Project.open(two_revisions, ["model_revision=v3", "revision_of_model=null"]).tokenizer

def test_an_adapter_remembers_the_revision_of_its_base(two_revisions):
    from segtune.training.load import load_adapter
    project = Project.open(two_revisions)
    project.train(log=lambda line: None)
    saved = json.loads((Path(project.cfg.output_dir) / "adapter_config.json").read_text())
    assert (saved["base_model_name_or_path"], saved["revision"]) == ("org/model", "v2")
    model, tok = load_adapter(project.cfg.output_dir)
    assert tok.pad == "<unk>" and model.peft_config["default"].r == 8


# ---- notes count rows

def test_a_note_counts_each_row_once_however_often_it_is_read(tmp_path):
    "two messages of one row are one row, and so is a row that is looked at after it was prepared"
    turn = [dict(role="user", content="Hi"), dict(role="assistant", content="Yo", train=False)]
    rows = [dict(messages=turn * 3), dict(messages=turn), dict(messages=[dict(role="user", content="Hi"), dict(role="assistant", content="Yo")])]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(o) + "\n" for o in rows))
    (tmp_path / "c.yml").write_text("base_model: bundled:tiny\nchat_template: chatml\ndatasets: [{path: m.jsonl, type: chat_template}]\n")
    project = Project.open(tmp_path / "c.yml")
    assert project.prepared.count.rows == 3
    project.rows_at([0, 2]), project.rows_at([1])
    [said] = [n for n in project.data_notes if "train" in n]
    assert said.endswith(f"(2 rows, first {tmp_path / 'm.jsonl'}:1)")
