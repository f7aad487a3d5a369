"Preparation: literal rows, the cache, who may write it, and kill -9."
import ast
import glob
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import make_tokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segtune.data.files import read_file
from segtune.data.findings import prepare_and_lint
from segtune.data.formats import find_format
from segtune.data.lineage import lineage, origins, read_rows, source_rows
from segtune.data.prepare import prepare, token_modules, train_val_split
from segtune.data.shards import PrepareStats, RowOptions, SeenRows, ShardRow, Source, drop_seen, encode_shard
from segtune.data.sources import Rows, find_rows
from segtune.encoder import Encoder
from segtune.lint.linter import Linter
from segtune.models import bundled
from segtune.segments import DataError, Segment
from segtune.tokenizer import load_tokenizer

PACKAGE = Path(__file__).resolve().parent.parent/'segtune'
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
    assert run(**change).from_cache == hit


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
    assert not (tmp_path/'out').exists()


@pytest.mark.parametrize('rows', [[], [{'segments': []}], [{'segments': [{'label': False, 'text': 'a'}]}]*3])
def test_an_error_leaves_no_empty_directory_and_keeps_one_that_was_there(tmp_path, rows):
    "directories that were made on the way go too; the user's own stay"
    for out in (tmp_path/'a/b/out', tmp_path/'own'/'out'):
        if out.parent.name == 'own': out.mkdir(parents=True)
        before = sorted(tmp_path.rglob('*'))
        with pytest.raises(DataError): prepare([source(tmp_path, rows, 'segments')], make_tokenizer('gpt2'), out, on_bad='skip')
        assert sorted(set(tmp_path.rglob('*'))-{tmp_path/'data.jsonl'}) == [o for o in before if o != tmp_path/'data.jsonl']


def test_of_two_that_wait_for_each_other_none_leaves_a_directory(tmp_path):
    "the first makes the directory, fails and removes it; the second waited, makes it again, and fails too"
    code = '''import sys
from pathlib import Path
from segtune.data.cache import claimed
with claimed(Path(sys.argv[1])):
    print("mine", flush=True)
    sys.stdin.readline()
    raise SystemExit(3)'''
    def start():
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        return subprocess.Popen([sys.executable, '-c', code, tmp_path/'a/out/key'], **pipes)
    first = start()
    assert first.stdout.readline() == 'mine\n'
    others = [start() for _ in range(3)]
    assert all('waiting for it' in o.stderr.readline() for o in others)
    for o in (first, *others): o.stdin.write('\n'); o.stdin.flush()
    assert [o.wait(60) for o in (first, *others)] == [3]*4
    assert list(tmp_path.iterdir()) == []


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


def copies(tmp_path, n, name='data.jsonl', **options):
    "n rows that differ"
    def row(i): return [{'label': False, 'text': f'<s>Q{i}:'}, {'label': True, 'text': f' {i*7919 % 1000}</s>'}]
    rows = [{'segments': row(i)} for i in range(n)]
    return source(tmp_path, rows, 'segments', name, **options)


# --- what the key covers

def imported_modules(module):
    "Modules of segtune that a module's source imports, also inside functions"
    above, out = ['segtune', *module.split('.')[:-1]], set()
    for node in ast.walk(ast.parse((PACKAGE/f'{module.replace(".", "/")}.py').read_text())):
        if isinstance(node, ast.ImportFrom):
            package = above[:len(above)-node.level+1] if node.level else []
            base = '.'.join([*package, *filter(None, [node.module])])
            out |= {base, *(f'{base}.{o.name}' for o in node.names)}
        if isinstance(node, ast.Import): out |= {o.name for o in node.names}
    names = {o.removeprefix('segtune.') for o in out if o.startswith('segtune.')}
    return {o for o in names if (PACKAGE/f'{o.replace(".", "/")}.py').exists()}


def python(code, cwd, path):
    "What code prints, with the package from a path"
    how = dict(cwd=cwd, env={**os.environ, 'PYTHONPATH': str(path)}, capture_output=True, text=True, check=True)
    return subprocess.run([sys.executable, '-c', code], **how).stdout


# why a module in the closure is not in the fingerprint
DECIDE_NOTHING = {'models': 'finds files, whose contents are in the key', 'data.cache': 'names and places data',
                  'data.stamps': 'hashes files', 'data.workers': 'calls what it is given',
                  'data.manifest': 'says what was prepared', 'data.ray_tasks': 'calls what it is given', 'hints': 'words of errors', 'storage': 'writes files'}


def test_the_key_covers_every_module_that_prepare_reaches():
    reached, todo = set(), ['data.prepare']
    while todo:
        module = todo.pop()
        if module in reached or module in DECIDE_NOTHING: continue
        reached.add(module)
        todo += imported_modules(module)
    assert reached == set(token_modules), 'declare it in prepare.token_modules, or say here why it decides no token'


def test_a_change_of_the_code_that_makes_tokens_changes_the_key(tmp_path):
    "in another copy of the package, with the same version"
    (tmp_path/'data.jsonl').write_text(json.dumps(hello)+'\n')
    shutil.copytree(PACKAGE, tmp_path/'one/segtune', ignore=shutil.ignore_patterns('__pycache__', 'tiny'))
    shutil.copytree(tmp_path/'one', tmp_path/'two')
    shutil.copytree(tmp_path/'one', tmp_path/'three')
    encode = tmp_path/'two/segtune/encoder.py'
    encode.write_text(encode.read_text()+'\n_more = 1\n')
    moved = tmp_path/'three/segtune/encoder.py'
    moved.write_text(moved.read_text().replace('# %% ../nbs/', '# %% ../nbs/elsewhere/'))
    def key(copy, env=()):
        return python(KEY, tmp_path, tmp_path/copy)
    assert key('one') == key('three') != key('two')


KEY = '''
from segtune.data.formats import find_format
from segtune.models import bundled
from segtune.data.prepare import Source, key_of, key_parts
from segtune.data.sources import find_rows
from segtune.tokenizer import load_tokenizer
sources = [Source(r, find_format('segments')) for r in find_rows('data.jsonl')]
print(key_of(key_parts(sources, load_tokenizer(bundled('gpt2')))))
'''


def test_the_fingerprint_is_the_same_from_a_zip_archive(tmp_path):
    code = f'from segtune.data.cache import code_fingerprint; print(code_fingerprint({token_modules!r}))'
    shutil.make_archive(str(tmp_path/'segtune'), 'zip', PACKAGE.parent, 'segtune')
    def fingerprint(path):
        return python(code, tmp_path, path)
    assert fingerprint(tmp_path/'segtune.zip') == fingerprint(PACKAGE.parent)


def test_code_that_is_proved_to_make_the_same_tokens_finds_them(tmp_path):
    "Copies of the package: as it is, changed, and changed with its fingerprint in the table of proved code"
    (tmp_path/'data.jsonl').write_text(json.dumps(hello)+'\n')
    for copy in ('old', 'changed', 'proved'):
        shutil.copytree(PACKAGE, tmp_path/copy/'segtune', ignore=shutil.ignore_patterns('__pycache__', 'tiny'))
        (tmp_path/copy/'segtune/assets/tokens.json').unlink()
    for copy in ('changed', 'proved'):
        encoder = tmp_path/copy/'segtune/encoder.py'
        encoder.write_text(encoder.read_text()+'\n_more = 1\n')
    old, changed = (python(FINGERPRINT, tmp_path, tmp_path/o).strip() for o in ('old', 'changed'))
    table = json.dumps({'of some time before': 'the name', old: 'a name', changed: 'a name'})
    key = {o: python(PREPARED, tmp_path, tmp_path/o).split() for o in ('old', 'changed')}
    assert key['old'][1] == key['changed'][1] == 'False' and key['old'][0] != key['changed'][0]
    for copy in ('old', 'proved'): (tmp_path/copy/'segtune/assets/tokens.json').write_text(table)
    named, again = (python(PREPARED, tmp_path, tmp_path/o).split() for o in ('old', 'proved'))
    assert named[1] == 'False' and again == [named[0], 'True'] and named[0] != key['old'][0]


FINGERPRINT = """
from segtune.data.cache import code_fingerprint
from segtune.data.prepare import token_modules
print(code_fingerprint(token_modules))
"""
PREPARED = """
from segtune.data.formats import find_format
from segtune.models import bundled
from segtune.data.prepare import Source, prepare
from segtune.data.sources import find_rows
from segtune.tokenizer import load_tokenizer
sources = [Source(r, find_format('segments')) for r in find_rows('data.jsonl')]
p = prepare(sources, load_tokenizer(bundled('gpt2')))
print(p.path.name, p.from_cache)
"""


def test_the_fingerprint_depends_neither_on_the_names_nor_on_the_order_of_modules(tmp_path):
    for copy in ('one', 'two'): shutil.copytree(PACKAGE, tmp_path/copy/'segtune', ignore=shutil.ignore_patterns('__pycache__', 'assets'))
    (tmp_path/'two/segtune/data/splits.py').rename(tmp_path/'two/segtune/parts_of_data.py')
    def fingerprint(copy, *modules):
        code = f'from segtune.data.cache import code_fingerprint; print(code_fingerprint({modules!r}))'
        return python(code, tmp_path, tmp_path/copy)
    one = fingerprint('one', 'encoder', 'data.splits', 'laws')
    assert one == fingerprint('two', 'parts_of_data', 'laws', 'encoder')
    assert one != fingerprint('one', 'encoder', 'data.splits')


def test_the_table_of_proved_code_names_each_of_its_names():
    table = json.loads((PACKAGE/'assets/tokens.json').read_text())
    assert table and all(len(o) == 64 for pair in table.items() for o in pair)
    assert set(table.values()) <= set(table)


def test_the_tool_adds_code_under_the_newest_name_or_as_one_of_its_own(monkeypatch):
    monkeypatch.syspath_prepend(str(PACKAGE.parent/'tools'))
    from tokens import add
    assert add({}, 'a') == {'a': 'a'}
    assert list(add({'a': 'a', 'b': 'b', 'c': 'b'}, 'd').items())[-1] == ('d', 'b')
    assert list(add({'a': 'a', 'b': 'b'}, 'a', new=True).items()) == [('b', 'b'), ('a', 'a')]


def test_options_that_are_not_used_leave_the_key(tmp_path):
    a = prepare([copies(tmp_path, 5)], make_tokenizer('gpt2'), tmp_path/'out')
    unused = dict(min_sample_len=None, dataset_exact_deduplication=False, on_bad='error')
    assert prepare([copies(tmp_path, 5)], make_tokenizer('gpt2'), tmp_path/'out', **unused).from_cache
    assert not set(unused) & set(a.manifest['parts'])
    for used in (dict(min_sample_len=2), dict(dataset_exact_deduplication=True), dict(on_bad='skip')):
        assert not prepare([copies(tmp_path, 5)], make_tokenizer('gpt2'), tmp_path/'out', **used).from_cache


# --- what is hashed is what is read

@pytest.mark.parametrize('when', ['before the first row', 'after the last row'])
@pytest.mark.parametrize('how', ['in place', 'same size and time', 'replaced'])
def test_a_file_that_changes_while_it_is_read_is_not_kept(tmp_path, when, how):
    s = copies(tmp_path, 3)
    path, read = tmp_path/'data.jsonl', s.rows.read
    def change():
        text, stat = path.read_text().replace('7919', '7918').replace('Q1', 'Q9'), path.stat()
        if how == 'replaced': (tmp_path/'new').write_text(text); os.replace(tmp_path/'new', path)
        else: path.write_text(text)
        if how == 'same size and time': os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    def changing():
        if when == 'before the first row': change()
        yield from read()
        if when == 'after the last row': change()
    s.rows.read = changing
    with pytest.raises(DataError, match=r'data\.jsonl: the file changed while it was read'):
        prepare([s], make_tokenizer('gpt2'), tmp_path/'out')
    assert not (tmp_path/'out').exists()
    s.rows.read = read
    p = prepare([s], make_tokenizer('gpt2'), tmp_path/'out')
    assert not p.from_cache and make_tokenizer('gpt2').decode(read_rows(p.path, [1])[0][0]).startswith('<s>Q9')


# --- who works where

WORK = '''
import pathlib, sys, time
from segtune.data.cache import claimed, atomic_dir
p = pathlib.Path(sys.argv[1])
with claimed(p), atomic_dir(p) as d:
    (d/'x').write_text('x')
    print('working', flush=True)
    time.sleep(60)
'''


def test_the_work_of_a_live_process_stays_whatever_its_number(tmp_path, monkeypatch):
    "two containers: the other's process id means nothing here"
    out = tmp_path/'out'
    other = subprocess.Popen([sys.executable, '-c', WORK, out/('0'*32)], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == 'working\n'
    def no_such_process(*_): raise ProcessLookupError
    monkeypatch.setattr(os, 'kill', no_such_process)
    prepare([copies(tmp_path, 3)], make_tokenizer('gpt2'), out)
    assert [d.read_text() for d in out.glob('.making-*/x')] == ['x']
    monkeypatch.undo()
    other.kill(); other.wait(); other.stdout.close()
    prepare([copies(tmp_path, 4)], make_tokenizer('gpt2'), out)
    assert list(out.glob('.making-*')) == []


def test_of_two_runs_at_once_one_works_and_one_waits(tmp_path):
    copies(tmp_path, 30_000)
    (tmp_path/'config.yml').write_text(config.format(tok=bundled('gpt2')))
    pipes = dict(text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    runs = [subprocess.Popen([*segtune, 'preprocess', 'config.yml'], cwd=tmp_path, **pipes) for _ in range(2)]
    said = [r.communicate() for r in runs]
    assert [r.returncode for r in runs] == [0, 0]
    assert sorted('found ready' in out for out, _ in said) == [False, True], said
    assert sum('waiting for it' in err for _, err in said) == 1
    assert [d for d in os.listdir(tmp_path/'last_run_prepared') if d.startswith('.')] == []


# --- damage

def damages(p):
    hidden = p and p.path/'.segtune'
    manifest, line = p and hidden/'manifest.json', p and hidden/'lineage.arrow'
    def other_count(): manifest.write_text(manifest.read_text().replace('"rows": 50', '"rows": 51'))
    def longer():
        with (p.path/'data-00000-of-00001.arrow').open('ab') as f: f.write(b'x')
    return {'manifest emptied': lambda: manifest.write_text(''),
            'manifest no object': lambda: manifest.write_text('[]'),
            'manifest nested': lambda: manifest.write_text('['*100_000),
            'manifest binary': lambda: manifest.write_bytes(b'\xff\xfe\x00'),
            'manifest other count': other_count,
            'manifest gone': lambda: manifest.unlink(),
            'lineage gone': lambda: line.unlink(),
            'lineage cut': lambda: os.truncate(line, 20),
            'all hidden files gone': lambda: shutil.rmtree(hidden),
            'data gone': lambda: (p.path/'data-00000-of-00001.arrow').unlink(),
            'data cut': lambda: os.truncate(p.path/'data-00000-of-00001.arrow', 100),
            'data longer': longer,
            'state gone': lambda: (p.path/'state.json').unlink(),
            'info gone': lambda: (p.path/'dataset_info.json').unlink(),
            'state cut': lambda: os.truncate(p.path/'state.json', 10)}


@pytest.mark.parametrize('what', list(damages(None)))
def test_damaged_data_is_noticed_and_made_again(tmp_path, what):
    tok, s = make_tokenizer('gpt2'), copies(tmp_path, 50)
    p = prepare_and_lint([s], tok, tmp_path/'out')
    before = {f.name: f.read_bytes() for f in p.path.rglob('*') if f.is_file()}
    damages(p)[what]()
    again = prepare_and_lint([s], tok, tmp_path/'out')
    assert not again.from_cache and again.path == p.path
    assert {f.name: f.read_bytes() for f in p.path.rglob('*') if f.is_file()} == before
    assert prepare_and_lint([s], tok, tmp_path/'out').from_cache


@pytest.mark.parametrize('damage', [
    '', '{', '[]', 'null', '{"report": 1}', '{"report": {}, "check": "x"}', '\x00', '['*100_000])
def test_a_damaged_report_is_made_again(tmp_path, damage):
    tok, s = make_tokenizer('gpt2'), source(tmp_path, [hello, hello], 'segments')
    p = prepare_and_lint([s], tok, tmp_path/'out')
    (report,) = (p.path/'.segtune').glob('lint-*.json')
    report.write_text(damage)
    again = prepare_and_lint([s], tok, tmp_path/'out')
    assert again.from_cache and again.lint == p.lint and p.lint['rules']
    assert {f.name for f in (p.path/'.segtune').iterdir()} == {'lineage.arrow', 'manifest.json', report.name}


@pytest.mark.parametrize('file', ['state.json', '.segtune/lineage.arrow', 'data-00000-of-00001.arrow'])
@pytest.mark.parametrize('damage', [b'', b'{}', b'\x00'*40, b'[1]', None])
def test_damage_after_the_look_is_an_error_with_the_file(tmp_path, file, damage):
    tok, s = make_tokenizer('gpt2'), copies(tmp_path, 5)
    p = prepare([s], tok, tmp_path/'out')
    (p.path/file).unlink() if damage is None else (p.path/file).write_bytes(damage)
    with pytest.raises(DataError, match=rf'{file}: is (missing|damaged).*preprocess again'):
        source_rows(p, [s], tok, [0])


# --- many files, modes, disks

def test_ten_thousand_files_take_seconds(tmp_path):
    (tmp_path/'many').mkdir()
    for i in range(10_000):
        row = {'segments': [{'label': True, 'text': f'row {i}'}]}
        (tmp_path/f'many/{i:05}.jsonl').write_text(json.dumps(row))
    sources = [Source(r, find_format('segments')) for r in find_rows(str(tmp_path/'many'))]
    began = time.process_time()
    p = prepare(sources, make_tokenizer('gpt2'), tmp_path/'out')
    assert time.process_time()-began < 20 and p.count.rows == 10_000
    assert lineage(p, 9_999)[0].endswith('09999.jsonl')
    assert (p.path/'data-00000-of-00001.arrow').stat().st_size < 2_000_000


def test_more_files_than_sixteen_bits_count(tmp_path):
    one = copies(tmp_path, 1)
    p = prepare([one]*33_000, make_tokenizer('gpt2'), tmp_path/'out')
    assert lineage(p, 32_999) == ('data.jsonl', 1) and origins(p)[0][-1] == 32_999


def test_files_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try: p = prepare_and_lint([copies(tmp_path, 3)], make_tokenizer('gpt2'), tmp_path/'out')
    finally: os.umask(old)
    assert {oct(f.stat().st_mode & 0o777) for f in p.path.rglob('*') if f.is_file()} == {'0o640'}


@pytest.mark.parametrize('limit', [1, 500, 4000, 100_000])
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, limit):
    "no file may grow over a limit, which fails in the same calls as a full disk"
    copies(tmp_path, 3000)
    (tmp_path/'config.yml').write_text(config.format(tok=bundled('gpt2')))
    def limited(): resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    how = dict(cwd=tmp_path, text=True, capture_output=True, preexec_fn=limited)
    run = subprocess.run([*segtune, 'preprocess', 'config.yml'], **how)
    assert run.returncode == 1 and 'Traceback' not in run.stderr
    assert 'last_run_prepared' in run.stderr and 'cannot be written: File too large. Free some space' in run.stderr
    assert not (tmp_path/'last_run_prepared').exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path/'file').write_text('')
    for out in (tmp_path/'file', tmp_path/'file/below'):
        with pytest.raises(OSError, match='cannot be written') as e:
            prepare([copies(tmp_path, 3)], make_tokenizer('gpt2'), out)
        assert e.value.filename == str(out)


def test_data_that_is_ready_may_be_read_only(tmp_path):
    tok, s = make_tokenizer('gpt2'), copies(tmp_path, 3)
    p = prepare([s], tok, tmp_path/'out')
    before = sorted(p.path.rglob('*'))
    for d in (tmp_path/'out', p.path, p.path/'.segtune'): d.chmod(0o555)
    try:
        assert prepare([s], tok, tmp_path/'out').from_cache
        assert prepare_and_lint([s], tok, tmp_path/'out').lint['severities'] is not None
    finally:
        for d in (tmp_path/'out', p.path, p.path/'.segtune'): d.chmod(0o755)
    assert set(before) <= set(p.path.rglob('*'))


# --- choosing rows

def test_repeated_rows_are_dropped_across_sources_and_before_any_are_held_out(tmp_path):
    a = source(tmp_path, [hello, qa, hello], 'segments', 'a.jsonl')
    b = source(tmp_path, [qa, {'segments': [{'label': True, 'text': 'new'}]}], 'segments', 'b.jsonl')
    p = prepare([a, b], make_tokenizer('gpt2'), tmp_path/'out', dataset_exact_deduplication=True)
    assert [lineage(p, i) for i in range(p.count.rows)] == [('a.jsonl', 1), ('a.jsonl', 2), ('b.jsonl', 2)]
    what = 'dropped: same as an earlier row'
    assert [o[:2] for o in p.count.listed] == [[what, 'a.jsonl:3'], [what, 'b.jsonl:1']]
    assert p.count.read == 5


def test_rows_that_differ_only_in_their_labels_are_no_repeats(tmp_path):
    rows = [{'segments': [{'label': label, 'text': 'the same'}]} for label in (True, False, True)]
    s = source(tmp_path, rows, 'segments')
    p = prepare([s], make_tokenizer('gpt2'), tmp_path/'out', dataset_exact_deduplication=True)
    assert [lineage(p, i)[1] for i in range(p.count.rows)] == [1, 2]


def test_short_rows_and_rows_without_a_trained_token(tmp_path):
    rows = [{'segments': [{'label': False, 'text': 'a prompt, and no answer'}]}, qa,
            {'segments': [{'label': True, 'text': 'a'}]},
            {'segments': [{'label': False, 'text': 'word '*60}, {'label': True, 'text': 'end'}]}]
    s, tok = source(tmp_path, rows, 'segments'), make_tokenizer('gpt2')
    lines = lambda p: [lineage(p, i)[1] for i in range(p.count.rows)]
    assert lines(prepare([s], tok, tmp_path/'out', sequence_len=40, on_long='cut')) == [1, 2, 3, 4]
    p = prepare([s], tok, tmp_path/'out', sequence_len=40, on_long='cut', on_bad='skip')
    assert lines(p) == [2] and dict(p.count.changed) == {'dropped: no trained token': 3}
    p = prepare([s], tok, tmp_path/'out', sequence_len=40, min_sample_len=2)
    assert lines(p) == [1, 2]
    assert dict(p.count.changed) == {'dropped: shorter than min_sample_len': 1, 'dropped: too long': 1}


def test_wrong_rows_are_skipped_counted_and_listed(tmp_path):
    rows = [{'segments': [{'label': 'no', 'text': ''}]}, hello, {'segments': 5}, qa, {'wrong': 1}]
    s, tok = source(tmp_path, rows, 'segments'), make_tokenizer('gpt2')
    with pytest.raises(DataError, match=r'3 rows of data\.jsonl are wrong'): prepare([s], tok, tmp_path/'out')
    p = prepare_and_lint([s], tok, tmp_path/'out', on_bad='skip')
    assert [lineage(p, i)[1] for i in range(p.count.rows)] == [2, 4] and p.count.read == 5
    assert dict(p.count.changed) == {'dropped: wrong row': 3}
    assert [o[1] for o in p.count.listed] == ['data.jsonl:1', 'data.jsonl:3', 'data.jsonl:5']
    assert p.count.listed[1][0] == ('dropped: wrong row (expected a list, got 5 (a number). '
                                     'Write a list of objects with "text" and "label".)')
    assert [o.place for o in source_rows(p, [s], tok, [0, 1])] == ['data.jsonl:2', 'data.jsonl:4']
    only = source(tmp_path, rows[:1], 'segments', 'only.jsonl')
    none_left = r'no rows are left to train on: 1 row dropped: wrong row; the first is only\.jsonl:1'
    with pytest.raises(DataError, match=none_left):
        prepare([only], tok, tmp_path/'out', on_bad='skip')


def test_windows_of_a_line_are_found_again_where_some_were_dropped(tmp_path):
    tok = make_tokenizer('gpt2')
    texts = source(tmp_path, [{'text': 'same words again '*40+'and an end'}], 'completion')
    texts.format = find_format('completion', tok, sequence_len=12)
    for how in (dict(), dict(dataset_exact_deduplication=True), dict(min_sample_len=9)):
        p = prepare([texts], tok, tmp_path/'out', sequence_len=12, **how)
        found = source_rows(p, [texts], tok, list(range(p.count.rows)))
        on_disk = read_rows(p.path, list(range(p.count.rows)))
        assert [o.row.ids.tolist() for o in found] == [ids.tolist() for ids, _ in on_disk]


# --- a shard is a function

def merged(parts):
    return [np.concatenate(o) for o in zip(*[s.arrays for s in parts])], sum([s.count for s in parts], PrepareStats())


@pytest.mark.parametrize('name', ['mistral', 'gpt2'])
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_shards_in_any_order_merge_to_the_same(name, data):
    some = st.sampled_from(['', 'a', ' b', 'word '*9, '</s>', 'é', '東'])
    texts = st.lists(st.builds(Segment, some, st.booleans()), max_size=4)
    drawn = data.draw(st.lists(st.one_of(texts, st.just('wrong')), min_size=1, max_size=12))
    rows = [ShardRow(i % 3, 'abc'[i % 3], i, *([[], o] if o == 'wrong' else [o])) for i, o in enumerate(drawn)]
    options = data.draw(st.builds(
        RowOptions, sequence_len=st.sampled_from([1, 6, 100]), on_long=st.sampled_from(['drop', 'cut']),
        min_sample_len=st.sampled_from([None, 0, 2, 5]), on_bad=st.sampled_from(['error', 'skip']),
        dataset_exact_deduplication=st.booleans()))
    encoder = Encoder(make_tokenizer(name))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(rows)))) | {0, len(rows)})
    parts = [rows[a:b] for a, b in zip(cuts, cuts[1:])]
    made = {k: encode_shard(parts[k], encoder, options) for k in data.draw(st.permutations(range(len(parts))))}
    whole, split, seen = [encode_shard(rows, encoder, options)], [made[k] for k in range(len(parts))], SeenRows()
    if options.dataset_exact_deduplication:
        whole, split = [drop_seen(s, SeenRows()) for s in whole], [drop_seen(s, seen) for s in split]
    (arrays, count), (again, other) = merged(whole), merged(split)
    assert all(map(np.array_equal, arrays, again)) and count == other
    assert count.read == len(rows)


def lint_of(shard, encoder, options):
    limits = dict(sequence_len=options.sequence_len, on_long=options.on_long)
    return Linter(encoder, **limits).add(shard.batch, shard.places, shard.kept, encoder)


@pytest.mark.parametrize('name', ['mistral', 'gpt2'])
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_shards_encoded_and_linted_in_any_order_merge_to_the_same_findings(name, data):
    "arrays, statistics and findings, with a linter of its own for every shard, joined in any grouping"
    some = st.sampled_from(['', 'a', ' b', 'word '*9, '</s>', 'é', 'USER: hi', 'a '])
    texts = st.lists(st.builds(Segment, some, st.booleans()), max_size=4)
    drawn = data.draw(st.lists(st.one_of(texts, st.just('wrong')), min_size=1, max_size=12))
    rows = [ShardRow(i % 2, 'ab'[i % 2], i, *([[], o] if o == 'wrong' else [o])) for i, o in enumerate(drawn)]
    options = RowOptions(sequence_len=data.draw(st.sampled_from([2, 6, 100])), on_long=data.draw(st.sampled_from(['drop', 'cut'])))
    encoder = Encoder(make_tokenizer(name))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(rows)))) | {0, len(rows)})
    parts = [rows[a:b] for a, b in zip(cuts, cuts[1:])]
    made = {k: encode_shard(parts[k], encoder, options) for k in data.draw(st.permutations(range(len(parts))))}
    split, linters = [made[k] for k in range(len(parts))], [lint_of(made[k], encoder, options) for k in range(len(parts))]
    while len(linters) > 1:
        at = data.draw(st.integers(0, len(linters)-2))
        linters[at:at+2] = [linters[at].merge(linters[at+1])]
    whole = encode_shard(rows, encoder, options)
    (arrays, count), (again, other) = merged([whole]), merged(split)
    assert all(map(np.array_equal, arrays, again)) and count == other
    held = data.draw(st.sets(st.integers(0, max(0, count.rows-1)), max_size=min(2, count.rows)))
    assert linters[0].report(sorted(held)) == lint_of(whole, encoder, options).report(sorted(held))


def test_encoding_a_shard_changes_nothing_that_it_was_given():
    rows = [ShardRow(0, 'a', 1, [Segment('one', True), Segment(' two', False)])]
    encoder, options = Encoder(make_tokenizer('gpt2')), RowOptions(sequence_len=1, on_long='cut')
    before = repr((rows, options))
    shard = encode_shard(rows, encoder, options)
    kept = shard.kept.copy()
    drop_seen(shard, SeenRows()), drop_seen(shard, SeenRows()), shard.count, shard.arrays
    assert repr((rows, options)) == before and np.array_equal(kept, shard.kept)


def test_a_directory_does_not_read_what_was_prepared_in_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copies(tmp_path, 4)
    def run():
        sources = [Source(r, find_format('segments')) for r in find_rows('.')]
        return prepare(sources, make_tokenizer('gpt2'), 'last_run_prepared')
    assert [run().count.rows, run().from_cache] == [4, True]


@pytest.mark.parametrize('shuffled, held', [(False, [8, 9]), (None, None), (True, None)])
def test_lint_and_training_hold_out_the_same_rows(tmp_path, shuffled, held):
    "without shuffling the last rows, as axolotl does; else rows drawn by the seed"
    rows = [{'segments': [{'label': True, 'text': f'row {i}.'}]} for i in range(10)]
    tok, s = make_tokenizer('gpt2'), source(tmp_path, rows, 'segments')
    how = dict(val_set_size=0.2, seed=7, shuffle_merged_datasets=shuffled)
    apart = train_val_split(10, **how)[1]
    assert apart == (held or train_val_split(10, 0.2, 7)[1])
    rows[apart[0]] = rows[0] if apart[0] else rows[1]
    s = source(tmp_path, rows, 'segments')
    (found,) = [o for o in prepare_and_lint([s], tok, tmp_path/'out', **how).lint['rules'] if o['id'] == 'train-eval-overlap']
    assert f'data.jsonl:{apart[0]+1}' in found['examples'][0]['message']


def test_a_tokenizer_with_dropout_gives_the_same_tokens_each_time(tmp_path):
    shutil.copytree(bundled('mistral-v0.1'), tmp_path/'dice')
    spec = json.loads((tmp_path/'dice/tokenizer.json').read_text())
    spec['model']['dropout'] = 0.5
    (tmp_path/'dice/tokenizer.json').write_text(json.dumps(spec))
    def ids(tok, out):
        p = prepare([copies(tmp_path, 20)], tok, tmp_path/out)
        return [ids.tolist() for ids, _ in read_rows(p.path, list(range(20)))]
    dice = load_tokenizer(tmp_path/'dice')
    assert ids(dice, 'one') == ids(dice, 'two') == ids(make_tokenizer('mistral'), 'three')


@pytest.mark.parametrize('kind', ['file', 'link to nothing', 'link to a directory'])
def test_whatever_is_in_the_place_of_a_dataset_goes_and_leaves_nothing_behind(tmp_path, kind):
    make = lambda: prepare([copies(tmp_path, 5)], make_tokenizer('gpt2'), tmp_path/'out')
    path = make().path
    shutil.rmtree(path)
    if kind == 'file': path.write_text('x')
    else: path.symlink_to(tmp_path/'nowhere' if kind == 'link to nothing' else tmp_path)
    p = make()
    assert not p.from_cache and make().from_cache and os.listdir(tmp_path/'out') == [path.name] and not path.is_symlink()


def test_what_older_versions_left_behind_goes_too(tmp_path):
    make = lambda n: prepare([copies(tmp_path, n)], make_tokenizer('gpt2'), tmp_path/'out')
    path = make(5).path
    (tmp_path/'out'/f'.making-{path.name}.old').write_text('x')
    make(6)
    assert sorted(os.listdir(tmp_path/'out')) == sorted([path.name, make(6).path.name])
