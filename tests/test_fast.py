"fastokens in the place of tokenizers: the same ids, or the tokenizers library."
from functools import cache, partial

import numpy as np
import pytest
from conftest import make_tokenizer, tokenizer_names
from hypothesis import given, settings
from hypothesis import strategies as st

from segtune import fast
from segtune.encoder import Encoder
from segtune.fast import FlatEncoder, encode_flat, first_difference, load_fast, probe_texts, prove, spaced_encoder
from segtune.segments import Segment, TokenizerError
from segtune.tokenizer import FastTokenizer

pytest.importorskip("fastokens")
texts = st.lists(st.text(max_size=40) | st.sampled_from([" ", "\n\n", "<s>a</s>", "é", "ﬁ", "▁x"]), max_size=8)


@pytest.fixture(autouse=True)
def own_memory(tmp_path, monkeypatch): monkeypatch.setenv("SEGTUNE_CACHE", str(tmp_path))

def forms(name): return [make_tokenizer(name).variant(prefix, special) for prefix in (True, False) for special in (True, False)]

def proved(name):
    "The forms of a tokenizer that fastokens reads and that pass the probe, with its encoder"
    for backend in forms(name):
        try: encode = load_fast(backend)
        except Exception: continue
        if first_difference(backend, encode, probe_texts(backend)) is None: yield backend, encode

@pytest.mark.parametrize("name", ["mistral", "mistral-chatml", "gpt2"])
def test_every_form_of_the_bundled_tokenizers_is_proved(name): assert len(list(proved(name))) == 4

@pytest.mark.parametrize("name", tokenizer_names)
def test_what_passes_the_probe_encodes_any_text_alike(name):
    pairs = list(proved(name))
    @settings(max_examples=60, deadline=None)
    @given(texts)
    def check(batch):
        for backend, encode in pairs: assert first_difference(backend, encode, batch) is None
    check()

def wrong_id(ids, n, i, end): ids[end - 1] += 1
def missing_token(ids, n, i, end):
    n[i] -= 1
    return np.delete(ids, end - 1)
def token_twice(ids, n, i, end):
    n[i] += 1
    return np.insert(ids, end, ids[end - 1])
def token_of_the_neighbour(ids, n, i, end):
    "the last token of a piece, counted to the next one; of the last piece, to the one before"
    j = i + 1 if i + 1 < len(n) else i - 1
    n[i] -= 1
    n[j] += 1
def merged_with_the_neighbour(ids, n, i, end):
    "all tokens of two pieces in one"
    j = i + 1 if i + 1 < len(n) else i - 1
    n[i], n[j] = n[i] + n[j], 0

@cache
def loaded(name, prefix): return load_fast(make_tokenizer(name).variant(prefix))

def faulty(right, wrong, at, met):
    "An encoder with a fault in one piece"
    def encode(batch):
        ids, n = (o.copy() for o in right(batch))
        for i in [i for i, t in enumerate(batch) if t.endswith(f"piece {at}") and len(batch) > 3000]:
            met.append(i)
            changed = wrong(ids, n, i, np.cumsum(n)[i])
            ids = ids if changed is None else changed
        return ids, n
    return encode

faults = [wrong_id, missing_token, token_twice, token_of_the_neighbour, merged_with_the_neighbour]

@pytest.mark.parametrize("at", [0, 1, 999, 1000, 7_777, 9_999])
@pytest.mark.parametrize("wrong", faults, ids=lambda o: o.__name__)
@pytest.mark.parametrize("name,prefix", [("mistral", True), ("mistral", False), ("gpt2", True)])
def test_one_fault_in_ten_thousand_pieces_is_caught(name, prefix, wrong, at):
    "by a library that passed the probe"
    tok, met = make_tokenizer(name), []
    backend = tok.variant(prefix)
    fast._remember(fast._proof_path(backend.to_str()), None)
    def load(backend): return faulty(loaded(name, prefix), wrong, at, met)
    def encoder(): return FlatEncoder(backend, tok.token_bytes, prefix and tok.adds_prefix_space, start=0, load=load)
    with pytest.raises(TokenizerError, match=r"disagree about '.*piece·\d+'. Nothing was kept"): encoder()([f"piece {i}" for i in range(10_000)])
    assert met
    later = encoder()
    assert np.array_equal(later([f"piece {at}"])[0], encode_flat(backend, [f"piece {at}"])[0]), "a library that erred was asked again"
    assert later.fast is None and later.note.startswith("fastokens gives other tokens")

@pytest.mark.parametrize("wrong", faults, ids=lambda o: o.__name__)
def test_a_faulty_library_stops_the_encoder(wrong, monkeypatch):
    "in the form that is made of the other one, too, with a special token in each piece"
    tok, met = FastTokenizer(make_tokenizer("mistral").spec), []
    monkeypatch.setattr("segtune.encoder.load_fast", lambda backend: faulty(loaded("mistral", False), wrong, 7_777, met))
    texts = [f"<s>{'x' * 60} piece {i}" for i in range(10_000)]
    with pytest.raises(TokenizerError, match="disagree about"): Encoder(tok).encode([[Segment(t, True)] for t in texts])
    assert met

@pytest.mark.parametrize("fault", ["\u0130", "  a", "</s>"])
def test_a_fault_in_a_corner_is_found_by_the_probe(fault):
    "before any data is seen"
    backend = make_tokenizer("mistral").backend
    def load(backend):
        right = load_fast(backend)
        return lambda texts: right([t.replace(fault, "x") for t in texts])
    encode = FlatEncoder(backend, start=0, load=load)
    assert np.array_equal(encode(["Hello"])[0], encode_flat(backend, ["Hello"])[0])
    assert encode.fast is None and encode.note.startswith("fastokens gives other tokens")

def test_another_segmentation_with_the_same_spelling_is_caught_by_the_sample():
    tok = make_tokenizer("gpt2")
    def load(backend):
        def encode(batch):
            if "hello" not in batch: return encode_flat(backend, batch)
            return encode_flat(backend, list("".join(batch)))[0], np.array([len(t) for t in batch])
        return encode
    with pytest.raises(TokenizerError, match="disagree about 'hello'"): FlatEncoder(tok.backend, tok.token_bytes, start=0, load=load)(["hello"])

def test_a_small_dataset_never_loads_it(monkeypatch):
    encode = FlatEncoder(make_tokenizer("gpt2").backend, load=lambda backend: pytest.fail("loaded"))
    encode(["few words"] * 100)
    encode(["few words"] * 100)

def test_it_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("SEGTUNE_FAST", "0")
    encode = FlatEncoder(make_tokenizer("gpt2").backend, start=0, load=lambda backend: pytest.fail("loaded"))
    encode(["a"])
    encode(["a"])

@pytest.mark.parametrize("memory", ["", "{", "[]", '{"differs": 1', '"x"', "\x00"])
def test_a_damaged_memory_is_proved_again(memory):
    backend = make_tokenizer("gpt2").backend
    path = fast._proof_path(backend.to_str())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(memory)
    assert prove(backend, load_fast(backend)) is None

def test_a_memory_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEGTUNE_CACHE", str(tmp_path / "file"))
    assert prove(make_tokenizer("gpt2").backend, load_fast(make_tokenizer("gpt2").backend)) is None

@pytest.mark.parametrize("name", [n for n in tokenizer_names if make_tokenizer(n).prefix_is_space])
@settings(max_examples=200, deadline=None)
@given(batch=texts)
def test_a_space_in_the_text_is_the_invented_one(name, batch):
    tok = make_tokenizer(name)
    for special in (True, False):
        spaced = spaced_encoder(partial(encode_flat, tok.variant(False, special)), tok.cut_special if special else lambda t: ())
        assert first_difference(tok.variant(True, special), spaced, batch) is None

def test_both_forms_share_one_library(monkeypatch):
    loads = []
    monkeypatch.setattr("segtune.encoder.load_fast", lambda backend: loads.append(backend) or load_fast(backend))
    tok = FastTokenizer(make_tokenizer("mistral").spec)
    rows = [[Segment(f"question {i} " * 40, False), Segment(f" answer {i}", True)] for i in range(2000)]
    batch = Encoder(tok).encode(rows)
    assert len(loads) == 1
    monkeypatch.setenv("SEGTUNE_FAST", "0")
    want = Encoder(FastTokenizer(tok.spec)).encode(rows)
    assert np.array_equal(batch.ids, want.ids) and np.array_equal(batch.labels, want.labels)
