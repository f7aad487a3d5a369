"Lint: spoilt data sets give exactly the findings written beside them, clean ones give none, and the quick checks agree with the laws."
import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from conftest import make_tokenizer, tokenizer_names
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from segtune.encode import Encoder, boundaries
from segtune.laws import label_law, prompt_law, text_law
from segtune.lint import Context, Facts, apply_rule, rules
from segtune.linter import Linter, repeats, summary, to_json
from segtune.packaged import bundled, packaged_path
from segtune.prepare import fit
from segtune.segments import Segment, read_jsonl, row2segments
from segtune.stdlib import stdlib_rows
from segtune.tokenizer import FastTokenizer, load_tokenizer

data = Path(__file__).parent/'data'/'lint'
expected = json.loads((data/'expected.json').read_text(encoding='utf-8'))


def tokenizer(name, names=None):
    t = make_tokenizer(name.removesuffix('-nfc') if name == 'gpt2-nfc' else name)
    spec = {**t.spec, 'normalizer': {'type': 'NFC'}} if name == 'gpt2-nfc' else t.spec
    return FastTokenizer(spec, {**t.names, **(names or {})}, source=t.source)


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
quick = settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate], suppress_health_check=list(HealthCheck))
every_tokenizer = pytest.mark.parametrize('name', tokenizer_names)


def rows_of(rule, facts): return set(apply_rule(rules[rule], facts)[0].tolist())


def faces(name, batch_rows, boundary):
    "Facts of those rows in which no special token is cut in two; there the laws and the rules part on purpose"
    encoder = Encoder(make_tokenizer(name), boundary)
    def facts(rows): return Facts(Context(encoder), encoder.encode(rows, spans=True))
    every = facts(batch_rows)
    halved = {i for i in range(len(batch_rows)) if any(c in every.texts[i] for c in every.context.cuts)} & rows_of('fake-special', every)
    return facts([r for i, r in enumerate(batch_rows) if i not in halved])


@every_tokenizer
@quick
@given(batch=st.lists(rows, min_size=1, max_size=4))
def test_text_and_label_rules_are_the_laws(name, batch):
    for boundary in boundaries:
        f = faces(name, batch, boundary)
        alive = set(np.flatnonzero(f.alive).tolist())
        assert rows_of('text', f) == {o.row for o in text_law(f.encoder, f.batch)} & alive
        assert rows_of('label', f) == {o.row for o in label_law(f.encoder, f.batch)}


@every_tokenizer
@quick
@given(batch=st.lists(rows, min_size=1, max_size=4))
def test_the_prompt_rule_is_the_law(name, batch):
    if make_tokenizer(name).rewrites: return
    for boundary in boundaries:
        f = faces(name, batch, boundary)
        assert rows_of('prompt', f) == {o.row for o in prompt_law(f.encoder, f.batch)}
