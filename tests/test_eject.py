"Ejected data encodes to the same ids and labels, for every golden, and what cannot is of a kind that is known."
import json
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_goldens import CASES, row_format, tokenizer

from segtune.data.eject import eject, eject_batch, shown
from segtune.data.formats import example_format, find_format, formats
from segtune.data.sources import find_rows
from segtune.encoder import Encoder, format_encoder
from segtune.models import bundled
from segtune.segments import DataError, SegtuneError, row2segments
from segtune.tokenizer import load_tokenizer

TOKENIZERS = ["mistral-v0.1", "mistral-v0.1-chatml", "gpt2"]
TOK = {name: load_tokenizer(bundled(name)) for name in TOKENIZERS}

# Goldens that no segments give, by kind: a window that begins in the middle of a text, where the tokenizer invents no
# space; a part that `sequence_len` cuts between two newlines, which are one token when nothing is cut.
INEXACT = {"a window begins where no text begins": 2, "a part is cut short": 1}

def kind(golden):
    if golden["format"].startswith(("completion", "pretrain")): return "a window begins where no text begins"
    return "a part is cut short" if "seqlen" in golden["format"] else "for no known reason"

def ejected(golden):
    "Every row of a case that its format can read"
    fmt, tok = row_format(golden), tokenizer(golden["tokenizer"])
    for row in golden["rows"]:
        try: fmt(row)
        except SegtuneError: continue
        yield from eject_batch(fmt, tok, [row])

def gives(o, tok):
    "Does the row, written to JSON and read again, give the ids and labels of the format?"
    row = Encoder(tok).encode([row2segments(json.loads(json.dumps(o.row)))]).row(0)
    return row.ids.tolist() == o.ids.tolist() and row.labels.tolist() == o.labels.tolist()

@pytest.mark.parametrize("name", sorted(CASES))
def test_goldens_come_back(name):
    tok = tokenizer(CASES[name]["tokenizer"])
    for o in ejected(CASES[name]):
        assert gives(o, tok) == o.exact
        assert o.exact or kind(CASES[name]) in INEXACT, shown(o, tok)

def test_what_does_not_come_back_is_counted():
    assert Counter(kind(golden) for golden in CASES.values() for o in ejected(golden) if not o.exact) == INEXACT


# ---- every format, style, boundary and tokenizer, with rows that nobody would write

ODD = ["", " ", "  x", "a ", "\n\n", "\n", "</s>", "<s>", "<|im_end|>", "<|endoftext|>", "😀", "👩‍👩‍👧", "é", "e\u0301", "東京", "▁",
       "Hello", "don't", "{x}", "1234", "\t", "\ufeff", "\u00a0"]
text = st.lists(st.sampled_from(ODD), min_size=1, max_size=4).map("".join)
STYLED = sorted({n if s is None else f"{n}:{s}" for n, f in formats.items() for s in (None, *f.styles)} - {"prompt"})

def filled(example, draw):
    "An example row with every text replaced"
    if isinstance(example, str): return draw(text)
    if isinstance(example, dict): return {k: v if k in ("from", "role", "label") else filled(v, draw) for k, v in example.items()}
    return [filled(o, draw) for o in example] if isinstance(example, list) else example

def row_for(type):
    base, _, style = type.partition(":")
    if style == "dialogue_summary": return dict(dialogue="A: Hi!", summary="They greet.")
    return formats[base].example

def format_for(type, tok, **options):
    base, _, style = type.partition(":")
    return find_format(type, tok, **options) if style else example_format(base, tok, **options)

@pytest.mark.parametrize("boundary", ["axolotl", "split", "whole"])
@pytest.mark.parametrize("type", STYLED)
def test_examples_come_back(type, boundary):
    for tok in TOK.values():
        for o in eject_batch(format_for(type, tok, boundary=boundary), tok, [row_for(type)]):
            assert gives(o, tok) == o.exact
            assert o.exact or type == "tokenized"  # ids that no text gives are named, not hidden

@pytest.mark.parametrize("type", STYLED)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_odd_rows_come_back(type, data):
    name = data.draw(st.sampled_from(TOKENIZERS))
    boundary, special = data.draw(st.sampled_from(["axolotl", "split"])), data.draw(st.sampled_from(["parse", "literal"]))
    fmt = format_for(type, TOK[name], boundary=boundary, special_in_data=special)
    try: made = eject_batch(fmt, TOK[name], [filled(row_for(type), data.draw)])
    except SegtuneError: return
    for o in made:
        assert gives(o, TOK[name]) == o.exact
        assert o.exact or type == "tokenized" or type.startswith("reflection") and boundary == "axolotl", shown(o, TOK[name])


# ---- files

def test_a_mixture_in_order(tmp_path):
    tok = TOK["gpt2"]
    names = ["alpaca", "sharegpt", "chat", "segments"]
    sources = [(example_format(n, tok), f"{n}.jsonl", [(i, formats[n].example) for i in (1, 2)]) for n in names]
    report = eject(sources, tok, tmp_path / "out.jsonl")
    assert report.rows == 8 and not report.inexact
    fmt = find_format("segments", tok)
    rows = [fmt(json.loads(line)) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    want = [i for f, _, rs in sources for _, r in rs for i in format_encoder(f, tok).encode([f(r)]).ids.tolist()]
    assert format_encoder(fmt, tok).encode(rows).ids.tolist() == want

def test_inexact_rows_are_named_and_may_be_skipped(tmp_path):
    tok = TOK["mistral-v0.1"]
    sources = [(find_format("completion", tok, sequence_len=4), "t.jsonl", [(9, dict(text="An unforgettable meal"))])]
    kept, left = (eject(sources, tok, tmp_path / "out.jsonl", how) for how in ("write", "skip"))
    assert (kept.rows, left.rows) == (2, 1)
    assert left.inexact == kept.inexact and left.inexact[0].startswith("t.jsonl:9: no segments give these tokens.")

def test_wrong_rows_are_named_together_or_left_out_and_told(tmp_path):
    "wherever the mistake is: in the file, in the row, in a field"
    tok = TOK["gpt2"]
    (tmp_path / "a.jsonl").write_text('{"instruction": "a", "output": "b"}\nno JSON\n{"instruction": "a"}\n[1]\n{"instruction": "c", "output": "d"}\n')
    def run(on_bad):
        rows, = find_rows(str(tmp_path / "a.jsonl"))
        return eject([(find_format("alpaca", tok), "a.jsonl", rows.read())], tok, tmp_path / "out.jsonl", on_bad=on_bad)
    with pytest.raises(DataError) as e: run("error")
    assert "3 rows of" in str(e.value) and all(f"a.jsonl:{n}" in str(e.value) for n in (2, 3, 4))
    report = run("skip")
    assert report.rows == 2 and len(report.wrong) == 3 and all(f"a.jsonl:{n}" in o for n, o in zip((2, 3, 4), report.wrong))
