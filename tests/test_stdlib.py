"The demo data, from a library small enough to see through, and from the real one."
import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from segtune.data.stdlib import (
    described_functions,
    first_sentence,
    held_out_modules,
    is_held_out,
    is_worth_learning,
    question,
    split_by_module,
    stdlib_files,
    stdlib_rows,
    write_stdlib,
)
from segtune.models import bundled
from segtune.segments import ConfigError, MissingError, read_jsonl, row2segments

ROOT = Path(__file__).resolve().parent.parent
EOS = "<|im_end|>"

SHAPES = '''
def area(w, h):
    """Multiply width by height."""
    return w*h

class Shape:
    @staticmethod
    def empty():
        """Build a shape that
        covers nothing.

        Not used."""
        # nothing here
        return Shape()

    async def draw(self, pen):
        \'\'\'Draw with the given pen.\'\'\'
        await pen("  kept  ")  # as it is

    def bare(self):
        """Say something, but do nothing at all."""

    def undocumented(self): return 1

    def ends(self):
        """Stop where the text ends."""
        return "<|im_end|>"
'''


@pytest.fixture
def library(tmp_path):
    "A library with two modules, a broken one, and folders that are left out"
    files = {"shapes.py": SHAPES, "heapq.py": SHAPES.replace("area", "volume").replace("height.", "height and depth."), "broken.py": "def f(:\n",
             "test/test_a.py": SHAPES, "site-packages/b.py": SHAPES, "pack/__init__.py": "", "pack/latin.py": ""}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "pack" / "latin.py").write_bytes('# coding: latin-1\ndef café():\n    """Brew some café."""\n    return 1\n'.encode("latin-1"))
    return tmp_path

@pytest.fixture(scope="module")
def rows(): return list(stdlib_rows(EOS))


def test_files_are_sorted_and_folders_left_out(library):
    assert [o for o, _ in stdlib_files(library)] == ["broken", "heapq", "pack", "pack.latin", "shapes"]

def test_sources_are_cut_by_lines(library):
    found = {o.function: o for o in described_functions(library / "shapes.py", "shapes")}
    assert [*found] == ["area", "Shape.empty", "Shape.draw", "Shape.ends"]
    assert found["area"].source == "def area(w, h):\n    return w*h"
    assert found["Shape.empty"].source == "@staticmethod\ndef empty():\n    # nothing here\n    return Shape()"
    assert found["Shape.draw"].source == 'async def draw(self, pen):\n    await pen("  kept  ")  # as it is'
    assert found["Shape.empty"].sentence == "Build a shape that covers nothing."

def test_a_string_left_of_the_code_is_never_moved(library):
    "Its text stands at the left margin, so moving the method there would not be the same function"
    with open(library / "margin.py", "w") as f: f.write('class A:\n    def f(self):\n        """Return three lines of text."""\n        return """\nx"""\n')
    assert list(described_functions(library / "margin.py")) == []

def test_rows_are_exact(library):
    row = next(o for o in stdlib_rows(EOS, root=library) if o["function"] == "area")
    assert row == {"segments": [{"label": False, "text": "def area(w, h):\n    return w*h\n\n# What it does:"},
                                {"label": True, "text": " Multiply width by height.<|im_end|>"}], "module": "shapes", "function": "area"}

def test_a_row_never_holds_the_end_of_text_twice(library):
    assert "Shape.ends" not in [o["function"] for o in stdlib_rows(EOS, root=library)]
    assert "Shape.ends" in [o["function"] for o in stdlib_rows("</s>", root=library)]

def test_the_same_source_comes_once(library):
    names = [o["function"] for o in stdlib_rows("</s>", root=library)]
    assert sorted(names) == ["Shape.draw", "Shape.empty", "Shape.ends", "area", "café", "volume"]

def test_max_chars_counts_the_source(library):
    size = len("def area(w, h):\n    return w*h")
    for most, there in ((size, True), (size - 1, False)):
        assert ("area" in [o["function"] for o in stdlib_rows(EOS, most, root=library)]) is there

def test_written_files(library, tmp_path):
    out = tmp_path / "out" / "deep"
    assert write_stdlib(out, EOS, root=library) == {"train": 2, "held_out": 3, "repeated": 0}
    held = [row for _, row in read_jsonl(out / "held_out.jsonl")]
    assert {o["module"] for o in held} == {"heapq"}
    assert {o["module"] for _, o in read_jsonl(out / "train.jsonl")} == {"pack.latin", "shapes"}
    assert "café" in (out / "train.jsonl").read_text(encoding="utf-8")
    assert write_stdlib(out, EOS, max_rows=1, root=library) == {"train": 1, "held_out": 1, "repeated": 0}

def test_answers_seen_in_training_leave_the_held_out_part():
    def row(module, text): return {"segments": [{"label": False, "text": module}, {"label": True, "text": text}], "module": module, "function": "f"}
    rows = [row("os", " Same."), row("json", " Same."), row("json.decoder", " Other.")]
    assert split_by_module(rows) == ([rows[0]], [rows[2]], 1)

def test_both_parts_must_have_rows(library, tmp_path):
    with pytest.raises(ConfigError, match="0 held out; both are needed"): write_stdlib(tmp_path / "x", EOS, root=library, held_out={"nonesuch"})
    assert not (tmp_path / "x").exists()
    (tmp_path / "none").mkdir()
    with pytest.raises(MissingError, match="found no Python source"): list(stdlib_rows(EOS, root=tmp_path / "none"))

@pytest.mark.parametrize("doc,said", [
    ("Close it. Then go.", "Close it."), ("Use e.g. Two or more. Fine", "Use e.g. Two or more."), ("Is it open?\n", "Is it open?"),
    ("Return a.b of c", "Return a.b of c."), ("Return the\n\n  next", "Return the."), ("lower case", None), (">>> f()", None), ("", None),
    ("Options, such as:", None), ("Return 1.5 times x.", "Return 1.5 times x."), ("Return `x`", "Return `x`."), ("Split at '.'. Join again.", "Split at '.'."),
])
def test_first_sentence(doc, said): assert first_sentence(doc) == said

@pytest.mark.parametrize("name,said,worth", [
    ("get_charset", "Return the charset.", False), ("A.get_charset", "Return the character set in use.", True), ("f", "TODO write this text.", False),
    ("f", "Too short.", False), ("f", "f(x) -> int for some x.", False), ("f", "Say " + "x " * 90 + "end.", False), ("f", "Deprecated, use g instead.", False),
])
def test_worth_learning(name, said, worth): assert is_worth_learning(said, name) is worth

def test_the_real_library(rows):
    assert 3000 < len(rows) < 8000
    sources = [o["segments"][0]["text"].removesuffix(question) for o in rows]
    assert len(set(sources)) == len(rows) and max(map(len, sources)) <= 500
    for o in rows: assert [s.label for s in row2segments(o)] == [False, True]
    for row, source in zip(rows, sources):
        answer = row["segments"][1]["text"]
        assert answer[0] == " " and answer[1] != " " and answer.endswith(EOS) and answer.count(EOS) == 1 and "\n" not in answer
        f = ast.parse(source).body
        assert len(f) == 1 and isinstance(f[0], ast.FunctionDef | ast.AsyncFunctionDef) and f[0].name == row["function"].split(".")[-1]

def test_held_out_modules_are_unseen(rows):
    train, held, n_repeated = split_by_module(rows)
    assert len(train) + len(held) + n_repeated == len(rows) and n_repeated < 50
    assert not {o["module"] for o in train} & {o["module"] for o in held}
    for i in (0, 1): assert not {o["segments"][i]["text"] for o in train} & {o["segments"][i]["text"] for o in held}
    assert .08 < len(held) / len(rows) < .15
    assert set(held_out_modules) <= set(sys.stdlib_module_names) | {"tomllib"}
    assert is_held_out("_pydatetime", {"datetime"}) and not is_held_out("_pydatetime")

def test_any_beginning_is_a_fair_sample(tmp_path):
    write_stdlib(tmp_path, EOS, max_rows=200)
    first = [json.loads(o)["module"].split(".")[0].lstrip("_")[0] for o in open(tmp_path / "train.jsonl", encoding="utf-8")]
    assert len(set(first)) >= 15, f"modules begin with {sorted(set(first))} only"

@pytest.mark.parametrize("name", ["tiny", "gpt2"])
def test_the_space_belongs_to_the_answer(rows, name):
    "With a byte-level tokenizer the prompt's ids are a prefix of the row's, and cutting the row changes no id"
    from tokenizers import Tokenizer
    tok = Tokenizer.from_file(str(bundled(name) / "tokenizer.json"))
    texts = [[s["text"].replace(EOS, "<|endoftext|>") for s in o["segments"]] for o in rows[::5]]
    prompts, answers, whole = (tok.encode_batch(o) for o in ([p for p, _ in texts], [a for _, a in texts], [p + a for p, a in texts]))
    assert all(w.ids == p.ids + a.ids for p, a, w in zip(prompts, answers, whole))
    moved = tok.encode_batch([p + " " for p, _ in texts])
    alike = sum(w.ids[:len(m.ids)] == m.ids for m, w in zip(moved, whole))
    assert alike <= len(whole) * (0.05 if name == "tiny" else 0), "at the end of the prompt the space would be a token that the row does not have"

def test_nothing_is_imported_and_output_is_reproducible(tmp_path):
    code = "import sys; from segtune.data.stdlib import write_stdlib; write_stdlib(sys.argv[1], '</s>'); print([o for o in ('tkinter', 'turtle', 'torch', 'numpy') if o in sys.modules])"
    outs = []
    for seed in "12":
        res = subprocess.run([sys.executable, "-c", code, tmp_path / seed], cwd=ROOT, capture_output=True, text=True, env={"PYTHONHASHSEED": seed, "PATH": ""})
        assert res.stdout == "[]\n", res.stderr
        outs.append([(tmp_path / seed / o).read_bytes() for o in ("train.jsonl", "held_out.jsonl")])
    assert outs[0] == outs[1]
