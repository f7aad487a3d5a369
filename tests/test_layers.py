"The house is one-way: a notebook imports only from notebooks with smaller numbers, and start-up stays light."
import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

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

def notebooks():
    "Exported notebooks in reading order: 01_ before 01a_ before 02_"
    return {default_exp(o): o for o in sorted((ROOT / "nbs").glob("[0-9]*.ipynb"), key=lambda p: p.name) if default_exp(o)}

ORDER = list(notebooks())

def imports(src, module=""):
    "Every dotted name that `src` imports, wherever the statement stands; relative ones are resolved in segtune"
    for node in ast.walk(ast.parse(src)):
        if isinstance(node, ast.Import): yield from (o.name for o in node.names)
        if not isinstance(node, ast.ImportFrom): continue
        base = ".".join(filter(None, ["segtune" if node.level else "", node.module or ""]))
        yield base
        yield from (f"{base}.{o.name}" for o in node.names)

def ours(names):
    "The modules of segtune among imported names"
    return {o.split(".")[1] for o in names if o.startswith("segtune.") and o.split(".")[1] in ORDER}

def without_magics(src):
    "Cell source that Python can parse; a cell magic is no Python at all"
    if src.lstrip().startswith("%%"): return ""
    return re.sub(r"(?m)^(\s*)(?:[!%].*|\w+\s*=\s*[!%].*)$", r"\1pass", src)


def test_the_parsers_see_what_they_should():
    src = "import torch.nn as nn\ndef f():\n    from .view import table\n    from . import lint\n"
    assert {"torch.nn", "segtune.view", "segtune.view.table", "segtune.lint"} <= set(imports(src))
    assert "segtune.view" in set(imports(without_magics("!ls\n%time\nfiles = !ls\nfrom segtune.view import table")))

def test_every_module_has_its_notebook():
    modules = {o.relative_to(PACKAGE).with_suffix("").as_posix() for o in PACKAGE.rglob("*.py")} - {"__init__", "_modidx"}
    assert modules == set(ORDER), "a module without a notebook, or a notebook that was not exported"

@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_lower_numbers(module):
    lower = set(ORDER[:ORDER.index(module)])
    found = ours(imports((PACKAGE / f"{module}.py").read_text(encoding="utf-8")))
    assert found <= lower, f"segtune/{module}.py imports {sorted(found - lower)}, which do not come before it"

@pytest.mark.parametrize("module", ORDER)
def test_a_notebook_imports_only_lower_numbers(module):
    lower = set(ORDER[:ORDER.index(module)])
    found = ours(o for src in code_cells(notebooks()[module]) for o in imports(without_magics(src)))
    assert found <= lower, f"{notebooks()[module].name} imports {sorted(found - lower)}, which do not come before it"

def test_nothing_below_adapt_imports_torch():
    below = ORDER[:ORDER.index("adapt")] if "adapt" in ORDER else ORDER
    used = {m: {o.split(".")[0] for o in imports((PACKAGE / f"{m}.py").read_text(encoding="utf-8"))} & TORCH for m in below}
    assert not any(used.values()), f"below adapt nothing may import torch, not even inside a function: {used}"

def loaded_after(code):
    "Which heavy packages a fresh interpreter has loaded after running `code`"
    report = f"\nimport sys; print([o for o in {HEAVY!r} if o in sys.modules])"
    res = subprocess.run([sys.executable, "-c", code + report], cwd=ROOT, capture_output=True, text=True)
    assert res.returncode == 0, res.stderr
    return res.stdout.splitlines()[-1]

def test_the_import_check_can_fail(): assert loaded_after("import pandas") == "['pandas']"

def test_importing_is_light(): assert loaded_after("import segtune, segtune.cli") == "[]"

def test_help_is_light():
    code = "import sys; sys.argv = ['segtune', '--help']\nfrom segtune.cli import main\ntry: main()\nexcept SystemExit as e: assert not e.code, e.code"
    assert loaded_after(code) == "[]"
