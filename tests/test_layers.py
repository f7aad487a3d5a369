"The house is one-way, in the reading order that _quarto.yml declares; rooms that stand side by side stay apart; start-up stays light."
import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "segtune"
HEAVY = ["torch", "transformers", "datasets", "pandas"]
TORCH = {"torch", "peft", "accelerate"}


def code_cells(nb):
    cells = json.loads(nb.read_text(encoding="utf-8"))["cells"]
    return ["".join(o["source"]) for o in cells if o["cell_type"] == "code"]

def default_exp(nb):
    "The module a notebook exports, from its first code cell"
    m = re.match(r"#\|\s*default_exp\s+(\S+)", next(iter(code_cells(nb)), ""))
    return m and m[1]

def pages(node):
    "Every page of a part of the sidebar, in order"
    if isinstance(node, str): yield node
    elif isinstance(node, list):
        for o in node: yield from pages(o)
    elif isinstance(node, dict): yield from pages(node.get("contents", []))

def notebooks():
    "Exported notebooks in the reading order that the site's sidebar declares"
    config = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
    paths = [ROOT / "nbs" / o for o in pages(config["website"]["sidebar"])]
    return {default_exp(o): o for o in paths if default_exp(o)}

ORDER = list(notebooks())
ROOMS = {"look", "lint", "training"}   # side by side: none of them imports another

def imports(src, module=""):
    "Every dotted name that `src` imports, wherever the statement stands; relative ones are resolved from `module`"
    above = ["segtune", *module.split(".")[:-1]] if module else ["segtune"]
    for node in ast.walk(ast.parse(src)):
        if isinstance(node, ast.Import): yield from (o.name for o in node.names)
        if not isinstance(node, ast.ImportFrom): continue
        package = above[:len(above) - node.level + 1] if node.level else []
        base = ".".join(filter(None, [*package, node.module or ""]))
        yield base
        yield from (f"{base}.{o.name}" for o in node.names)

def ours(names):
    "The modules of segtune among imported names"
    return {m for o in names for m in ORDER if o == f"segtune.{m}" or o.startswith(f"segtune.{m}.")}

def source(module):
    "The exported source of a module"
    return (PACKAGE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")

def without_magics(src):
    "Cell source that Python can parse; a cell magic is no Python at all"
    if src.lstrip().startswith("%%"): return ""
    return re.sub(r"(?m)^(\s*)(?:[!%].*|\w+\s*=\s*[!%].*)$", r"\1pass", src)


def test_the_parsers_see_what_they_should():
    src = "import torch.nn as nn\ndef f():\n    from .view import table\n    from . import lint\n"
    assert {"torch.nn", "segtune.view", "segtune.view.table", "segtune.lint"} <= set(imports(src))
    assert "segtune.view" in set(imports(without_magics("!ls\n%time\nfiles = !ls\nfrom segtune.view import table")))

def test_every_module_has_its_notebook():
    files = [o for o in PACKAGE.rglob("*.py") if o.name not in ("__init__.py", "_modidx.py")]
    modules = {o.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".") for o in files}
    assert modules == set(ORDER), "a module without a notebook, or a notebook that was not exported"

@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_what_comes_before_it(module):
    lower = set(ORDER[:ORDER.index(module)])
    found = ours(imports(source(module), module))
    assert found <= lower, f"segtune.{module} imports {sorted(found - lower)}, which do not come before it"

@pytest.mark.parametrize("module", ORDER)
def test_a_notebook_imports_only_what_comes_before_it(module):
    lower = set(ORDER[:ORDER.index(module)])
    found = ours(o for src in code_cells(notebooks()[module]) for o in imports(without_magics(src)))
    assert found <= lower, f"{notebooks()[module].name} imports {sorted(found - lower)}, which do not come before it"

@pytest.mark.parametrize("module", [o for o in ORDER if o.split(".")[0] in ROOMS])
def test_rooms_that_stand_side_by_side_stay_apart(module):
    room = module.split(".")[0]
    beside = {o for o in ours(imports(source(module), module)) if o.split(".")[0] in ROOMS - {room}}
    assert not beside, f"segtune.{module} imports {sorted(beside)}: look, lint and training do not know one another"

@pytest.mark.parametrize("module", [o for o in ORDER if "." not in o and o in ("segments", "models", "tokenizer", "fast", "encoder", "laws") or o.startswith("formats.")])
def test_the_core_and_the_own_formats_know_nothing_of_axolotl(module):
    above = {o for o in ours(imports(source(module), module)) if o.startswith("axolotl.")}
    assert not above, f"segtune.{module} imports {sorted(above)}"

def test_every_exported_notebook_is_on_the_site():
    found = {o for o in (ROOT / "nbs").rglob("[0-9]*.ipynb") if ".ipynb_checkpoints" not in o.parts and default_exp(o)}
    assert found == set(notebooks().values()), "a notebook that the sidebar in _quarto.yml does not list"

def test_nothing_before_training_imports_torch():
    first = next(i for i, o in enumerate(ORDER) if o.startswith("training."))
    used = {m: {o.split(".")[0] for o in imports(source(m), m)} & TORCH for m in ORDER[:first]}
    assert not any(used.values()), f"before training nothing may import torch, not even inside a function: {used}"

def loaded_after(code):
    "Which heavy packages a fresh interpreter has loaded after running `code`"
    report = f"\nimport sys; print([o for o in {HEAVY!r} if o in sys.modules])"
    res = subprocess.run([sys.executable, "-c", code + report], cwd=ROOT, capture_output=True, text=True)
    assert res.returncode == 0, res.stderr
    return res.stdout.splitlines()[-1]

def test_the_import_check_can_fail(): assert loaded_after("import pandas") == "['pandas']"

def test_importing_is_light(): assert loaded_after("import segtune, segtune.cli") == "[]"

def test_help_needs_neither_arrays_nor_tables():
    res = subprocess.run([sys.executable, "-c", "import segtune.cli, sys; print([o for o in ('numpy', 'pyarrow', 'tokenizers') if o in sys.modules])"],
                         cwd=ROOT, capture_output=True, text=True)
    assert res.stdout.strip() == "[]", res.stdout + res.stderr

def test_help_is_light():
    code = "import sys; sys.argv = ['segtune', '--help']\nfrom segtune.cli import main\ntry: main()\nexcept SystemExit as e: assert not e.code, e.code"
    assert loaded_after(code) == "[]"
