"""Mutated configs, rows, files and tokenizers: each gives a result, or one clear SegtuneError, in bounded time.

    python tests/mutate.py            1,000 cases
    python tests/mutate.py 10000      more of them
    python tests/mutate.py 1 4711     the one case with this number

A case is known by its number alone, so that what is found can be tried again. `test_mutate.py` runs the first thousand.
"""
import json
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import yaml

from segtune.project import Project, open_config
from segtune.segments import SegtuneError

SLOW = 20  # seconds that one case may take
ODD = [None, True, False, 0, -1, 1, 3.5, 1e308, 10**30, "", " ", "x", "\ud800", "\0", "\ufeff", "é", "a" * 5000, "{", "{{ 1 // 0 }}", "<s>", "</s>",
       [], [[]], {}, {"a": None}, [None], "segments", "alpaca", "chat_template", "../..", ".", "off", "1e5", "%s", "{x!r:>9}", "\n", "\r\n"]
CHAT = dict(messages=[dict(role="user", content="Hi"), dict(role="assistant", content="Hello")])
TYPES = {"segments": dict(segments=[dict(text="<s>Q", label=False), dict(text=" A</s>", label=True)]), "alpaca": dict(instruction="Add.", input="1", output="2"),
         "completion": dict(text="Some text."), "chat_template": CHAT, "chat": CHAT, "sharegpt": dict(conversations=[{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]),
         "input_output": dict(segments=[dict(text="<s>Q", label=False), dict(text=" A</s>", label=True)]), "text": dict(text="x")}
CONFIG = dict(base_model="bundled:tiny", sequence_len=64, val_set_size=0, chat_template="chatml", special_tokens=dict(pad_token="<pad>"), tokens=["<a>"],
              learning_rate=1e-4, adapter="lora", lora_r=8, micro_batch_size=2, wandb_project="x", eot_tokens=["</s>"])


# ---- one change somewhere

def places(o, at=()):
    "Paths of everything inside"
    pairs = o.items() if isinstance(o, dict) else enumerate(o) if isinstance(o, list) else ()
    for k, v in pairs:
        yield (*at, k)
        yield from places(v, (*at, k))

def mutated(o, rng):
    "A copy with one value put, removed, doubled or moved"
    o = json.loads(json.dumps(o))
    at = rng.choice(list(places(o)) or [None])
    if at is None: return rng.choice(ODD)
    inner = o
    for k in at[:-1]: inner = inner[k]
    how = rng.randrange(5)
    if how == 0: del inner[at[-1]]
    elif how == 1 and isinstance(inner, dict): inner[str(rng.choice(ODD))[:20]] = inner.pop(at[-1])
    elif how == 2 and isinstance(inner, list): inner.append(inner[at[-1]])
    elif how == 3: inner[at[-1]] = [inner[at[-1]]]
    else: inner[at[-1]] = rng.choice(ODD)
    return o

def bent(data, rng):
    "Bytes with a few of them cut, doubled or changed"
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        i = rng.randrange(len(data) + 1)
        how = rng.randrange(4)
        if how == 0: del data[i:i + rng.choice([1, 1, 9, len(data)])]
        elif how == 1: data[i:i] = bytes(rng.randrange(256) for _ in range(rng.choice([1, 3])))
        elif how == 2: data[i:i] = rng.choice([b'"', b"[", b"{", b"\n", b",", b"\0", b"\xff\xfe", b": ", b"- ", b"&a ", b"*a", b"!!", b"'"])
        elif i < len(data): data[i] ^= 1 << rng.randrange(8)
    return bytes(data)


# ---- what can be wrong

def config_case(rng, d):
    name = rng.choice(list(TYPES))
    write_rows(d / "data.jsonl", [TYPES[name]] * 4)
    values = CONFIG | dict(datasets=[dict(path="data.jsonl", type=name)])
    for _ in range(rng.randint(1, 3)): values = mutated(values, rng) if isinstance(values, dict) and values else values
    try: text = yaml.safe_dump(values, allow_unicode=True)
    except (yaml.YAMLError, UnicodeError): text = json.dumps(values)
    data = text.encode(errors="surrogatepass")
    (d / "config.yml").write_bytes(bent(data, rng) if rng.random() < .4 else data)

def plain_config(d, path, type="segments", **more):
    (d / "config.yml").write_text(yaml.safe_dump(CONFIG | dict(datasets=[dict(path=path, type=type)]) | more))

def write_rows(path, rows): path.write_text("".join(json.dumps(o) + "\n" for o in rows), encoding="utf-8")

def row_case(rng, d):
    name = rng.choice(list(TYPES))
    rows = [TYPES[name]] * rng.randint(1, 3) + [mutated(TYPES[name], rng)]
    for _ in range(rng.randint(0, 2)): rows[-1] = mutated(rows[-1], rng) if isinstance(rows[-1], (dict, list)) and rows[-1] else rows[-1]
    rng.shuffle(rows)
    write_rows(d / "data.jsonl", rows)
    plain_config(d, "data.jsonl", name, on_bad=rng.choice(["error", "skip"]))

def file_case(rng, d):
    kind = rng.choice(["jsonl", "json", "csv", "parquet", "arrow", "txt"])
    rows, path = [dict(text=f"Text {i}, said.") for i in range(5)], d / f"data.{kind}"
    if kind == "json": path.write_text(json.dumps(rows))
    elif kind == "txt": path.write_text("\n".join(o["text"] for o in rows))
    elif kind == "csv": path.write_text("text\n" + "".join(f'"{o["text"]}"\n' for o in rows))
    elif kind == "jsonl": write_rows(path, rows)
    else: write_table(path, rows, kind)
    path.write_bytes(bent(path.read_bytes(), rng))
    plain_config(d, path.name, "text")

def write_table(path, rows, kind):
    import pyarrow as pa
    import pyarrow.parquet as pq
    table = pa.Table.from_pylist(rows)
    if kind == "parquet": return pq.write_table(table, path)
    with pa.OSFile(str(path), "wb") as f, pa.ipc.new_stream(f, table.schema) as out: out.write_table(table)

SMALL = dict(version="1.0", truncation=None, padding=None, normalizer=dict(type="NFC"), post_processor=None, decoder=None,
             added_tokens=[dict(id=i, content=o, special=True, single_word=False, lstrip=False, rstrip=False, normalized=False) for i, o in enumerate(["<s>", "</s>"])],
             pre_tokenizer=dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True),
             model=dict(type="BPE", vocab={o: i for i, o in enumerate(["<s>", "</s>", *"abcdefghijklmnopqrstuvwxyzQAĠ", "ab"])}, merges=["a b"], unk_token=None,
                        dropout=None, continuing_subword_prefix=None, end_of_word_suffix=None, fuse_unk=False, byte_fallback=False))

def tokenizer_case(rng, d):
    (d / "model").mkdir()
    spec, conf = SMALL, dict(bos_token="<s>", eos_token="</s>", chat_template="{% for m in messages %}{{ m.content }}{% endfor %}", add_bos_token=False)
    if rng.random() < .8: spec = mutated(spec, rng)
    else: conf = mutated(conf, rng)
    for name, o in (("tokenizer.json", spec), ("tokenizer_config.json", conf)):
        data = json.dumps(o).encode()
        (d / "model" / name).write_bytes(bent(data, rng) if rng.random() < .2 else data)
    write_rows(d / "data.jsonl", [TYPES["segments"]] * 3)
    plain_config(d, "data.jsonl", base_model="model", special_tokens={}, tokens=[], eot_tokens=None)

KINDS = dict(config=config_case, row=row_case, file=file_case, tokenizer=tokenizer_case)


# ---- trying them

def outcome(d):
    "What preparing the config gives: a result, or an error that is ours"
    try:
        open_config(d / "config.yml")
        project = Project.open(d / "config.yml")
        p = project.prepared
        project.check_split()
        assert p.count.rows >= 0
        return "fine"
    except SegtuneError as e:
        assert str(e).strip(), "an error without a message"
        return type(e).__name__


def run_case(number):
    "`(kind, outcome)`; raises what no user should see"
    rng, began, home = random.Random(number), time.process_time(), Path.cwd()
    kind = rng.choice(list(KINDS))
    with tempfile.TemporaryDirectory() as tmp:
        d = Path(tmp) / "a" / "b"
        d.mkdir(parents=True)
        os.chdir(d)
        try:
            KINDS[kind](rng, d)
            found = outcome(d)
        finally: os.chdir(home)
    spent = time.process_time() - began
    assert spent < SLOW, f"took {spent:.0f} s"
    return kind, found

def main(n=1000, first=0):
    import logging
    import warnings
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    seen, wrong = Counter(), []
    for number in range(first, first + n):
        try: seen[run_case(number)] += 1
        except BaseException as e:   # a panic of a Rust library is no Exception
            if isinstance(e, KeyboardInterrupt): raise
            wrong.append(number)
            last = traceback.extract_tb(e.__traceback__)[-1]
            print(f"{number}: {type(e).__name__}: {str(e)[:150]} ({Path(last.filename).name}:{last.lineno})", flush=True)
            if n == 1: traceback.print_exc()
    for (kind, found), k in sorted(seen.items()): print(f"{kind:10} {found:15} {k:6,}")
    print(f"{n:,} cases, {len(wrong)} of them wrong")
    return wrong

if __name__ == "__main__": sys.exit(bool(main(*map(int, sys.argv[1:]))))
