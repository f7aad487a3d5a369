"Preparation: literal rows, the cache, and kill -9."
import glob
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from conftest import make_tokenizer

from segtune.encode import Encoder
from segtune.formats import find_format
from segtune.lineage import lineage, read_rows
from segtune.linter import Linter
from segtune.packaged import bundled
from segtune.prepare import Source, prepare
from segtune.sources import Rows, read_file

hello = {'segments': [{'label': True, 'text': '<s>Hello\n'}, {'label': True, 'text': 'hi there!. '},
                      {'label': False, 'text': 'goodbye '}, {'label': True, 'text': 'farewell</s>'}]}
qa = {'segments': [{'label': False, 'text': '<s>Q: capital of France?\nA:'}, {'label': True, 'text': ' Paris</s>'}]}


def source(tmp_path, rows, type='input_output', name='data.jsonl', **options):
    (tmp_path/name).write_text(''.join(json.dumps(r)+'\n' for r in rows))
    path = tmp_path/name
    return Source(Rows(name, lambda: read_file(path, name=name), [path]), find_format(type, **options))


def test_two_rows_literally(tmp_path):
    from datasets import load_from_disk
    for kind, ids, labels in [
        ('input_output', [[1, 22557, 13, 12014, 736, 28808, 28723, 28705, 1179, 17664, 28705, 19111, 5458, 2],
                          [1, 1186, 28747, 5565, 302, 4843, 28804, 13, 28741, 28747, 28705, 5465, 2]],
                         [[1, 22557, 13, 12014, 736, 28808, 28723, 28705, -100, -100, -100, 19111, 5458, 2],
                          [-100]*10+[28705, 5465, 2]]),
        ('segments', [[1, 22557, 13, 5365, 736, 28808, 28723, 28705, 12684, 17664, 28705, 18368, 5458, 2],
                      [1, 1186, 28747, 5565, 302, 4843, 28804, 13, 28741, 28747, 5465, 2]],
                     [[1, 22557, 13, 5365, 736, 28808, 28723, 28705, -100, -100, -100, 18368, 5458, 2],
                      [-100]*10+[5465, 2]])]:
        p = prepare([source(tmp_path, [hello, qa], kind)], make_tokenizer('mistral'), tmp_path/'out', sequence_len=32)
        ds = load_from_disk(str(p.path))
        assert ds['input_ids'][:] == ids and ds['labels'][:] == labels
        assert [set(m) for m in ds['attention_mask']] == [{1}, {1}]


def test_several_sources_and_many_batches(tmp_path):
    "rows keep their order and their origin, whatever is dropped between them"
    long = {'segments': [{'label': True, 'text': 'word '*50}]}
    a = source(tmp_path, [hello, long]*1500, name='a.jsonl')
    b = source(tmp_path, [{'segments': []}, qa], 'segments', name='b.jsonl')
    p = prepare([a, b], make_tokenizer('gpt2'), tmp_path/'out', sequence_len=40)
    assert (p.count.read, p.count.rows) == (3002, 1501)
    assert dict(p.count.changed) == {'dropped: too long': 1500, 'dropped: empty': 1}
    assert p.count.listed[0][:2] == ['dropped: too long', 'a.jsonl:2'] and len(p.count.listed) == 1000
    assert [lineage(p, i) for i in (0, 1, 1499, 1500)] == [('a.jsonl', 1), ('a.jsonl', 3), ('a.jsonl', 2999), ('b.jsonl', 2)]
    (ids, _), (last, _) = read_rows(p.path, [1499, 1500])
    assert make_tokenizer('gpt2').decode(ids) == '<s>Hello\nhi there!. goodbye farewell</s>'
    assert make_tokenizer('gpt2').decode(last) == '<s>Q: capital of France?\nA: Paris</s>'


@pytest.mark.parametrize('change, hit', [
    (dict(), True), (dict(name='renamed.jsonl'), True), (dict(sequence_len=33), False), (dict(on_long='cut'), False), (dict(train_on_inputs=True), False),
    (dict(type='segments'), False), (dict(rows=[hello, qa, qa]), False), (dict(rows=[qa, hello]), False), (dict(tok='gpt2'), False),
])
def test_key(tmp_path, change, hit):
    def run(rows=(hello, qa), type='input_output', name='data.jsonl', tok='mistral', train_on_inputs=False, **options):
        return prepare([source(tmp_path, rows, type, name, train_on_inputs=train_on_inputs)], make_tokenizer(tok), tmp_path/'out', **{'sequence_len': 32, **options})
    run()
    assert run(**change).hit == hit


def test_windows_know_their_line(tmp_path):
    "a text that becomes several rows: each of them comes from its line"
    texts = source(tmp_path, [{'text': 'one two three'}, {'text': ' '.join(map(str, range(40)))}], 'completion', sequence_len=16)
    texts.format = find_format('completion', make_tokenizer('mistral'), sequence_len=16)
    p = prepare([texts], make_tokenizer('mistral'), tmp_path/'out', sequence_len=16)
    lines = [lineage(p, i)[1] for i in range(p.count.rows)]
    assert lines == [1]+[2]*(len(lines)-1) and len(lines) > 3
    assert sum(len(ids) for ids, _ in read_rows(p.path, list(range(1, len(lines))))) == len(make_tokenizer('mistral').backend.encode(' '.join(map(str, range(40)))).ids)+2


def test_a_row_that_is_wrong_leaves_nothing(tmp_path):
    bad = source(tmp_path, [hello]*2000+[{'segments': [{'label': 'no', 'text': ''}]}])
    with pytest.raises(ValueError, match=r'data\.jsonl:2001 segments\[0\]\.label'): prepare([bad], make_tokenizer('gpt2'), tmp_path/'out')
    assert list((tmp_path/'out').iterdir()) == []


def test_rewriting_tokenizer_is_named(tmp_path):
    accent = {'segments': [{'label': False, 'text': 'cafe'}, {'label': True, 'text': '\u0301'}]}
    tok = make_tokenizer('byte-level-nfc')
    linter = Linter(Encoder(tok))
    prepare([source(tmp_path, [hello, accent], 'segments')], tok, tmp_path/'out', linter=linter)
    (found,) = [o for o in linter.finish() if o.rule == 'added-text']
    assert linter.place(found.row) == 'data.jsonl:2' and found.message.startswith('the tokens spell')


config = '''base_model: {tok}
datasets: [{{path: data.jsonl, type: segments}}]
'''
segtune = [sys.executable, '-c', 'from segtune.cli import main; main()']


def test_kill(tmp_path):
    "kill -9 at any moment: nothing half-made is ever visible, and the next run gives the bytes of an undisturbed one"
    source(tmp_path, [hello, qa]*20_000)
    (tmp_path/'config.yml').write_text(config.format(tok=bundled('gpt2')))
    def start(out): return subprocess.Popen([*segtune, 'preprocess', 'config.yml', '--set', f'dataset_prepared_path={out}'], cwd=tmp_path, stdout=subprocess.DEVNULL)
    began = time.time()
    assert start('whole').wait() == 0
    took, (whole,) = time.time()-began, glob.glob(str(tmp_path/'whole/*'))
    moments = random.Random(0)
    for _ in range(8):
        p = start('killed')
        time.sleep(moments.uniform(0.3, 1)*took*0.9)
        p.send_signal(signal.SIGKILL)
        p.wait()
        for d in glob.glob(str(tmp_path/'killed/*')): assert same(d, whole)
    assert start('killed').wait() == 0
    (killed,) = glob.glob(str(tmp_path/'killed/*'))
    assert same(killed, whole)
    assert [d for d in os.listdir(tmp_path/'killed') if d.startswith('.')] == []


def same(a, b):
    names = sorted(os.listdir(b))
    return sorted(os.listdir(a)) == names and all(open(f'{a}/{n}', 'rb').read() == open(f'{b}/{n}', 'rb').read() for n in names if n != '.segtune')
