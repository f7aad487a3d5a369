"`import segtune as st`: light, complete, and the same as the config and the command line."
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import segtune as st
from segtune.segments import ConfigError, DataError

ROOT = Path(__file__).resolve().parent.parent
NAMES = ["Segment", "SegtuneError", "encode", "load_tokenizer", "open", "prepare", "show", "train"]
ROW = [("<s>Q: Capital of France?\nA:", False), (" Paris</s>", True)]


@pytest.fixture(scope="module")
def tok(): return st.load_tokenizer("bundled:mistral-v0.1")

@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch): monkeypatch.chdir(tmp_path)

def python(code):
    res = subprocess.run([sys.executable, *code], cwd=ROOT, capture_output=True, text=True)
    assert res.returncode == 0, res.stderr
    return res

def test_the_import_time_listing_shows_no_heavy_package():
    listing = python(["-X", "importtime", "-c", "import segtune"]).stderr
    loaded = {o.split("|")[-1].strip() for o in listing.splitlines()}
    assert "segtune" in loaded
    heavy = ("torch", "transformers", "datasets", "pyarrow", "pandas", "numpy")
    assert not [o for o in loaded if o.split(".")[0] in heavy]

def test_every_name_is_listed_and_there():
    assert set(NAMES) <= set(dir(st))
    for name in NAMES: assert callable(getattr(st, name))
    with pytest.raises(AttributeError, match="no attribute 'trian'"): _ = st.trian

def test_no_submodule_takes_a_name_of_the_face():
    loads = "import segtune as st, pkgutil, importlib\n" \
            "for o in pkgutil.walk_packages(st.__path__, 'segtune.'):\n" \
            "    if not o.name.endswith('__main__'): importlib.import_module(o.name)\n" \
            f"print([o for o in {NAMES!r} if not callable(getattr(st, o))])"
    assert python(["-c", loads]).stdout.strip() == "[]"

@pytest.mark.parametrize("name", ["mistralai/Mistral-7B-v0.1", "openai-community/gpt2", "gpt2"])
def test_a_hub_name_whose_tokenizer_is_bundled_is_found_and_said(name, monkeypatch, capfd):
    from segtune import models, tokenizer
    def gone(*args): raise OSError("no network")
    monkeypatch.setattr(tokenizer, "_from_hub", gone)
    models._say_bundled.cache_clear()
    found = st.load_tokenizer(name)
    assert found.fingerprint() == st.load_tokenizer(f"bundled:{models.hub_names[name]}").fingerprint()
    out = capfd.readouterr()
    assert name in out.err and "bundled:" in out.err and not out.out

@pytest.mark.parametrize("row", [
    ROW, tuple(ROW), [st.Segment(*o) for o in ROW], [dict(text=t, label=v) for t, v in ROW],
    dict(segments=[dict(text=t, label=v) for t, v in ROW])])
def test_show_takes_every_form_of_a_row(row, tok):
    shown = st.show(row, tok)
    assert shown.row.labels.tolist()[-2:] == [5465, 2]
    assert repr(st.show(shown.row, tok)) == repr(shown)
    assert repr(st.show(st.encode([ROW], tok)[0], tok)) == repr(shown)
    assert "Paris" in shown._repr_html_() and "Paris" in repr(shown)

@pytest.mark.parametrize("wrong", ["text", b"text", 7, None, [("a", 1)], [("a", "true")], [["a"]], [3]])
def test_show_names_what_it_cannot_take(wrong, tok):
    with pytest.raises(DataError, match="expected"): st.show(wrong, tok)

def test_rows_files_and_datasets_give_the_same_tokens(tok):
    from datasets import Dataset
    rows = [dict(segments=[dict(text=t, label=v) for t, v in ROW])]
    Path("qa.jsonl").write_text(json.dumps(rows[0]) + "\n")
    given = [rows, [ROW], Dataset.from_list(rows), "qa.jsonl", Path("qa.jsonl")]
    encoded = [st.encode(o, tok)[:] for o in given]
    assert all(o == encoded[0] for o in encoded)
    made = [st.prepare(o, tok) for o in given]
    assert all(o.dataset()["input_ids"][:] == encoded[0]["input_ids"] for o in made)
    assert made[0].path == made[1].path and made[3].path == made[4].path
    for o in made: assert "1 row," in repr(o) and "Paris" in o._repr_html_() and repr(o[0]) == repr(o[-1])

def test_a_generator_is_prepared_and_trained_like_a_list(tok):
    data = st.prepare((ROW for _ in range(3)), tok)
    assert len(data) == 3 and len(data.stats) == 3
    run = st.train("bundled:tiny", data, max_steps=1, learning_rate=1e-3, output_dir="out", log=None)
    assert run.result.steps == 1

def test_keyword_arguments_are_config_keys_with_their_checks(tok):
    keys = inspect.signature(st.prepare).parameters
    assert {"sequence_len", "val_set_size", "type", "roles_to_train"} <= set(keys)
    assert {"learning_rate", "lora_r"} <= set(inspect.signature(st.train).parameters)
    with pytest.raises(ConfigError, match="Did you mean sequence_len"): st.prepare([ROW], tok, sequence_lenn=3)
    data = st.prepare([ROW], tok)
    with pytest.raises(ConfigError, match="learning_rate"): st.train("bundled:tiny", data, learning_rate="x")

def test_a_model_with_another_tokenizer_gets_the_rows_in_its_own_tokens(tok):
    data, said = st.prepare([ROW]*4, tok, sequence_len=64), []
    run = st.train("bundled:tiny", data, max_steps=1, learning_rate=1e-3, output_dir="out", log=said.append)
    assert "another tokenizer" in said[0]
    assert run.project.prepared.path != data.path
    own, quiet = st.prepare([ROW]*4, "bundled:tiny", sequence_len=64), []
    st.train("bundled:tiny", own, max_steps=1, learning_rate=1e-3, output_dir="out2", log=quiet.append)
    assert not [o for o in quiet if "another tokenizer" in o]

def test_a_config_gives_the_same_data_as_the_face(tok):
    Path("sub").mkdir()
    Path("sub/qa.jsonl").write_text(json.dumps(dict(segments=[dict(text=t, label=v) for t, v in ROW])) + "\n")
    Path("sub/c.yml").write_text("base_model: bundled:tiny\ndatasets: [{path: qa.jsonl}]\n"
                                 "max_steps: 1\nlearning_rate: 0.001\nadapter: lora\nlora_target_linear: true\n")
    p = st.open("sub/c.yml", ["lora_r=4"])
    data = p.prepare()
    assert data.dataset()["input_ids"][:] == st.encode("sub/qa.jsonl", "bundled:tiny")["input_ids"][:]
    assert p.lint() == data.findings and p.report("r.html").read_text().startswith("<!")
    run = p.train(log=lambda line: None)
    assert run.path.is_dir() and run.project.cfg.lora_r == 4
    other = st.train("bundled:tiny", data, lora_r=2, output_dir="other", log=None)
    assert other.project.cfg.lora_r == 2 and other.result.steps == 1

def test_a_run_shows_its_curve_and_replies():
    data = st.prepare([ROW]*8, "bundled:tiny", val_set_size=2)
    run = st.train("bundled:tiny", data, max_steps=2, learning_rate=1e-3, logging_steps=1, output_dir="out", log=None)
    assert "<svg" in run._repr_html_() and "held-out loss" in repr(run) and run._repr_html_() == run._repr_html_()
    reply = run.generate("Q:", max_new_tokens=2)
    assert isinstance(reply, str) and reply.prompt == "Q:" and reply == reply.answer.text
    assert [o.prompt for o in run.generate(["a", "b"], max_new_tokens=1)] == ["a", "b"]

def test_the_lines_of_the_readme_work():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = "".join(re.findall(r"```python\n(.*?)```", readme, re.DOTALL))
    lines = lines.replace("HuggingFaceTB/SmolLM2-135M-Instruct", "bundled:tiny")
    Path("qa.jsonl").write_text((json.dumps(dict(question="Capital of France?", answer="Paris")) + "\n") * 20)
    Path("config.yml").write_text("base_model: bundled:tiny\ndatasets: [{path: qa.jsonl}]\n")
    names = {}
    exec(lines, names)
    row, tok = names["data"][17].row, names["data"].tokenizer
    assert tok.to_bytes(i for i in row.labels if i != -100).decode() == " Paris" + tok.names["eos_token"]
    assert names["run"].result.steps == 20 and names["p"].values

def test_the_readme_counts_the_lint_rules_rightly():
    from segtune.lint import linter, rules
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    n = len(linter.rules)
    assert n == len(rules.rules) and f"One of {n} [lint rules]" in readme, f"{n} rules: say so in nbs/index.ipynb"

def test_the_picture_of_the_readme_is_made_from_the_view():
    res = subprocess.run([sys.executable, "tools/docs.py", "picture", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert res.returncode == 0, res.stderr
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    link = re.search(r"!\[[^\]]+\]\((https://\S+/main/(nbs/\S+))\)", readme)
    assert link and (ROOT / link[2]).is_file()
