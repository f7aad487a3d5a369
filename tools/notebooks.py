"""Export the package, then run notebooks top to bottom and store their outputs.

    python tools/notebooks.py                      all of them, in order
    python tools/notebooks.py nbs/02_encode.ipynb  only these
    python tools/notebooks.py --slow               also the cells marked slow

A cell marked slow keeps the output it has. A notebook that fails is left as it was.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from check import BIN, ROOT, environment
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from traitlets.config import Config

SKIP = re.compile(r"^#\|\s*eval:\s*false", re.MULTILINE)
SLOW = re.compile(r"^#\|\s*slow\b", re.MULTILINE)


# Pictures are stored as SVG on a transparent ground, the same bytes each time, so that they suit light and dark pages.
DRAWING = """
c.InlineBackend.figure_formats = {"svg"}
c.InlineBackend.print_figure_kwargs = {"bbox_inches": "tight", "facecolor": "none", "metadata": {"Date": None}}
c.InlineBackend.rc = {"svg.hashsalt": "segtune", "axes.facecolor": "none"}
"""


class Client(NotebookClient):
    "Runs every cell but those the directives leave out, whose outputs stay"
    slow = False

    async def async_execute_cell(self, cell, cell_index, *args, **kwargs):
        if SKIP.search(cell.source) or (SLOW.search(cell.source) and not self.slow): return cell
        return await super().async_execute_cell(cell, cell_index, *args, **kwargs)

def execute(path, slow):
    "Run one notebook in its own folder and store what it shows"
    nb = nbformat.read(path, 4)
    with tempfile.TemporaryDirectory() as sockets:   # a kernel that listens on no port
        profile = Path(sockets) / "profile_default"
        profile.mkdir()
        (profile / "ipython_kernel_config.py").write_text(f"c = get_config()\n{DRAWING}", encoding="utf-8")
        os.environ["IPYTHONDIR"] = sockets
        local = Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}})
        client = Client(nb, timeout=1800, kernel_name="python3", coalesce_streams=True, config=local,
                        resources={"metadata": {"path": str(path.parent)}})
        client.slow = slow
        client.execute()
    for cell in nb.cells: cell.metadata.pop("execution", None)
    nbformat.write(nb, path)
    return [o for c in nb.cells if c.cell_type == "code" for o in c.outputs if o.get("name") == "stderr"]

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("notebooks", nargs="*", type=Path)
    p.add_argument("--slow", action="store_true", help="run cells marked slow too")
    a = p.parse_args()
    wanted = [o.resolve() for o in a.notebooks]
    os.chdir(ROOT)
    os.environ.update(environment(JUPYTER_PREFER_ENV_PATH="1", MPLBACKEND="module://matplotlib_inline.backend_inline", COLUMNS="80"))
    subprocess.run([BIN / "nbdev_export"], check=True)
    failed = []
    for path in wanted or [o.absolute() for o in sorted(nbglob(get_config().nbs_path, as_path=True))]:
        start, name = time.time(), path.relative_to(ROOT)
        try: warned = execute(path, a.slow)
        except CellExecutionError as e:
            failed.append(name)
            print(f"{name}: FAILED\n{e}")
            continue
        subprocess.run([BIN / "nbdev_clean", "--fname", path], check=True)
        print(f"{name}: {time.time() - start:.0f} s{' (writes to stderr, which is now in its outputs)' if warned else ''}", flush=True)
    if failed: sys.exit(f"failed: {', '.join(map(str, failed))}")


if __name__ == "__main__": main()
