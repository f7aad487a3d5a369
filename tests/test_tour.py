"From the home page to a coloured table of one's own row: one install, one cell."
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CELLS = json.loads((ROOT / "nbs/guides/tour.ipynb").read_text(encoding="utf-8"))["cells"]
SHOWN = "st.show([('<s>Q: Capital of France?\\nA:', False), (' Paris.</s>', True)], tok)"


def source(cell): return "".join(cell["source"])

def test_the_tour_is_the_first_guide():
    config = (ROOT / "_quarto.yml").read_text(encoding="utf-8")
    assert config.index("guides/tour.ipynb") < config.index("guides/input_output.ipynb")
    assert any("pip install 'segtune[train]'" in source(c) for c in CELLS[:2])

def test_the_first_cell_of_the_tour_colours_a_row_of_ones_own(tmp_path):
    cell = next(source(c) for c in CELLS if c["cell_type"] == "code" and "#| hide" not in source(c))
    assert SHOWN in cell and cell.count("\n") <= 4
    own = "st.show([('Dear Sir,\\n', False), ('no thanks.</s>', True)], tok)"
    code = cell.replace(SHOWN, f"print({own}._repr_html_())")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and not done.stderr, done.stderr
    for what in ("Dear", "thanks", "&lt;/s&gt;", "<table", "trained", "masked"): assert what in done.stdout, what
    assert list(tmp_path.iterdir()) == []

def test_the_commands_at_the_end_of_the_tour_follow_one_another():
    text = next(source(c) for c in CELLS if "segtune init" in source(c))
    typed = [o.split("#")[0].strip() for o in text.split("```")[1].strip().splitlines()]
    assert typed[:2] == ["segtune init my-project", "cd my-project"] and all("config.yml" in o for o in typed[2:])
