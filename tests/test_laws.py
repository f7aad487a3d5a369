"The three laws, for random rows over tokenizers of every family."
from itertools import pairwise, takewhile

import numpy as np
import pytest
from conftest import make_tokenizer, tokenizer_names
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segtune.encode import Encoder, boundaries
from segtune.laws import label_law, prompt_law, text_law
from segtune.linter import Linter
from segtune.segments import Segment, merge_segments

odd = ['<s>', '</s>', '<unk>', '<|im_end|>', '<|im_start|>', '<|endoftext|>', ' ', '  ', '\n', '\n\n', '\r\n', '\t', '\0', '▁', '\u0301', 'e\u0301', '\u200d', '😀', '👍🏽', '👨‍👩‍👧', '東京',
       'ß', 'ﬁ',      'Hello', ' there', 'good', 'bye', ' 4', '42', '.', "don't", '<', 's>', '</', '<0x0A>', 'é', '\ufeff', '\u00a0', '##ing']
texts = st.lists(st.one_of(st.sampled_from(odd), st.text(st.characters(exclude_categories=['Cs']), max_size=6)), max_size=5).map(''.join)
segments = st.lists(st.builds(Segment, texts, st.booleans(), st.just(True), st.just(False), st.just('')), max_size=6)
# some of them read literally, some out of data
mixed = st.lists(st.builds(Segment, texts, st.booleans(), st.sampled_from([True, True, False]), st.booleans(), st.just('')), max_size=6)
quick = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
every_tokenizer = pytest.mark.parametrize('name', tokenizer_names)


@every_tokenizer
@quick
@given(rows=st.lists(mixed, min_size=1, max_size=4))
def test_split(name, rows):
    "Labels always; the prompt at the first edge of a row that begins masked; the text too, unless the tokenizer rewrites it, and then lint names the row."
    encoder = Encoder(make_tokenizer(name), 'split')
    batch = encoder.encode(rows, spans=True)
    assert label_law(encoder, batch) == []
    broken = {o.row for o in text_law(encoder, batch)}
    assert not broken or encoder.tok.rewrites
    if broken: assert broken <= {o.row for o in Linter(encoder, n_examples=99).add(batch).findings if o.rule in ('added-text', 'fake-special')}
    prompts = Encoder(encoder.tok, 'whole').encode([list(takewhile(lambda s: not s.label, merge_segments(r))) for r in rows])
    for i in range(len(rows)):
        prompt = prompts.row(i).ids
        assert np.array_equal(batch.row(i).ids[:len(prompt)], prompt)


@every_tokenizer
@quick
@given(rows=st.lists(mixed, min_size=1, max_size=4))
def test_every_boundary_gives_whole_rows(name, rows):
    "Labels are the id or -100, spans go forward, and a row does not depend on its neighbours in the batch."
    for boundary in boundaries:
        encoder = Encoder(make_tokenizer(name), boundary)
        batch = encoder.encode(rows, spans=True)
        fast = encoder.encode(rows)
        assert np.array_equal(batch.ids, fast.ids) and np.array_equal(batch.labels, fast.labels)
        assert len(batch.ids) == len(batch.labels) == batch.starts[-1] and len(batch.starts) == len(rows)+1
        assert np.all((batch.labels == batch.ids) | (batch.labels == -100))
        for i, row in enumerate(rows):
            alone = encoder.encode_row(row)
            assert np.array_equal(alone.ids, batch.row(i).ids) and np.array_equal(alone.labels, batch.row(i).labels)
            assert np.all(alone.spans[:, 0] <= alone.spans[:, 1]) and (not len(alone.spans) or alone.spans.max() <= len(alone.text))


@every_tokenizer
@quick
@given(row=segments)
def test_whole_is_the_tokenizers_own_encoding(name, row):
    "whole: the ids of the joined text; every token that crosses an edge is masked, and named."
    encoder = Encoder(make_tokenizer(name), 'whole')
    batch = encoder.encode([row])
    assert batch.ids.tolist() == encoder.tok.backend.encode(''.join(s.text for s in row)).ids
    assert text_law(encoder, batch) == []
    crossing = sum(len({s.label for s, (a, b) in _under(row, span)}) > 1 for span in batch.spans)
    assert len(label_law(encoder, batch)) == crossing


def _under(row, span):
    "segments that share a character with the span"
    at = 0
    for s in row:
        if s.text and max(at, span[0]) < min(at+len(s.text), span[1]): yield s, (at, at+len(s.text))
        at += len(s.text)


@every_tokenizer
@quick
@given(row=segments)
def test_axolotl_is_segment_by_segment(name, row):
    encoder = Encoder(make_tokenizer(name), 'axolotl')
    batch = encoder.encode([row])
    each = [(i, s.label) for s in row for i in encoder.tok.backend.encode(s.text).ids]
    assert batch.ids.tolist() == [i for i, _ in each]
    assert batch.labels.tolist() == [i if trained else -100 for i, trained in each]


@every_tokenizer
@quick
@given(text=texts, cuts=st.lists(st.integers(0, 30), max_size=4))
def test_cutting_without_changing_labels_changes_nothing(name, text, cuts):
    "split: where the author cuts inside one label is nobody's business"
    at = [0, *sorted(min(c, len(text)) for c in cuts), len(text)]
    encoder = Encoder(make_tokenizer(name), 'split')
    pieces = [Segment(text[a:b], True) for a, b in pairwise(at)]
    assert encoder.encode([pieces]).ids.tolist() == encoder.encode([[Segment(text, True)]]).ids.tolist()


@pytest.mark.parametrize('name', ['mistral', 'gpt2', 'mistral-chatml', 'byte-level', 'byte-level-prefix',
                                  'metaspace-always', 'metaspace-first', 'metaspace-never'])
def test_known_to_keep_text(name): assert not make_tokenizer(name).rewrites


@pytest.mark.parametrize('name', ['byte-level-nfc', 'byte-level-strip', 'unigram', 'unigram-nfc', 'wordpiece'])
def test_known_to_rewrite_text(name): assert make_tokenizer(name).rewrites


def test_prompt_law_names_a_space_at_the_edge():
    "whole: a prompt that ends in a space the answer's first token swallows"
    encoder = Encoder(make_tokenizer('gpt2'), 'whole')
    row = [Segment('A: ', False), Segment('Paris', True)]
    assert [(f.rule, f.segment) for f in prompt_law(encoder, encoder.encode([row]))] == [('prompt', 1)]
