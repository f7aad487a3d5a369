"A run under a notebook's cell: one output, which grows, and which is the same for the same run."
import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

from test_train import ROWS, base, rows  # noqa: F401  `base` is a fixture

CODE = '''
import json, torch
torch.set_num_threads(1)
from segtune.training.notebook import NotebookView
from segtune.training.run import train
shown, show = [], NotebookView.show
def noting(self, status=''):
    shown.append((len(self.history), bool(status)))
    return show(self, status)
NotebookView.show = noting
data = 'DATA'
def go(out, **more):
    return train('BASE', data, eval_set=data, output_dir=out, lora_r=2, lora_target_linear=True, learning_rate=3e-3, micro_batch_size=5, num_epochs=3,
                 warmup_steps=0, logging_steps=1, **more)
result = go('one')
'''

def test_a_run_grows_under_its_cell(base, tmp_path):  # noqa: F811
    rows(ROWS).save_to_disk(str(tmp_path / "rows"))
    cells = [CODE.replace("DATA", str(tmp_path / "rows")).replace("BASE", str(base)), "go('two')", "lines = []\ngo('three', log=lines.append)", "print(json.dumps([shown, len(lines)]))"]
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(o) for o in cells])
    nbclient.NotebookClient(nb, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    def pages(i): return [o["data"]["text/html"] for o in nb.cells[i].outputs if "text/html" in o.get("data", {})]
    (first,), (second,) = pages(0), pages(1)
    assert first == second and first.count("<polyline") == 2 and "tokens/s" not in first and "left" not in first
    assert first.count("<tr>") == 1 + 7 and "<th>held-out loss</th>" in first   # steps 0 to 6
    shown, n_lines = json.loads(nb.cells[3].outputs[0]["text"])
    before = [n for n, going in shown if going]
    assert before[:10] == sorted(before[:10]) and before[0] == 1 and max(before) >= 7 and shown[-1][1] is False
    assert not pages(2) and n_lines > 6, "a log of one's own gets the lines"
    streams = "".join(o.get("text", "") for o in nb.cells[0].outputs if o.output_type == "stream")
    assert "parameters are trained" in streams and "step 1/6" not in streams and all(o.output_type != "error" for c in nb.cells for o in c.outputs)
