"""Inputs that provoke an error message, tried in an empty folder when the page of messages is made."""
import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

GOOD = {"segments": [{"label": False, "text": "<s>Q: Capital of Peru?\nA:"}, {"label": True, "text": " Lima.</s>"}]}
CONFIG = {"base_model": "bundled:mistral-v0.1", "datasets": [{"path": "qa.jsonl"}]}


class Case(NamedTuple):
    "An input and the command that stumbles over it"
    shown: str              # What the reader sees of the input
    command: str            # After `segtune`
    files: dict             # Name -> content

def good(n=3): return "".join(json.dumps(GOOD | {"n": i}) .replace(f', "n": {i}', "") + "\n" for i in range(n))

def row(line, type="segments", **entry):
    "A line of the data file that is wrong"
    line = line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)
    config = CONFIG | {"datasets": [{"path": "qa.jsonl", "type": type, **entry}]}
    head = "" if type == "segments" else f"# type: {type}\n"
    return Case(head + line, "preprocess config.yml", {"qa.jsonl": line + "\n", "config.yml": json.dumps(config)})

def config(text, command="check config.yml", rows=None, **more):
    "Lines of a config that are wrong"
    own = {line.split(":")[0] for line in text.splitlines()}
    rest = "".join(f"{k}: {json.dumps(v)}\n" for k, v in (CONFIG | more).items() if k not in own)
    return Case(text, command, {"qa.jsonl": good() if rows is None else rows, "config.yml": rest + text + "\n"})

def command(line, **files):
    "A command line that is wrong"
    return Case(f"segtune {line}", line, {"qa.jsonl": good(), "config.yml": json.dumps(CONFIG), **files})

def segment(**o): return {"segments": [{"label": True, "text": "x</s>"}, o]}

CASES = [
    row('{"segments": [{"label": "false", "text": "hi"}]}'), row('{"segments": [{"label": true}]}'), row('{"segments": ["hi"]}'),
    row('{"segments": [{"label": true, "txt": "hi", "text": "hi"}]}'), row('{"segments": "hi"}'), row('{"segment": []}'), row('[1, 2]'),
    row('{"segments": [{"label": true, "text": "hi\\ud800"}]}'), row('{"segments": ['), row(''),
    row({"instruction": "Name a colour.", "output": None}, "alpaca"), row({"instruction": "Name a colour."}, "alpaca"),
    row({"conversations": [{"from": "human", "value": "Hi"}, {"from": "robot", "value": "Yes?"}]}, "sharegpt"),
    row({"conversations": "Hi"}, "sharegpt"),
    row({"messages": [{"role": "user", "content": 3}]}, "chat", chat_template="chatml"),
    row({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo", "train": 2}]}, "chat", chat_template="chatml"),
    row({"input_ids": [1, 22557], "labels": [-100]}, None), row({"input_ids": [1, 99999], "labels": [-100, 99999]}, None),
    row({"input_ids": [1, 22557], "labels": [-100, 5]}, None), row({"input_ids": [1, "x"], "labels": [1, 2]}, None),
    row({"q": "Peru?", "a": "Lima"}, "prompt", prompt="Q: {question}", answer=" {a}"), row({"q": "Peru?"}, "prompt", prompt="{q", answer=" {a}"),
    row({"text": "Hi"}, "alpacca"), row({"text": "Hi"}, "alpaca:poem"), row({"text": "Hi"}, "chat", chat_template="chatmll"),
    row({"text": "Hi"}, "chat", chat_template="jinja"), row({"text": "Hi"}, "nowhere.load"), row({"text": "Hi"}, "json.loads"),
    config("learning_rat: 1e-4"), config("sequence_len: abc"), config("val_set_size: 3", "preprocess config.yml"),
    config("boundary: halves"), config("adapter: qlora"), config("load_in_8bit: true\nload_in_4bit: true\nadapter: lora"),
    config("load_in_8bit: true"), config("learning_rate: 1e-4\nlearning_rate: 2e-4"), config("base_model: ./nowhere", "preprocess config.yml"),
    config("datasets: []"), config('datasets: [{"path": "absent.jsonl"}]', "preprocess config.yml"), config('datasets: [{"path": ""}]'),
    config('datasets: [{"path": "qa.jsonl", "split": "train[5"}]', "preprocess config.yml"),
    config('datasets: [{"path": "qa.jsonl", "shards": 2, "shards_idx": 2}]', "preprocess config.yml"),
    config('datasets: [{"path": "qa.jsonl", "ds_type": "xlsx"}]', "preprocess config.yml"), config("lint_silence: [no-eso]", "lint config.yml"),
    config("on_long: error\nsequence_len: 4", "preprocess config.yml"), config("sequence_len: 4", "preprocess config.yml"),
    config("val_set_size: 1\ntest_datasets: [{path: qa.jsonl}]"), config("rl: dpo"), config("chat_template: [1"),
    config("optimizer: adam_w", "train config.yml", base_model="bundled:tiny", adapter="lora"),
    config("optim_args: 3", "train config.yml", base_model="bundled:tiny", adapter="lora"),
    config("lr_scheduler: cosin", "train config.yml", base_model="bundled:tiny", adapter="lora"),
    config("lora_target_modules: [q_prj]", "train config.yml", base_model="bundled:tiny", adapter="lora", sequence_len=64),
    config("bf16: true\nfp16: true", "train config.yml", base_model="bundled:tiny", adapter="lora"),
    config("adapter: lora", "train config.yml", base_model="bundled:mistral-v0.1"),
    config("group_by_length: true\ncurriculum_sampling: true", "train config.yml", base_model="bundled:tiny", adapter="lora"),
    config("resume_from_checkpoint: ./gone", "train config.yml", base_model="bundled:tiny", adapter="lora"),
    config("special_in_data: error", "preprocess config.yml", rows=json.dumps(dict(instruction="Write </s>", output="a")) + "\n",
           datasets=[dict(path="qa.jsonl", type="alpaca")]),
    command("check absent.yml"), command("lint config.yml --set sequence_len"), command("lint config.yml --set sequence_len=abc"),
    command("inspect config.yml --diff foo"), command("inspect config.yml --row 9"), command("inspect config.yml --html nowhere/page.html"),
    command("eject config.yml -o rows.csv"), command("eject config.yml -o qa.jsonl"), command("cache purge config.yml"), command("formats alpacca"),
    command("init ."), command("preprocess config.yml --drop drop.txt", **{"drop.txt": "qa.jsonl:99\n"}),
    command("preprocess config.yml --drop drop.txt", **{"drop.txt": "line 7\n"}), command("evaluate config.yml"), command("generate config.yml --prompt Hi"),
    command("generate config.yml --prompt Hi --row 1"), command("lint config.yml --set learning_rate.x=1"), command("merge config.yml -o merged"),
]

@contextlib.contextmanager
def folder(files):
    "An empty folder with these files, as the current directory"
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as tmp:
        for name, text in files.items(): Path(tmp, name).write_text(text, encoding="utf-8", errors="surrogatepass")
        os.chdir(tmp)
        try: yield
        finally: os.chdir(before)

def raised_in(e):
    "The modules that an error passed, the one that raised it first"
    import traceback

    import segtune
    root = Path(segtune.__file__).parent
    files = [Path(o.filename) for o in traceback.extract_tb(e.__traceback__)]
    return [o.relative_to(root).with_suffix("").as_posix() for o in reversed(files) if root in o.parents]

def told(case):
    "What the command prints as its error, and the modules it passed"
    import shlex

    from typer.testing import CliRunner

    from segtune.cli import app
    with folder(case.files): result = CliRunner().invoke(app, shlex.split(case.command))
    return str(result.exception), raised_in(result.exception)


if __name__ == "__main__":
    for case in CASES: print("----", case.shown, "\n", case.command, "\n   =>", told(case))
