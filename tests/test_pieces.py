"Where the encoder cuts travels with the batch, and how pieces are encoded changes no token."
import pickle

import numpy as np
import pytest
from conftest import make_tokenizer, tokenizer_names
from hypothesis import given, settings
from hypothesis import strategies as st

from segtune.encoder import Encoder, encode_pieces
from segtune.pieces import boundaries, find_boundary, row2pieces
from segtune.segments import Segment
from segtune.tokenizer import FastTokenizer

bits = ["<s>", "</s>", " ", "  ", "\n", "a", "Hello", " there", ".", "é", "東", "▁x"]
texts = st.lists(st.sampled_from(bits), max_size=5).map("".join)
rows = st.lists(st.lists(st.builds(Segment, texts, st.booleans(), st.booleans()), max_size=4), max_size=4)


@pytest.mark.parametrize("name", tokenizer_names)
def test_encoding_each_text_once_changes_no_token(name):
    tok = make_tokenizer(name)
    @settings(max_examples=30, deadline=None)
    @given(rows, st.sampled_from(boundaries))
    def check(batch, boundary):
        pieces = [p for r in batch * 2 for p in row2pieces(tok, r, boundary)]
        want = [tok.variant(p.prefix, p.special).encode(p.text) for p in pieces]
        for spans in (False, True):
            ids, n, where = encode_pieces(tok, pieces, spans)
            assert ids.tolist() == [i for e in want for i in e.ids] and n.tolist() == [len(e) for e in want]
            offsets = [(a + p.start, b + p.start) for p, e in zip(pieces, want, strict=True) for a, b in e.offsets]
            if spans: assert [tuple(o) for o in where.tolist()] == offsets
    check()

@pytest.mark.parametrize("boundary", boundaries)
@settings(deadline=None)
@given(batch=rows)
def test_pieces_travel_with_the_batch(boundary, batch):
    tok = make_tokenizer("mistral")
    out = Encoder(tok, find_boundary(boundary)).encode(batch)
    assert ["".join(p.text for p in o) for o in out.pieces] == ["".join(s.text for s in r) for r in batch]
    assert np.array_equal(out.ids, Encoder(tok, boundary).encode(batch).ids)

def test_a_tokenizer_that_has_encoded_can_be_sent_to_another_process():
    tok = FastTokenizer(make_tokenizer("gpt2").spec)
    row = [Segment("Hello", True)]
    want = Encoder(tok).encode([row]).ids.tolist()
    assert Encoder(pickle.loads(pickle.dumps(tok))).encode([row]).ids.tolist() == want

def test_what_a_tokenizer_has_made_stays_behind_when_it_is_sent():
    fresh, used = (FastTokenizer(make_tokenizer("mistral").spec) for _ in range(2))
    Encoder(used).encode([[Segment("Hello</s>", True)]])
    used.token_bytes, used.cut_special("a</s>b")
    assert used.__getstate__() == fresh.__getstate__()

@pytest.mark.parametrize("name", tokenizer_names)
def test_a_tokenizer_that_has_cut_can_be_sent_to_another_process(name):
    tok = FastTokenizer(make_tokenizer(name).spec)
    text = "a <s>b</s> <|im_end|> c"
    assert pickle.loads(pickle.dumps(tok)).cut_special(text) == tok.cut_special(text)
    assert pickle.loads(pickle.dumps(tok)).cut_special(text) == tok.cut_special(text), "after it has cut"
