"Lineage: whatever token of whatever prepared row, its file, line and segment come back, and the characters there spell it."
import json

import numpy as np
import pytest
from conftest import make_tokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segtune.data.formats import find_format
from segtune.data.lineage import grep, lineage, load_with_row_ids, read_batches, source_rows, token_origin
from segtune.data.prepare import prepare
from segtune.data.shards import Source
from segtune.data.sources import find_rows

quick = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
odd = ['<s>', '</s>', ' ', '  ', '\n', 'é', '東京', '😀', 'Hello', ' there', 'good', 'bye', '.', '<', '▁', '\t']
texts = st.lists(st.one_of(st.sampled_from(odd), st.text(st.characters(exclude_categories=['Cs']), max_size=4)), max_size=6).map(''.join)
rows = st.lists(st.lists(st.builds(lambda t, l: dict(text=t, label=l), texts, st.booleans()), max_size=4), min_size=1, max_size=5)


def write(path, rows):
    path.write_text(''.join(json.dumps(o)+'\n' for o in rows))
    return path


def sources_of(tok, **files):
    "One source for each `type=file`, in order"
    return [Source(r, find_format(t, tok, sequence_len=24)) for t, f in files.items() for r in find_rows(str(f))]


def spells(tok, token, origin):
    "Do the characters at a place hold what the token stands for? An inserted space stands for none of them."
    spelled, text = tok.to_bytes([token]), origin.text.encode()
    return spelled in (text, b' '+text) or spelled.lstrip(b' ') in text or not text


@pytest.mark.parametrize('name', ['mistral', 'gpt2', 'byte-level', 'metaspace-always', 'metaspace-first'])
@quick
@given(first=rows, second=rows, limit=st.sampled_from([4, 9, 400]))
def test_every_token(tmp_path_factory, name, first, second, limit):
    tok, d = make_tokenizer(name), tmp_path_factory.mktemp('lineage')
    data = {'segments': first, 'input_output': second}
    files = {t: write(d/f'{t}.jsonl', [dict(segments=o) for o in [*v, [dict(text='Some words.', label=True)]]]) for t, v in data.items()}
    sources = sources_of(tok, **files)
    p = prepare(sources, tok, d/'out', sequence_len=limit, on_long='cut')
    seen = []
    for i, found in enumerate(source_rows(p, sources, tok, list(range(p.count.rows)))):
        name, line = lineage(p, i)
        segments = json.loads(open(name).read().split('\n')[line-1])['segments']
        for t, token in enumerate(found.row.ids.tolist()):
            o = token_origin(found, t)
            assert (o.source, o.line) == (name, line)
            rest = segments[o.segment]['text'][o.start:]+''.join(s['text'] for s in segments[o.segment+1:])
            assert rest.startswith(o.text) and spells(tok, token, o)
        seen += found.row.ids.tolist()
    assert seen == np.concatenate([b.ids for b in read_batches(p.path)]).tolist()


def test_same_file_under_two_formats_and_many_lines(tmp_path):
    "sources are told apart by number, not by name"
    tok = make_tokenizer('mistral')
    f = write(tmp_path/'qa.jsonl', [{'instruction': f'{i}?', 'output': f'{i}.', 'text': f'text {i}'} for i in range(1500)])
    sources = sources_of(tok, alpaca=f, completion=f)
    p = prepare(sources, tok, tmp_path/'out', sequence_len=200)
    for i in (0, 1499, 1500, 2999):
        found, = source_rows(p, sources, tok, [i])
        assert found.place == f'{f}:{i % 1500+1}' and found.source is sources[i//1500]
    assert list(grep(p.path, tok, 'text 1499')) == [2999]


def test_windows_of_one_line(tmp_path):
    "a text that became several rows: each token points at its own characters"
    tok = make_tokenizer('gpt2')
    text = ' '.join(f'w{i}' for i in range(100))
    f = write(tmp_path/'t.jsonl', [{'text': 'short'}, {'text': text}, {'text': text[::-1]}])
    sources = sources_of(tok, completion=f)
    p = prepare(sources, tok, tmp_path/'out', sequence_len=24)
    found = source_rows(p, sources, tok, list(range(p.count.rows)))
    assert [o.place.rpartition(':')[2] for o in found][:2] == ['1', '2'] and len(found) > 6
    for line, whole in ((2, text), (3, text[::-1])):
        parts = [token_origin(o, t).text for o in found if o.place.endswith(f':{line}') for t in range(len(o.row.ids))]
        assert ''.join(parts).startswith(whole)


def test_shuffled_filtered_and_split(tmp_path):
    tok = make_tokenizer('gpt2')
    f = write(tmp_path/'a.jsonl', [dict(segments=[dict(text=f'row {i}.'+' x'*(i % 7), label=True)]) for i in range(300)])
    sources = sources_of(tok, segments=f)
    p = prepare(sources, tok, tmp_path/'out', sequence_len=8)
    assert p.count.rows < 300
    ds = load_with_row_ids(p.path).shuffle(seed=3).filter(lambda o: len(o['input_ids']) % 2 == 0).train_test_split(0.5, seed=1)['test']
    assert len(ds) > 20
    for i, ids in zip(ds['row'][:20], ds['input_ids'][:20]):
        found, = source_rows(p, sources, tok, [i])
        assert found.row.ids.tolist() == ids and f'row {lineage(p, i)[1]-1}.' in found.row.text


def test_columns_on_disk_stay_three(tmp_path):
    from datasets import load_from_disk
    tok = make_tokenizer('gpt2')
    sources = sources_of(tok, segments=write(tmp_path/'a.jsonl', [dict(segments=[dict(text='a', label=True)])]))
    p = prepare(sources, tok, tmp_path/'out')
    assert load_from_disk(str(p.path)).column_names == ['input_ids', 'labels', 'attention_mask']
