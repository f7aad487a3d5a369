"The report that the home page links to: the 150 dialogues that come with segtune, under Mistral's tokenizer."
import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

PROMPT = "Instruct: Summarize the following conversation.\n{dialogue}\nOutput:"

@contextmanager
def chdir(folder):
    before = os.getcwd()
    os.chdir(folder)
    try: yield
    finally: os.chdir(before)

def write(nbs, path):
    "Prepare the dialogues and write their report"
    import segtune as st
    rows = [json.loads(o) for o in (nbs / "guides/dialogues.jsonl").read_text(encoding="utf-8").splitlines()]
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp)
        (folder / "dialogues.jsonl").write_text("".join(json.dumps(o, ensure_ascii=False) + "\n" for o in rows), encoding="utf-8")
        options = dict(type="prompt", prompt="<s>" + PROMPT, answer=" {summary}{eos}", dataset_prepared_path="prepared")
        with chdir(folder): st.prepare("dialogues.jsonl", "bundled:mistral-v0.1", **options).report(path)
