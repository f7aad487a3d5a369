"fastokens in the place of tokenizers: the same ids, or the tokenizers library."
import numpy as np
import pytest
from conftest import make_tokenizer, tokenizer_names
from hypothesis import given, settings
from hypothesis import strategies as st

from segtune import fast
from segtune.fast import FlatEncoder, encode_flat, first_difference, load_fast, probe_texts, prove
from segtune.segments import TokenizerError

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

@pytest.mark.parametrize("name", ["mistral", "gpt2"])
@pytest.mark.parametrize("at", [0, 1, 999, 1000, 7_777, 9_999])
def test_one_wrong_token_in_ten_thousand_pieces_is_caught(name, at):
    tok, wrong = make_tokenizer(name), []
    backend = tok.backend
    def load(backend):
        right = load_fast(backend)
        def encode(batch):
            ids, n = right(batch)
            if any("piece" in t for t in batch):
                ids = ids.copy()
                for i, t in enumerate(batch):
                    if t == f"piece {at}": ids[np.cumsum(n)[i] - 1] += 1; wrong.append(t)
            return ids, n
        return encode
    encode = FlatEncoder(backend, tok.token_bytes, prefix=tok.adds_prefix_space, start=0, load=load)
    with pytest.raises(TokenizerError, match=rf"disagree about 'piece·{at}'"): encode([f"piece {i}" for i in range(10_000)])
    assert wrong
    later = FlatEncoder(backend, tok.token_bytes, prefix=tok.adds_prefix_space, start=0, load=load)
    assert np.array_equal(later([f"piece {at}"])[0], encode_flat(backend, [f"piece {at}"])[0]), "a library that erred was asked again"
    assert later.note.startswith("fastokens gives other tokens")

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
    path = fast._proof_path(backend)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(memory)
    assert prove(backend, load_fast(backend)) is None

def test_a_memory_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEGTUNE_CACHE", str(tmp_path / "file"))
    assert prove(make_tokenizer("gpt2").backend, load_fast(make_tokenizer("gpt2").backend)) is None
