"The built wheel, as a user gets it: in an environment of its own, with the newest fastcore and without torch."
import configparser
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
from check import copy_project, project_files

pytestmark = pytest.mark.packaging
SETTINGS = configparser.ConfigParser(delimiters=["="])
SETTINGS.read(ROOT / "settings.ini", encoding="utf-8")
TOKENIZER = "assets/tokenizers/mistral-v0.1"
ROWS = [
    {"segments": [{"label": True, "text": "<s>Hello\n"}, {"label": True, "text": "hi there!. "},
                  {"label": False, "text": "goodbye "}, {"label": True, "text": "farewell</s>"}]},
    {"segments": [{"label": False, "text": "<s>What is two and two?\n"}, {"label": True, "text": "Four.</s>"}]},
]


def sh(*cmd, cwd, ok=True):
    "Run a command that sees nothing of this checkout"
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")} | {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    res = subprocess.run([str(o) for o in cmd], cwd=cwd, env=env, capture_output=True, text=True)
    assert not ok or res.returncode == 0, f"{' '.join(map(str, cmd))}\n{res.stdout}{res.stderr}"
    return res

@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    tree, dist = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    copy_project(tree)
    sh(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", dist, tree, cwd=dist)
    return next(dist.glob("segtune-*.whl"))

@pytest.fixture(scope="session")
def clean(wheel, tmp_path_factory):
    "The commands of an environment that holds the wheel and its own requirements"
    home = tmp_path_factory.mktemp("clean")
    sh(sys.executable, "-m", "venv", home / "env", cwd=home)
    versions = [o for o in (ROOT / "constraints.txt").read_text().splitlines() if not o.startswith("fastcore==")]  # the pin is nbdev's
    (home / "constraints.txt").write_text("\n".join(versions))
    commands = home / "env" / ("Scripts" if os.name == "nt" else "bin")
    sh(commands / "python", "-m", "pip", "install", "-q", "-c", home / "constraints.txt", wheel, cwd=home)
    return commands

def names(wheel): return {o for o in zipfile.ZipFile(wheel).namelist() if not o.endswith("/")}

def test_the_wheel_holds_the_package_and_its_data(wheel):
    package = {o.as_posix() for o in project_files() if o.parts[0] == "segtune"}
    assert {o for o in names(wheel) if ".dist-info/" not in o} == package
    assert any(o.endswith("LICENSE") for o in names(wheel) if ".dist-info/" in o)

def test_the_metadata_is_what_settings_say(wheel):
    s = SETTINGS["DEFAULT"]
    path = next(o for o in names(wheel) if o.endswith(".dist-info/METADATA"))
    head = zipfile.ZipFile(wheel).read(path).decode().split("\n\n")[0]
    assert f"\nVersion: {s['version']}\n" in head
    assert f"Requires-Python: >={s['min_python']}" in head
    assert set(re.findall(r"(?m)^Provides-Extra: (\S+)$", head)) == {o.removesuffix("_requirements") for o in s if o.endswith("_requirements")}
    core = {re.split(r"[<>=]", o)[0] for o in re.findall(r"(?m)^Requires-Dist: ([^;\n]+)$", head)}
    assert core == {re.split(r"[<>=]", o)[0] for o in s["requirements"].split()}

def test_the_environment_is_a_users(clean):
    code = "import fastcore, importlib.util as u; print(fastcore.__version__.split('.')[0], [o for o in ('torch', 'peft', 'nbdev') if u.find_spec(o)])"
    assert sh(clean / "python", "-c", code, cwd=clean.parent).stdout.split(None, 1) == ["2", "[]\n"]
    sh(clean / "python", "-m", "pip", "check", cwd=clean.parent)

@pytest.fixture
def config(clean, tmp_path):
    "A config and two rows, with the tokenizer that comes with the package"
    code = f"import segtune, pathlib; print(pathlib.Path(segtune.__file__).parent / {TOKENIZER!r})"
    tokenizer = sh(clean / "python", "-c", code, cwd=tmp_path).stdout.strip()
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(o) + "\n" for o in ROWS))
    path = tmp_path / "config.yml"
    path.write_text(f"base_model: {tokenizer}\ndatasets:\n  - path: rows.jsonl\n    type: segments\nsequence_len: 512\nadapter: lora\noutput_dir: out\n")
    return path

def test_preprocess_runs_without_torch(clean, config):
    sh(clean / "segtune", "preprocess", config, cwd=config.parent)
    code = """from datasets import load_from_disk; import pathlib
d = load_from_disk(next(pathlib.Path('last_run_prepared').iterdir()))
print(len(d), d[0]['labels'] == [i if l != -100 else -100 for i, l in zip(d[0]['input_ids'], d[0]['labels'])], -100 in d[0]['labels'])"""
    assert sh(clean / "python", "-c", code, cwd=config.parent).stdout.split() == ["2", "True", "True"]

def test_train_says_what_to_install(clean, config):
    res = sh(clean / "segtune", "train", config, cwd=config.parent, ok=False)
    said = res.stdout + res.stderr
    assert res.returncode == 2, said
    assert "segtune[train]" in said and "Traceback" not in said

def first_cell():
    "What the home page tells a newcomer to type: from the import to the first look at a row"
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    lines = block.splitlines()
    return lines[:next(i for i, o in enumerate(lines) if o.startswith("st.show("))+1]

def test_a_newcomer_sees_their_own_row_coloured_after_two_commands_and_one_cell(clean, tmp_path):
    "`pip install segtune` and `python` (or `jupyter lab`), then one cell"
    *before, last = first_cell()
    assert before[0] == "import segtune as st"
    mine = last.replace("Capital of France?", "My own question?")
    assert mine != last
    script = tmp_path / "cell.py"
    script.write_text("\n".join([*before, f"row = {mine}", "print(row)", "print(row._repr_html_())"]), encoding="utf-8")
    said = sh(clean / "python", script, cwd=tmp_path).stdout
    text = re.sub(r"<[^>]*>", "", said.split("\n", 1)[1])
    assert "·My·own·question?" in text and "(-100, " in said
    assert 'class="sg-tok sg-t"' in said and 'class="sg-tok sg-m"' in said
