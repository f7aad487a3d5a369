"The three laws, for random rows over tokenizers of every family."
from itertools import pairwise, takewhile

import numpy as np
import pytest
from conftest import make_tokenizer, tokenizer_names
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segtune import laws
from segtune.encoder import Encoder
from segtune.laws import label_law, prompt_law, safe_cuts, text_law
from segtune.lint.linter import Linter
from segtune.lint.rules import LintBatch, LintContext, apply_rule, rules
from segtune.pieces import boundaries
from segtune.segments import Segment, merge_segments
from segtune.tokenizer import FastTokenizer

odd = ['<s>', '</s>', '<unk>', '<|im_end|>', '<|im_start|>', '<|endoftext|>', ' ', '  ', '\n', '\n\n', '\r\n', '\t', '\0', '▁', '\u0301', 'e\u0301', '\u200d', '😀', '👍🏽', '👨‍👩‍👧', '東京',
       'ß', 'ﬁ',      'Hello', ' there', 'good', 'bye', ' 4', '42', '.', "don't", '<', 's>', '</', '<0x0A>', 'é', '\ufeff', '\u00a0', '##ing']
texts = st.lists(st.one_of(st.sampled_from(odd), st.text(st.characters(exclude_categories=['Cs']), max_size=6)), max_size=5).map(''.join)
segments = st.lists(st.builds(Segment, texts, st.booleans(), st.just(True), st.just(False), st.just('')), max_size=6)
# some of them read literally, some out of data
mixed = st.lists(st.builds(Segment, texts, st.booleans(), st.sampled_from([True, True, False]), st.booleans(), st.just('')), max_size=6)
quick = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
fewer = settings(quick, max_examples=12, derandomize=True)
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
    assert not broken or encoder.tok.is_lossy
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
def test_known_to_keep_text(name): assert not make_tokenizer(name).is_lossy


@pytest.mark.parametrize('name', ['byte-level-nfc', 'byte-level-strip', 'unigram', 'unigram-nfc', 'wordpiece'])
def test_known_to_rewrite_text(name): assert make_tokenizer(name).is_lossy


def test_prompt_law_names_a_space_at_the_edge():
    "whole: a prompt that ends in a space the answer's first token swallows"
    encoder = Encoder(make_tokenizer('gpt2'), 'whole')
    row = [Segment('A: ', False), Segment('Paris', True)]
    assert [(f.rule, f.segment) for f in prompt_law(encoder, encoder.encode([row]))] == [('prompt', 1)]


# The prompt law and its quick rule, against the law as it is written down

def plain_prompt_law(encoder, batch):
    "(row, characters before the edge) of every prompt that is no prefix, each encoded by itself"
    own, out = Encoder(encoder.tok, 'whole'), []
    for i, segments in enumerate(batch.rows):
        merged, ids = merge_segments(segments), batch.row(i).ids
        for j in range(1, len(merged)):
            if not merged[j].label or merged[j-1].label: continue
            want = own.encode([merged[:j]]).ids
            if not np.array_equal(want, ids[:len(want)]): out.append((i, sum(len(s.text) for s in merged[:j])))
    return out


def _token(i, content, **flags):
    return {**dict(id=i, content=content, special=not content.isspace()), **dict.fromkeys(('single_word', 'lstrip', 'rstrip', 'normalized'), False), **flags}


def _with(name, *more, **changes):
    "a tokenizer with more added tokens: (text, flags)"
    t = make_tokenizer(name)
    n = max(t.backend.get_vocab().values())+1
    own = changes.pop('own', {})
    added = [{**o, **own} for o in t.spec['added_tokens']]+[_token(n+k, text, **flags) for k, (text, flags) in enumerate(more)]
    return FastTokenizer({**t.spec, 'added_tokens': added, **changes}, t.names, source=name)


runs = [('  ', {}), ('   ', {}), ('    ', {}), ('\n\n', {})]
_variations = {
    'space-runs': lambda: _with('byte-level', *runs), 'space-runs-gpt2': lambda: _with('gpt2', (' '*2, dict(normalized=True)), (' '*3, dict(normalized=True)), (' '*8, dict(normalized=True))),
    'space-runs-mistral': lambda: _with('mistral', *runs), 'normalized-mistral': lambda: _with('mistral', own=dict(normalized=True)),
    'normalized-always': lambda: _with('metaspace-always', own=dict(normalized=True)), 'normalized-prefix': lambda: _with('byte-level-prefix', own=dict(normalized=True)),
    'lstrip': lambda: _with('byte-level', ('<mask>', dict(lstrip=True))), 'rstrip': lambda: _with('byte-level', ('<mask>', dict(rstrip=True))),
    'single-word': lambda: _with('byte-level', ('good', dict(single_word=True, special=False))), 'lstrip-mistral': lambda: _with('mistral', ('<mask>', dict(lstrip=True))),
    'no-fallback': lambda: _with('metaspace-always', model={**make_tokenizer('metaspace-always').spec['model'], 'byte_fallback': False}),
    'no-unk': lambda: _with('metaspace-first', model={**make_tokenizer('metaspace-first').spec['model'], 'byte_fallback': False, 'unk_token': None}),
    'no-pre-tokenizer': lambda: _with('metaspace-never', pre_tokenizer=None, normalizer=dict(type='Replace', pattern=dict(String=' '), content='▁')),
    'strip': lambda: _with('unigram', normalizer=dict(type='Strip', strip_left=True, strip_right=True)), 'overlapping': lambda: _with('byte-level', ('<s><s>', {}), ('s>', {}), ('x<', {})),
}


def variation(name, known={}):  # noqa: B006 (made once)
    return known.setdefault(name, make_tokenizer(name) if name in tokenizer_names else _variations[name]())


bits = ['<s>', '</s>', '<mask>', ' ', ' ', '  ', '   ', '    ', '\n', '\n\n', 'intern', 'ational', ' x', 'good', ' good', 'bye', '.', ' a', 'b', ':', '▁', 'é', '\u0301', '東', '<', 's>', '\t', ' \n']
bit_rows = st.lists(st.builds(Segment, st.lists(st.sampled_from(bits), max_size=3).map(''.join), st.booleans(), st.sampled_from([True, True, True, False]), st.just(False),
                              st.sampled_from(['', '', '', '', 'fresh', 'count', 'touch', 'tail'])), min_size=2, max_size=8)
every_variation = pytest.mark.parametrize('name', [*tokenizer_names, *_variations])


@every_variation
@fewer
@given(batch=st.lists(bit_rows, min_size=1, max_size=4))
def test_the_prompt_law_and_its_quick_rule_find_what_the_plain_law_finds(name, batch):
    "At every edge, for every boundary, however the law goes about it."
    for boundary in boundaries:
        encoder = Encoder(variation(name), boundary)
        encoded = encoder.encode(batch, spans=True)
        plain = plain_prompt_law(encoder, encoded)
        by_row = [o.row for o in prompt_law(encoder, encoded)]
        assert by_row == [i for i, _ in plain]
        for i in range(len(batch)):
            row, ids = laws.RowText(batch[i]), encoded.row(i).ids
            if opens := laws._opens(row):
                assert len(list(laws._long_row(encoder, i, row, opens, ids))) == sum(k == i for k, _ in plain)
        found = apply_rule(rules['prompt-mismatch'], LintBatch(LintContext(encoder), encoded))[0].tolist()
        assert found == sorted({i for i, _ in plain if len(encoded.row(i).ids)})


def test_prompts_through_a_word_after_a_special_token_are_named():
    encoder = Encoder(make_tokenizer('mistral'))
    batch = encoder.encode([[Segment('<s>intern', True), Segment('ational', False), Segment(' x', True)]], spans=True)
    assert [o.row for o in prompt_law(encoder, batch)] == [0]
    assert apply_rule(rules['prompt-mismatch'], LintBatch(LintContext(encoder), batch))[0].tolist() == [0]


@pytest.mark.parametrize('name', ['mistral', 'gpt2'])
@pytest.mark.parametrize('texts', [('Q{}: ', 'yes {}\n'), ('ab', 'c'), (' ', ' '), ('Q{}\n', ' A{}</s>\n')])
def test_laws_and_lint_take_a_row_of_very_many_segments(name, texts):
    "12,000 segments in one row; in the square of them it would be hours."
    row = [Segment(t.format(k), label) for k in range(6_000) for t, label in zip(texts, (False, True))]
    for boundary in boundaries:
        encoder = Encoder(make_tokenizer(name), boundary)
        batch = encoder.encode([row], spans=True)
        assert len(label_law(encoder, batch)) <= 12_000 and len(text_law(encoder, batch)) <= 1
        broken = prompt_law(encoder, batch)
        found = Linter(encoder).add(batch).finish()
        assert bool(broken) == any(o.rule == 'prompt-mismatch' for o in found)
        assert all(len(o.message) < 400 for o in found)


@every_variation
@fewer
@given(parts=st.lists(st.sampled_from(bits), max_size=12))
def test_safe_cuts_change_no_token(name, parts):
    tok, text = variation(name), ''.join(parts)
    whole = tok.variant(prefix=False).encode(text).ids
    at = [0, *safe_cuts(tok, text), len(text)]
    if tok.prefix_after_special == 'none': assert [i for a, b in pairwise(at) for i in tok.variant(prefix=False).encode(text[a:b]).ids] == whole
