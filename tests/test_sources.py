"Where rows come from: which rows a path names, and that nothing of a file, a directory or an address is read or left out without a word."
import bz2
import gzip
import importlib.util
import json
import os
import random
import subprocess
import sys
import threading
from datetime import datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segtune.data import json_rows
from segtune.data.files import count_rows, place_name, read_each, read_file, sift
from segtune.data.rows import Rows, drop_rows, mix_rows
from segtune.data.sources import find_rows
from segtune.data.splits import directory_splits
from segtune.data.stamps import FileStamps, check_unchanged, digest_of, forget_files, stamp_of
from segtune.segments import ConfigError, DataError, MissingError, SegtuneError, json_type, parse_line


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(json.dumps(o)+'\n' for o in rows), encoding='utf-8')
    return path


def texts(path, **how): return [row['text'] for r in find_rows(str(path), **how) for _, row in r]


def notes(path, **how): return ' '.join(n for r in find_rows(str(path), **how) for n in r.notes)


def message(f, *args, **how):
    with pytest.raises(SegtuneError) as e: f(*args, **how)
    assert '\n' not in str(e.value) and str(e.value).endswith('.')
    return str(e.value)


# ---- splits

SPECS = ['train', 'train[:2]', 'train[3:]', 'train[-2:]', 'train[:-3]', 'train[10%:50%]', 'train[:33%]', 'test', 'train+test', 'test[1:]+train[:1]',
         'train[2:2]', 'train[5:3]', 'train[:1000]', 'validation[1:2]', 'train[:2]+train[4:]', 'train[-1000:1]', 'train [:2]', 'train[25%:75%](closest)']
LAYOUTS = {
    'files': dict(train=['train.jsonl'], test=['test.jsonl'], validation=['validation.jsonl']),
    'several': dict(train=['train_0.jsonl', 'train_1.jsonl', 'my-train.jsonl'], test=['eval.jsonl'], validation=['dev.jsonl']),
    'hub': dict(train=['data/train-00000-of-00002.jsonl', 'data/train-00001-of-00002.jsonl'], test=['data/test-00000-of-00001.jsonl'], validation=['data/validation-00000-of-00001.jsonl']),
    'folders': dict(train=['train/a.jsonl', 'train/deep/b.jsonl'], test=['test/a.jsonl'], validation=['valid/a.jsonl']),
}


def layout(d, kind):
    for split, names in LAYOUTS[kind].items():
        for name in names: write(d/name, [dict(text=f'{split} {name} {i}') for i in range(7 if split == 'train' else 3)])
    return d


@pytest.mark.parametrize('kind', LAYOUTS)
def test_splits_and_slices_of_a_directory_are_those_of_datasets(tmp_path, kind):
    from datasets import load_dataset
    layout(tmp_path/'d', kind)
    for spec in SPECS:
        try: theirs = load_dataset(str(tmp_path/'d'), split=spec, cache_dir=str(tmp_path/'cache'))['text'][:]
        except (ValueError, AssertionError, IndexError): theirs = None
        if theirs: assert texts(tmp_path/'d', split=spec) == theirs, spec
        else: message(texts, tmp_path/'d', split=spec)


@pytest.mark.parametrize('kind', LAYOUTS)
def test_several_splits_and_none_named_is_train_and_said(tmp_path, kind):
    layout(tmp_path, kind)
    assert {o.split()[0] for o in texts(tmp_path)} == {'train'}
    assert 'has the splits train, validation, test; train is read' in notes(tmp_path)
    assert 'train is read' not in notes(tmp_path, split='train')


names = st.lists(st.sampled_from(['train', 'test', 'dev', 'val', 'trainer', 'a', 'my_train', 'evaluation', 'x-test-1', 'data']), min_size=1, max_size=2).map('/'.join)


@settings(max_examples=40, deadline=None)
@given(st.sets(names.map(lambda o: f'{o}.jsonl'), min_size=1, max_size=5))
def test_the_splits_found_are_those_of_datasets_in_the_same_order(tmp_path_factory, found):
    from datasets.data_files import DataFilesDict, get_data_patterns
    d = tmp_path_factory.mktemp('names')
    for o in found: write(d/o, [dict(text='x')])
    theirs = DataFilesDict.from_patterns(get_data_patterns(str(d)), base_path=str(d), allowed_extensions=None)
    assert {k: list(dict.fromkeys(v)) for k, v in theirs.items()} == directory_splits(d)[0]


@pytest.mark.parametrize('path, split, known', [('one.jsonl', 'nosuch', 'has the split train'), ('one.jsonl', 'test', 'has the split train'), ('*.jsonl', 'nosuch', 'has the split train'),
                                                ('d', 'nosuch', 'has the splits train, validation, test'), ('d', 'train+dev', "not 'dev'"), ('one.jsonl', 'train[', 'is no part of a split'),
                                                ('one.jsonl', 'train[a:b]', 'is no part of a split'), ('one.jsonl', '[:2]', 'is no part of a split')])
def test_an_unknown_split_is_an_error_that_names_those_there_are(tmp_path, monkeypatch, path, split, known):
    monkeypatch.chdir(tmp_path)
    write(Path('one.jsonl'), [dict(text='a')])
    layout(Path('d'), 'files')
    assert known in message(lambda: find_rows(path, split=split))


@pytest.mark.parametrize('name', ['d.jsonl', 'd.json', 'd.csv', 'd.parquet', 'd.arrow', 'd.txt', 'd.jsonl.gz'])
def test_a_slice_of_any_kind_of_file_keeps_its_numbers(tmp_path, name):
    rows = [dict(text=f'row {i}') for i in range(30)]
    make(tmp_path/name, rows)
    whole = list(find_rows(str(tmp_path/name))[0])
    assert [row for _, row in whole] == rows
    for spec, part in {'train[:2]': whole[:2], 'train[10%:20%]': whole[3:6], 'train[-1:]': whole[-1:]}.items():
        r, = find_rows(str(tmp_path/name), split=spec)
        assert list(r) == part and r.count() == len(part) and r.identity != find_rows(str(tmp_path/name))[0].identity
    assert list(find_rows(str(tmp_path/name), skip=28)[0]) == whole[28:]


def make(path, rows):
    import pandas as pd
    import pyarrow as pa
    if path.suffix == '.parquet':
        with open(path, 'wb') as f: pd.DataFrame(rows).to_parquet(f)
    elif path.suffix == '.csv': pd.DataFrame(rows).to_csv(path, index=False)
    elif path.suffix == '.txt': path.write_text(''.join(o['text']+'\n' for o in rows))
    elif path.suffix == '.json': path.write_text(json.dumps(rows, indent=1))
    elif path.suffix == '.gz': path.write_bytes(gzip.compress('\n'.join(map(json.dumps, rows)).encode()))
    elif path.suffix == '.arrow':
        t = pa.Table.from_pylist(rows)
        with open(path, 'wb') as f, pa.ipc.new_stream(f, t.schema) as out: out.write_table(t, 7)
    else: write(path, rows)


def test_saved_datasets_honour_splits_and_read_no_file_that_is_not_theirs(tmp_path):
    from datasets import Dataset, DatasetDict
    one = Dataset.from_list([dict(text=f'row {i}') for i in range(10)])
    one.save_to_disk(tmp_path/'one', num_shards=3)
    write(tmp_path/'one/extra.jsonl', [dict(text='not of this dataset')])
    (tmp_path/'one/data-00009-of-00009.arrow').write_bytes(b'not of this dataset')
    assert texts(tmp_path/'one') == one['text'][:]
    assert texts(tmp_path/'one', split='train[-2:]') == ['row 8', 'row 9']
    assert "has the split train, not 'test'" in message(lambda: texts(tmp_path/'one', split='test'))
    assert [n for n, _ in find_rows(str(tmp_path/'one'))[0]] == list(range(1, 11))
    DatasetDict(train=one, test=one.select([3, 4])).save_to_disk(tmp_path/'two')
    write(tmp_path/'two/train/extra.jsonl', [dict(text='not of this dataset')])
    assert texts(tmp_path/'two') == one['text'][:] and 'train is read' in notes(tmp_path/'two')
    assert texts(tmp_path/'two', split='test[1:]+train[:1]') == ['row 4', 'row 0']
    one.select([9, 2]).filter(lambda o: True).save_to_disk(tmp_path/'picked')
    assert texts(tmp_path/'picked') == ['row 9', 'row 2']
    next((tmp_path/'one').glob('data-00001*')).unlink()
    assert 'cannot read the file' in message(lambda: texts(tmp_path/'one'))


def test_configurations_of_a_readme_and_several_names(tmp_path):
    for o in 'abc': write(tmp_path/f'{o}/x.jsonl', [dict(text=o)])
    entries = [dict(config_name='first', data_files='a/*.jsonl'), dict(config_name='second', data_files=[dict(split='train', path='b/*'), dict(split='test', path=['c/x.jsonl'])])]
    import yaml
    (tmp_path/'README.md').write_text(f'---\n{yaml.safe_dump(dict(configs=entries))}---\ntext\n')
    assert texts(tmp_path, name='first') == ['a'] and texts(tmp_path, name='second') == ['b'] and texts(tmp_path, name='second', split='test') == ['c']
    assert texts(tmp_path, name=['second', 'first']) == ['b', 'a']
    assert 'has the configurations first, second' in message(lambda: texts(tmp_path))
    assert "not 'third'" in message(lambda: texts(tmp_path, name='third'))


def test_named_files_alone_are_read(tmp_path):
    layout(tmp_path, 'files')
    assert {o.split()[0] for o in texts(tmp_path, data_files=['test.jsonl', 'valid*.jsonl'])} == {'test', 'validation'}
    assert {o.split()[0] for o in texts(tmp_path, data_files=dict(train='test.jsonl', late='train.jsonl'), split='late')} == {'train'}
    assert 'no such file' in message(lambda: texts(tmp_path, data_files='tset.jsonl'))


def test_what_is_left_out_is_said(tmp_path):
    write(tmp_path/'train.jsonl', [dict(text='a')])
    write(tmp_path/'extra.jsonl', [dict(text='b')])
    assert texts(tmp_path) == ['a'] and 'names say no split: extra.jsonl' in notes(tmp_path)
    assert 'revision is for the hub' in notes(tmp_path/'train.jsonl', revision='main')
    assert 'data_files is left out' in notes(tmp_path/'train.jsonl', data_files='x.jsonl')


# ---- shards and skip

@pytest.mark.parametrize('n, shards', [(10, 3), (7, 7), (23, 4), (5, 1)])
def test_shards_have_the_rows_of_datasets_over_all_files_of_an_entry(tmp_path, n, shards):
    from datasets import Dataset
    rows = [dict(text=f'row {i}') for i in range(n)]
    for k, part in enumerate((rows[:n//3], rows[n//3:])): write(tmp_path/f'{k}.jsonl', part)
    seen = []
    for k in range(shards):
        theirs = Dataset.from_list(rows).shuffle(seed=5).shard(shards, k)['text'][:]
        ours = texts(tmp_path, shards=shards, shards_idx=k, seed=5)
        assert sorted(ours) == sorted(theirs)
        seen += ours
    assert sorted(seen) == sorted(o['text'] for o in rows)
    if shards > 1: assert texts(tmp_path, shards=shards, seed=5) != texts(tmp_path, shards=shards, shards_idx=1, seed=5)
    assert find_rows(str(tmp_path), shards=shards, seed=5)[0].identity != find_rows(str(tmp_path), shards=shards, seed=6)[0].identity
    assert texts(tmp_path, preprocess_shards=4) == texts(tmp_path)


@pytest.mark.parametrize('how', [dict(shards=-1), dict(shards=2, shards_idx=2), dict(shards=2, shards_idx=-1), dict(shards=True), dict(skip=-1), dict(skip=3), dict(shards='2')])
def test_odd_shards_and_skips_are_errors(tmp_path, how):
    message(lambda: find_rows(str(write(tmp_path/'a.jsonl', [dict(text='a')]*3)), **how))


@pytest.mark.parametrize('how', [dict(split=5), dict(split=['train']), dict(split=True), dict(data_files=5), dict(data_files=[None]), dict(data_files=[dict(split='a')]), dict(data_files=['']),
                                 dict(data_files=dict(train=7)), dict(data_files='\0'), dict(name='nosuch'), dict(ds_type='xml')])
def test_options_of_the_wrong_kind_are_errors(tmp_path, how):
    write(tmp_path/'a.jsonl', [dict(text='a')])
    message(texts, tmp_path, **how)


@pytest.mark.parametrize('name, text', [('README.md', f'---\nconfigs: {o}\n---\n') for o in (
    '[{', '[{config_name: x, data_files: 5}]', '[{config_name: x, data_files: [{split: train}]}]', '[{config_name: x, data_dir: nosuch}]', '[{data_files: {train: 7}}]', '[{data_files: []}]', '[{data_files: nosuch}]',
    )]+[('state.json', o) for o in ('{', '{"_data_files": 5}', '{"_data_files": [{}]}', '{"_data_files": []}', '{"_data_files": [{"filename": "a.jsonl"}]}', '{"_data_files": [{"filename": "nosuch"}]}')]
    +[('dataset_dict.json', o) for o in ('{', '[]', '{"splits": []}', '{"splits": "ab"}', '{"splits": [5]}', '{"splits": ["nosuch"]}')])
def test_odd_descriptions_of_a_dataset_are_errors(tmp_path, name, text):
    write(tmp_path/'a.jsonl', [dict(text='a')])
    (tmp_path/name).write_text(text)
    message(texts, tmp_path)


# ---- choosing rows

def ten(tmp_path, name='ten.jsonl', n=10): return write(tmp_path/name, [dict(text=f'{name[0]}{i}') for i in range(n)])


def test_parts_of_parts_are_known_apart(tmp_path):
    path = str(ten(tmp_path))
    a, = find_rows(path, split='train[3:8]', skip=1)
    b, = find_rows(path, split='train[5:10]', skip=1)
    assert [row['text'] for _, row in a] != [row['text'] for _, row in b] and a.identity != b.identity
    a, = find_rows(path, shards=2, max_rows=2, seed=1)
    b, = find_rows(path, shards=2, shards_idx=1, max_rows=2, seed=1)
    assert list(a) != list(b) and a.identity != b.identity


@pytest.mark.parametrize('name', ['d.jsonl', 'd.json', 'd.csv', 'd.parquet', 'd.arrow', 'd.txt', 'd.jsonl.gz'])
def test_max_rows_are_those_that_datasets_draws_in_the_order_of_the_file(tmp_path, name):
    from datasets import Dataset
    rows = [dict(text=f'row {i}') for i in range(30)]
    make(tmp_path/name, rows)
    drawn = Dataset.from_list(rows).shuffle(seed=9).select(range(7))['text'][:]
    r, = find_rows(str(tmp_path/name), max_rows=7, seed=9)
    whole = [o for o in find_rows(str(tmp_path/name))[0] if o[1]['text'] in drawn]
    assert list(r) == whole and r.count() == 7 and '7 of 30 rows are taken, drawn at random (max_rows)' in ' '.join(r.notes)
    assert r.identity != find_rows(str(tmp_path/name), max_rows=7, seed=8)[0].identity
    assert find_rows(str(tmp_path/name), max_rows=30)[0].identity == {} and not find_rows(str(tmp_path/name), max_rows=99)[0].notes


def test_max_rows_and_repeat_count_over_all_files_of_an_entry(tmp_path):
    for name in ('a.jsonl', 'b.jsonl'): ten(tmp_path, name)
    assert len(texts(tmp_path, max_rows=13)) == 13 and len(texts(tmp_path, max_rows=13, repeat=3)) == 39
    assert texts(tmp_path, repeat=2) == texts(tmp_path)*2 and '20 rows are read 2 times (repeat)' in notes(tmp_path, repeat=2)
    assert notes(tmp_path, repeat=2).count('(repeat)') == 1
    for how in (dict(max_rows=0), dict(max_rows=-1), dict(max_rows='3'), dict(max_rows=True), dict(repeat=0), dict(repeat=1.5)): message(texts, tmp_path, **how)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 50), st.sampled_from([0.1, 0.5, 1, 2, 7])), min_size=1, max_size=4), st.booleans())
def test_a_mixture_has_its_weights_and_no_row_twice_or_none_left_out(parts, all_of_them):
    counts, weights = zip(*parts)
    sources = [[Rows(f'{k}', lambda n=n: ((i, dict(i=i)) for i in range(1, n+1)), count=lambda n=n: n)] for k, n in enumerate(counts)]
    strategy = 'all_exhausted' if all_of_them else 'first_exhausted'
    taken = [[n for r in o for n, _ in r.read()] for o in mix_rows(sources, list(weights), strategy, seed=3)]
    total = sum(map(len, taken))
    for found, n, w in zip(taken, counts, weights):
        assert len(found) == max(1, round((max if all_of_them else min)(c/v for c, v in zip(counts, weights))*w))
        times = [found.count(i) for i in range(1, n+1)]
        assert max(times)-min(times) <= 1
        assert min(times) >= 1 if all_of_them else max(times) <= 1
    assert total >= max(counts) if all_of_them else total <= sum(counts)


def dropped(tmp_path, text, *sources):
    (tmp_path/'drop.txt').write_text(text)
    return drop_rows(list(sources), str(tmp_path/'drop.txt'))


def test_a_listed_row_goes_from_every_source_that_reads_it(tmp_path):
    ten(tmp_path)
    path = str(tmp_path/'ten.jsonl')
    first, last = find_rows(path, split='train[:5]')+find_rows(path, split='train[5:]')
    out = dropped(tmp_path, f'ten.jsonl:2\r\n\n# a comment\n{path}:9 \n', first, last, *find_rows(path, repeat=2))
    assert [[n for n, _ in r] for r in out] == [[1, 3, 4, 5], [6, 7, 8, 10]]+[[1, 3, 4, 5, 6, 7, 8, 10]]*2
    assert [r.count() for r in out] == [4, 4, 8, 8]
    assert sum(len(r.notes) for r in out) == 2 and '2 rows dropped, as' in out[0].notes[-1]
    assert dropped(tmp_path, '', first) == [first]


@pytest.mark.parametrize('how', [dict(max_rows=3), dict(skip=8), dict(shards=4), dict(split='train[5:]')])
def test_a_listed_row_that_is_not_read_anyway_is_said_and_no_error(tmp_path, how):
    "as when some rows are tried first"
    ten(tmp_path)
    sources = find_rows(str(tmp_path/'ten.jsonl'), **how)
    read = {n for r in sources for n, _ in r}
    out = dropped(tmp_path, ''.join(f'ten.jsonl:{i}\n' for i in (2, 9, 10)), *sources)
    assert [n for r in out for n, _ in r] == sorted(read-{2, 9, 10})
    absent = sorted({2, 9, 10}-read)
    assert any(f'{len(absent)} row' in o and f'not read anyway: {", ".join(map(str, absent))}' in o for o in out[0].notes)


def test_a_place_may_be_listed_with_what_the_report_says_of_it(tmp_path):
    ten(tmp_path)
    ten(tmp_path, 'a: b.jsonl')
    sources = [*find_rows(str(tmp_path/'ten.jsonl')), *find_rows(str(tmp_path/'a: b.jsonl'))]
    first, last = dropped(tmp_path, '  ten.jsonl:2: dropped: too long, 1,024 tokens\na: b.jsonl:3\na: b.jsonl:4: empty\n', *sources)
    assert [[n for n, _ in r] for r in (first, last)] == [[1, *range(3, 11)], [1, 2, *range(5, 11)]]


@pytest.mark.parametrize('text, said', [('ten.jsonl:11', 'no row .*ten.jsonl:11 is read'), ('\nten.jsonl:3\nten.jsonl:0', 'drop.txt:3: no row'), ('tem.jsonl:1', "'tem.jsonl' is none of the sources.*such as .*ten.jsonl"),
                                        ('ten.jsonl', 'drop.txt:1: expected a place'), ('ten.jsonl:x', 'expected a place'), ('ten.jsonl:3 too long', 'expected a place'), ('same.jsonl:1', 'may be .*one/same.jsonl or .*two/same.jsonl'),
                                        ('\xff', 'UTF-8')])
def test_a_line_that_names_no_row_or_two_is_an_error_that_names_it(tmp_path, text, said):
    import re
    ten(tmp_path)
    for o in ('one', 'two'): ten(tmp_path, f'{o}/same.jsonl')
    sources = [r for o in ('ten.jsonl', 'one', 'two') for r in find_rows(str(tmp_path/o))]
    (tmp_path/'drop.txt').write_bytes(text.encode('latin-1'))
    assert re.search(said, message(drop_rows, sources, str(tmp_path/'drop.txt')))
    assert 'drop: cannot read' in message(drop_rows, sources, 'nosuch.txt')


CHOICE = dict(base_model='bundled:gpt2', sequence_len=64)

def project(tmp_path, **config):
    import yaml

    from segtune.project import Project
    (tmp_path/'config.yml').write_text(yaml.safe_dump(CHOICE | config))
    return Project.open(tmp_path/'config.yml')


def segments_file(path, n=10):
    return write(path, [dict(segments=[dict(label=False, text=f'{path.stem} {i}'), dict(label=True, text='yes')]) for i in range(n)])


def test_choices_of_a_config_decide_rows_key_and_notes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for o in 'ab': segments_file(Path(f'{o}.jsonl'))
    Path('drop.txt').write_text('a.jsonl:4\n')
    entry = lambda o, **more: dict(path=f'{o}.jsonl', **more)
    plain = project(tmp_path, datasets=[entry('a'), entry('b')])
    seen = {plain.prepared.path: 20}
    for n, config in ((13, dict(datasets=[entry('a', max_rows=3), entry('b')])), (30, dict(datasets=[entry('a', repeat=2), entry('b')])), (15, dict(datasets=[entry('a', weight=2), entry('b', weight=1)])),
                      (40, dict(datasets=[entry('a', weight=3), entry('b', weight=1)], mixing_strategy='all_exhausted')), (19, dict(datasets=[entry('a'), entry('b')], drop='drop.txt')),
                      (13, dict(datasets=[entry('a', max_rows=3), entry('b')], seed=7))):
        p = project(tmp_path, **config)
        assert p.prepared.count.rows == n and p.prepared.path not in seen and p.data_notes, config
        seen[p.prepared.path] = n
        again = project(tmp_path, **config)
        assert again.prepared.from_cache and again.data_notes == p.data_notes
    Path('drop.txt').write_text('# said otherwise\nb.jsonl:2\n./a.jsonl:4\n')
    assert project(tmp_path, datasets=[entry('a'), entry('b')], drop='drop.txt').prepared.count.rows == 18
    Path('drop.txt').write_text('# another comment\n\na.jsonl:4\n')
    assert project(tmp_path, datasets=[entry('a'), entry('b')], drop='drop.txt').prepared.from_cache


def test_a_shard_of_no_shards_is_said(tmp_path):
    ten(tmp_path)
    r, = find_rows(str(tmp_path/'ten.jsonl'), shards_idx=1)
    assert r.count() == 10 and 'shards_idx is left out, since shards is not given' in r.notes[0]


def test_rows_of_test_datasets_can_be_dropped_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for o in 'ab': segments_file(Path(f'{o}.jsonl'))
    Path('drop.txt').write_text('a.jsonl:1\nb.jsonl:2\nb.jsonl:3\n')
    p = project(tmp_path, datasets=[dict(path='a.jsonl')], test_datasets=[dict(path='b.jsonl')], drop='drop.txt')
    assert (p.prepared.count.rows, p.held.count.rows) == (9, 8)


@pytest.mark.parametrize('config, said', [
    (dict(datasets=[dict(path='a', weight=1), dict(path='b')]), r'datasets\[1\].weight|weight: is missing'), (dict(datasets=[dict(path='a', repeat=2)], val_set_size=0.1), 'hold out copies'),
    (dict(datasets=[dict(path='a', repeat=2)], dataset_exact_deduplication=True), 'would drop them'), (dict(datasets=[dict(path='a')], mixing_strategy='all_exhausted'), 'no dataset has a weight'),
    (dict(datasets=[dict(path='a', weight=0)]), 'weight'), (dict(datasets=[dict(path='a', max_rows=0)]), 'max_rows'), (dict(datasets=[dict(path='a', repeat=-1)]), 'repeat'),
    (dict(datasets=[dict(path='a', weight=1)], mixing_strategy='all_exhausted', val_set_size=2), 'hold out copies')])
def test_choices_that_contradict_are_errors(tmp_path, config, said):
    import re
    with pytest.raises(SegtuneError) as e: project(tmp_path, **config)
    assert re.search(said, str(e.value)), e.value


def test_preprocess_drops_the_rows_that_a_file_lists(tmp_path, monkeypatch, capsys):
    from segtune.cli import main
    monkeypatch.chdir(tmp_path)
    segments_file(Path('a.jsonl'))
    Path('c').mkdir()
    Path('c/config.yml').write_text('base_model: bundled:gpt2\nsequence_len: 64\ndatasets:\n- path: a.jsonl\n')
    Path('bad rows.txt').write_text('a.jsonl:4\na.jsonl:7\n')
    for drop, code, said in (('bad rows.txt', 0, '2 rows dropped, as'), ('none.txt', 2, 'cannot read')):
        monkeypatch.setattr(sys, 'argv', ['segtune', 'preprocess', 'c/config.yml', '--drop', drop])
        with pytest.raises(SystemExit) as e: main()
        out = capsys.readouterr()
        assert (e.value.code or 0) == code and said in out.err
        if not code: assert '8 rows' in out.out and 'so that train leaves out the same rows' in out.err


def test_rows_in_memory_are_chosen_as_rows_of_a_file(tmp_path, monkeypatch):
    import segtune as sg
    monkeypatch.chdir(tmp_path)
    rows = [dict(segments=[dict(label=False, text=f'Q {i}'), dict(label=True, text=' A')]) for i in range(10)]
    assert len(sg.prepare(rows, 'bundled:gpt2', sequence_len=64, max_rows=4)) == 4
    twice = sg.prepare(rows, 'bundled:gpt2', sequence_len=64, repeat=2, skip=3)
    assert len(twice) == 14 and not any(o['id'] == 'duplicate' for o in twice.project.prepared.lint['rules'])


# ---- directories

def test_a_directory_reads_neither_hidden_entries_nor_what_a_run_wrote(tmp_path):
    for o in ('a.jsonl', '.ipynb_checkpoints/a.jsonl', '.git/a.json', '.a.jsonl', '__pycache__/a.json', 'last_run_prepared/k/a.json', 'made/a.json', 'run/adapter_config.json',
              'run/a.json', 'model/tokenizer.json', 'sub/b.jsonl'): write(tmp_path/o, [dict(text=o)])
    (tmp_path/'made/.segtune').mkdir()
    assert texts(tmp_path) == ['a.jsonl', 'sub/b.jsonl']
    assert all(o in notes(tmp_path) for o in ('last_run_prepared/', 'made/', 'model/'))


def test_links_are_followed_once_and_cycles_end(tmp_path):
    write(tmp_path/'elsewhere/b.jsonl', [dict(text='b')])
    write(tmp_path/'d/a.jsonl', [dict(text='a')])
    (tmp_path/'d/link').symlink_to(tmp_path/'elsewhere')
    (tmp_path/'d/again').symlink_to(tmp_path/'elsewhere')
    (tmp_path/'elsewhere/up').symlink_to(tmp_path/'d')
    (tmp_path/'d/self').symlink_to(tmp_path/'d')
    assert texts(tmp_path/'d') == ['a', 'b']
    (tmp_path/'d/gone.jsonl').symlink_to(tmp_path/'nowhere.jsonl')
    assert 'gone.jsonl: cannot read the file' in message(lambda: texts(tmp_path/'d'))


def test_what_cannot_be_listed_or_read_is_an_error(tmp_path, monkeypatch):
    write(tmp_path/'d/a.jsonl', [dict(text='a')])
    write(tmp_path/'d/locked/b.jsonl', [dict(text='b')])
    scan = os.scandir
    def refuse(path):
        if str(path).endswith('locked'): raise PermissionError(13, 'Permission denied')
        return scan(path)
    monkeypatch.setattr(os, 'scandir', refuse)
    assert 'locked: cannot list the directory (Permission denied)' in message(lambda: texts(tmp_path/'d'))


@pytest.mark.parametrize('path', ['', '\0', 'a\0b.jsonl', 'x'*5000, 'x'*300+'.jsonl', 'a.jsonl/b.jsonl', '/nosuch/place.csv', './nosuch', '/dev/null', 'empty', '~nobody/x.jsonl', 'data.xyz', '['])
def test_odd_paths_are_errors(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    write(Path('a.jsonl'), [dict(text='a')])
    Path('empty').mkdir()
    Path('data.xyz').touch()
    message(lambda: [list(r) for r in find_rows(path)])


@pytest.mark.parametrize('name', [b'caf\xe9.jsonl', b'a\nb.jsonl', b'caf\xe9.parquet', b'caf\xe9.jsonl.gz', b'caf\xe9.arrow', b'\x1b[31m.csv'])
def test_names_that_no_terminal_can_show_are_read_and_shown_safely(tmp_path, name):
    path = tmp_path/os.fsdecode(name)
    make(path, [dict(text='a'), dict(text='b')])
    for r in (*find_rows(str(path)), *find_rows(str(tmp_path))):
        assert [row['text'] for _, row in r] == ['a', 'b']
        assert r.name.encode() and r.name.isprintable() and json.dumps([r.name], ensure_ascii=False).encode()
    path.write_bytes(b'')
    assert message(lambda: [list(r) for r in find_rows(str(path))]).isprintable()


def test_many_small_files_are_cheap(tmp_path):
    "what is done for each file must not grow with their number"
    import time
    for i in range(2000): (tmp_path/f'{i}.jsonl').write_text('{"text": "a"}\n')
    began = time.process_time()
    assert len(texts(tmp_path)) == 2000
    assert time.process_time()-began < 4


# ---- numbers of rows

@pytest.mark.parametrize('text, name, numbers', [
    ('[{"a": 1}, {"a": 2}]', 'd.json record', [1, 2]), ('[\n{"a": 1},\n\n{"a": 2}\n]', 'd.json', [2, 4]), ('[\n  {\n    "a": 1\n  },\n  {"a": 2}]', 'd.json', [2, 5]),
    (' \n[{"a":1},\n{"a":2}]', 'd.json record', [1, 2]), ('[\n{"a":1}, {"a":2},\n{"a":3}]', 'd.json', [2, 3, 4]), ('\ufeff[\r\n{"a":1},\r\n{"a":2}\r\n]', 'd.json', [2, 3]),
    ('{"a": 1}\n\n{"a": 2}', 'd.json', [1, 3])])
def test_a_number_is_a_line_unless_the_name_says_record(tmp_path, monkeypatch, text, name, numbers):
    monkeypatch.chdir(tmp_path)
    Path('d.json').write_bytes(text.encode())
    r, = find_rows('d.json')
    assert (r.name, [n for n, _ in r]) == (name, numbers)
    assert place_name('d.json') == name


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
json_values = st.recursive(scalars, lambda o: st.lists(o, max_size=3) | st.dictionaries(st.text(), o, max_size=3),
                           max_leaves=8)


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.text(st.characters(exclude_categories=['Cs'])), json_values, max_size=3),
                min_size=1, max_size=8), st.sampled_from([None, 1]), st.booleans(), st.integers(1, 200))
def test_a_list_read_in_pieces_is_the_list(tmp_path_factory, rows, indent, ascii, size):
    import io
    text = json.dumps(rows, indent=indent, ensure_ascii=ascii)
    try: data = text.encode()
    except UnicodeEncodeError: return
    assert [o for _, o, _ in json_rows._values(json_rows._Text(io.BytesIO(data), size))] == rows


def test_a_broken_list_is_named_with_its_line(tmp_path):
    good = [json.dumps(dict(text='x'*50))]*2000
    for k, bad in ((3, '{"text" "a"}'), (1500, '{"text": "a}'), (1999, '{"text": tru}')):
        (tmp_path/'d.json').write_text('[\n'+',\n'.join([*good[:k], bad, *good[k:]])+'\n]')
        assert f'd.json:{k+2}: invalid JSON' in message(lambda: list(read_file(tmp_path/'d.json')))
    for text in ('[{"a": 1}', '[{"a": 1},', '[{"a": 1},]', '[{"a": 1}] x', '[', '[{"a": 1} {"a": 2}]', '['*100_000, '[{"a": "\xff"}]'.replace('\xff', '\udcff'), '[{"a": '+'9'*5000+'}]', '[]', '[ ]'):
        (tmp_path/'d.json').write_bytes(text.encode(errors='surrogateescape'))
        assert message(lambda: list(read_file(tmp_path/'d.json'))).startswith(f'{tmp_path}/d.json')


# ---- the fast reader of JSON lines

def strict_rows(lines):
    "What the strict reader alone makes of lines"
    for n, line in enumerate(lines, 1):
        if n == 1: line = line.removeprefix(b'\xef\xbb\xbf')
        wrong = ''
        try: row = parse_line(line, 'd.jsonl', n)
        except DataError as e: row, wrong = 'wrong', str(e)
        if wrong and line.strip() == b'{': return (yield f'd.jsonl:{n}: the object goes over several lines. Write each object on one line, or all of them as a list.')
        if row is not None: yield row if type(row) is dict else wrong or f'd.jsonl:{n}: expected an object, got {json_type(row)}. Each row is one object.'


def read_rows(lines):
    try: yield from (o if type(o) is dict else str(o) for _, o in json_rows.read_lines(iter(lines), 'd.jsonl'))
    except DataError as e: yield str(e)


HOSTILE = [b'{"a": 1, "a": 2}', b'{"a": {"b": 1}, "a": {}}', b'{"a":1,"a" :2}', b'{"a":1,"a"\t:2}', b'{"a\\\\":1,"a\\\\":2}', b'{"a\\u0022:":1,"a\\":":2}', b'{"\\u0061":1,"a":2}',
           b'{"a":":","a":1}', b'{":":1}', b'{"":1,"":2}', b'{"a": NaN}', b'{"a": -Infinity}', b'{"a": 1e999}', b'{"a": 18446744073709551616}', b'{"a": -9223372036854775809}',
           b'{"a": 9223372036854775808}', b'{"a": 1.5e19}', b'{"a": -0}', b'{"a": -0.0}', b'{"a": '+b'9'*5000+b'}', b'{"a": 0.'+b'1'*400+b'}', b'{"a": 5e-324}', b'{"a": 01}', b'{"a": 1.}',
           b'{"a": "\\ud800"}', b'{"a": "\\ud83d\\ude00"}', b'{"\\udc00": 1}', b'{"a": "\xed\xa0\x80"}', b'{"a": "\xff"}', b'{"a": "\x00"}', b'{"a": "\\u0000"}', b'{"a": "\x7f"}',
           b'\xef\xbb\xbf{"a": 1}', b'{"a": 1}\x0c', b'\x0b{"a": 1}', b'{"a": 1} {"b": 2}', b'{"a": 1},', b'{"a": [1,]}', b"{'a': 1}", b'{"a": 1', b'{', b'', b' \t', b'null', b'[1]', b'3', b'"a"',
           *(b'{"a": '+b'['*k+b']'*k+b'}' for k in (50, 99, 101, 500, 1100, 100_000)), *(b'{"a": '*k+b'1'+b'}'*k for k in (50, 101, 500)), b'{"a": [1, 2.5, "x", null, true, [3e300]]}']


@pytest.mark.parametrize('line', HOSTILE, ids=range(len(HOSTILE)))
def test_the_fast_reader_of_a_hostile_line_says_what_the_strict_one_says(line):
    assert repr([*read_rows([line+b'\n', b'{"b": 1}'])]) == repr([*strict_rows([line+b'\n', b'{"b": 1}'])])


pieces = st.sampled_from([b'{', b'}', b'[', b']', b',', b':', b'"', b'"a"', b'"b":', b'"a" :', b'"a": 1', b'\\', b'\\\\', b'\\"', b'\\u0022', b'\\ud800', b'\\ude00', b'\\u0061', b'NaN',
                          b'null', b'1', b'-', b'.5', b'e9', b'e400', b'9'*20, b' ', b'\t', b'\r', b'\x00', b'\x0c', b'\xff', b'\xc3\xa9', b'\xef\xbb\xbf'])
texts_of_json = json_values.map(lambda o: json.dumps(o, ensure_ascii=bool(len(str(o)) % 2)).encode(errors='surrogatepass'))
objects_as_written = st.lists(st.tuples(st.sampled_from(['a', 'b', '":', '\\', 'a" :']) | st.text(max_size=3), texts_of_json, st.sampled_from([b':', b': ', b' :', b'\t:'])), max_size=4).map(
    lambda o: b'{'+b', '.join(json.dumps(k).encode()+c+v for k, v, c in o)+b'}')


@settings(max_examples=400, deadline=None)
@given(objects_as_written | texts_of_json | st.lists(pieces, max_size=12).map(b''.join),
       st.lists(st.tuples(st.integers(0, 200), st.integers(0, 2), st.binary(max_size=2) | pieces), max_size=2))
def test_the_fast_reader_of_lines_gives_what_the_strict_one_gives(line, changes):
    for at, n, new in changes: line = line[:at]+new+line[at+n:]
    lines = line.split(b'\n')
    assert repr([*read_rows(lines)]) == repr([*strict_rows(lines)])


def test_ordinary_rows_need_no_second_reader(monkeypatch):
    monkeypatch.setattr(json_rows, 'parse_line', None)
    rows = [dict(segments=[dict(label=False, text='says: "no" \\ \n {"a": 1}'), dict(label=True, text='caf\u00e9 \U0001f600')]), dict(input_ids=[*range(2000)], x=0.25), {}]
    for ascii in (False, True):
        assert [*read_rows([json.dumps(o, ensure_ascii=ascii).encode()+b'\r\n' for o in rows])] == rows


# ---- wrong rows

WRONG = {
    'd.jsonl': '{"text": "a"}\n[1]\n{"text": "\\ud800"}\n{"text": "a", "text": "b"}\nnull\n{"text"\n{"a": '+'9'*5000+'}\n{"text": "b"}\n',
    'd.json': '[{"text": "a"}, [1], {"text": "\\ud800"}, {"text": "a", "text": "b"}, null, 3, "x", {"text": "b"}]',
    'd.csv': 'text,b\na,1\nonly one\nthree,2,3\n"x"y,2\n,,,\n"a""",\n"\n",,\nb,2\n'.replace('"a""",\n', '1,2,3\n'),
}


@pytest.mark.parametrize('name', WRONG)
def test_all_wrong_rows_are_told_in_one_go_or_left_out_and_told(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(WRONG[name])
    make = lambda n, row: row['text']
    with pytest.raises(DataError) as e: list(sift(read_each(name), make))
    assert f'6 rows of {name} are wrong. Correct them, or leave them out with on_bad: skip.' in str(e.value) and len(str(e.value).splitlines()) == 7
    told = []
    kept = [o for _, o in sift(read_each(name), make, 'skip', lambda n, e: told.append((n, e)))]
    assert kept == ['a', 'b'] and len(told) == 6 and all(e.row == n and e.source.startswith(name) for n, e in told)
    assert count_rows(name) == 8


def test_the_first_twenty_of_many_mistakes_are_shown_with_their_number(tmp_path):
    path = write(tmp_path/'d.jsonl', [dict(text=None)]*300)
    def make(n, row): raise DataError('expected a string, got null.', source='d.jsonl', row=n, field='text')
    with pytest.raises(DataError) as e: list(sift(read_each(path), make))
    lines = str(e.value).splitlines()
    assert lines[0] == 'd.jsonl:1 text: expected a string, got null.' and lines[19].startswith('d.jsonl:20 ') and len(lines) == 21
    assert lines[20] == '300 rows of d.jsonl are wrong; the first 20 are shown. Correct them, or leave them out with on_bad: skip.'
    assert (e.value.source, e.value.row, e.value.field) == ('d.jsonl', 1, 'text')
    with pytest.raises(ConfigError, match='expected error or skip'): list(sift(read_each(path), make, 'drop'))


@pytest.mark.parametrize('where', ['{"text": "%s"}', '{"%s": 1}', '{"a": [{"b": "%s"}]}', '{"a": {"%s": 1}}', '{"conversations": [{"from": "human", "value": "x %s"}]}'])
@pytest.mark.parametrize('form', ['%s\n', '[%s]', '[\n%s\n]'])
def test_half_a_character_anywhere_in_a_row_is_refused(tmp_path, where, form):
    for half in ('\\ud800', '\\uDFFF', 'a\\udc00b', '\\ud83d \\ude00'):
        (tmp_path/'d.json').write_text(form % (where % half))
        assert 'is a lone surrogate' in message(lambda: list(read_file(tmp_path/'d.json')))
    (tmp_path/'d.json').write_text(form % (where % '\\ud83d\\ude00'))
    assert '\U0001f600' in str([*read_file(tmp_path/'d.json')])


# ---- odd files

ODD = {
    'quote.csv': (b'a,"b\n1,2\n', 'ends within a quoted cell'), 'head.csv': (b'"a"b,c\n1,2\n', 'invalid CSV'), 'twice.csv': (b'a,b,a\n1,2,3\n', "the column 'a' is given twice"),
    'twice.tsv': (b'a\ta\n1\t2\n', "the column 'a' is given twice"), 'noname.csv': (b',,\n1,2,3\n', 'two columns have no name'), 'empty.csv': (b'', 'no rows'), 'onlyhead.csv': (b'a,b\n', 'no rows'),
    'blank.csv': (b'\n\n', 'no rows'), 'latin.csv': (b'a\ncaf\xe9\n', 'invalid UTF-8'), 'utf16.csv': ('a,b\n1,2\n'.encode('utf-16'), 'invalid UTF-8'), 'open.csv': (b'a,b\n1,2\n"3,4\n5,6\n', ':3: the file ends within'),
    'bad.parquet': (b'PAR1 not really', 'd'), 'empty.parquet': (b'', 'd'), 'bad.arrow': (b'ARROW1 not really', 'd'), 'empty.arrow': (b'', 'd'), 'noise.arrow': (bytes(range(200)), 'd'),
    'bad.jsonl.gz': (b'not gz at all', 'd'), 'empty.jsonl.gz': (b'', 'd'), 'bad.jsonl.zst': (b'not zst', 'd'), 'bad.jsonl.bz2': (b'not bz2', 'd'), 'bad.jsonl.lz4': (b'nope', 'd'),
    'spread.json': (b'{\n "a": 1\n}\n', ':1: the object goes over several lines'), 'utf16.jsonl': ('{"a": 1}'.encode('utf-16'), 'invalid UTF-8'), 'latin.txt': (b'caf\xe9\n', 'invalid UTF-8'), 'nul.jsonl': (b'\0\0\0\n', 'invalid JSON'), 'twice.json': (b'[{"a": 1, "a": 2}]', "key 'a' is given twice"),
}


@pytest.mark.parametrize('name', ODD)
def test_odd_files_end_in_one_clear_sentence(tmp_path, name):
    data, said = ODD[name]
    (tmp_path/name).write_bytes(data)
    found = message(lambda: list(read_file(tmp_path/name)))
    assert found.startswith(str(tmp_path/name)) and said in found


@pytest.mark.parametrize('name', ['d.jsonl.gz', 'd.jsonl.bz2', 'd.jsonl.zst', 'd.jsonl.lz4', 'd.parquet', 'd.arrow', 'd.json', 'd.csv', 'd.jsonl'])
def test_no_cut_and_no_flipped_byte_of_a_file_ends_in_a_traceback(tmp_path, name):
    import pyarrow as pa
    rows = [dict(text=f'row {i} '*5, n=[i, i+1]) for i in range(200)]
    lines = ''.join(json.dumps(o)+'\n' for o in rows).encode()
    path, dice = tmp_path/name, random.Random(name)
    if path.suffix in ('.parquet', '.csv', '.arrow', '.json'): make(path, rows)
    elif path.suffix == '.jsonl': path.write_bytes(lines)
    else:
        with pa.CompressedOutputStream(str(path), dict(gz='gzip', bz2='bz2', zst='zstd', lz4='lz4')[path.suffix[1:]]) as f: f.write(lines)
    whole = path.read_bytes()
    assert len(list(read_file(path))) == 200
    for k in range(60):
        at = dice.randrange(len(whole))
        path.write_bytes(whole[:at] if k % 2 else whole[:at]+bytes([whole[at] ^ (1 << dice.randrange(8))])+whole[at+1:])
        try: n = len(list(read_file(path)))
        except SegtuneError as e: assert str(e).startswith(str(path))
        else: assert k % 2 == 0 or path.suffix not in ('.gz', '.bz2', '.zst', '.lz4', '.parquet', '.json') or at > len(whole)-30, f'{n} rows of a file cut at {at} of {len(whole)}'


@pytest.mark.parametrize('seed', range(4))
def test_mutated_files_give_rows_or_one_clear_error(tmp_path, monkeypatch, seed):
    monkeypatch.chdir(tmp_path)
    rows, dice, whole = [dict(instruction=f'Name \u00e9 {i}', output='x\n"q"', n=[dict(a=[i])]) for i in range(12)], random.Random(seed), {}
    for name in ('a.jsonl', 'a.json', 'a.csv', 'a.parquet', 'a.arrow'):
        make(Path(name), rows)
        whole[name] = Path(name).read_bytes()
    odd = [b'{', b'}', b'[', b']', b'"', b',', b'\n', b'\\', b'\\ud800', b'\xff', b'\0', b':', b'null', b'1e999', b'\r', b'\xef\xbb\xbf', b'['*200, b'9'*5000]
    for _ in range(100):
        name = dice.choice(list(whole))
        data = bytearray(whole[name])
        for _ in range(dice.randrange(1, 5)):
            at = dice.randrange(len(data)+1)
            data[at:at+dice.choice((0, 0, 1, 30))] = dice.choice([*odd, b'', bytes([dice.randrange(256)])])
        Path(name).write_bytes(data)
        for on_bad in ('error', 'skip'):
            try:
                for r in find_rows(name, **dice.choice([{}, dict(split='train[2:5]'), dict(shards=2), dict(skip=3)])):
                    for o in sift(r.read(), lambda n, row: json.dumps(row, default=str), on_bad): assert o
            except SegtuneError as e: assert str(e).startswith(name) and str(e).encode()


def test_columns_whose_name_is_no_text_are_refused(tmp_path):
    make(tmp_path/'d.arrow', [dict(abcdefgh=1)])
    data = (tmp_path/'d.arrow').read_bytes()
    (tmp_path/'d.arrow').write_bytes(data.replace(b'abcdefgh', b'abc\xffefgh'))
    assert 'invalid Arrow data' in message(texts, tmp_path/'d.arrow')


def test_compressed_files_in_several_parts_are_read_whole(tmp_path):
    for name, squeeze in (('d.jsonl.gz', gzip.compress), ('d.jsonl.bz2', bz2.compress)):
        (tmp_path/name).write_bytes(b''.join(squeeze(b'{"text": "%d"}\n' % i) for i in range(5)))
        assert texts(tmp_path/name) == list('01234')


def test_long_cells_are_read(tmp_path):
    (tmp_path/'d.csv').write_text('text\n'+'x'*1_000_000+'\n"'+'y\n'*200_000+'"\n')
    assert [len(row['text']) for _, row in read_file(tmp_path/'d.csv')] == [1_000_000, 400_000]


def test_columns_given_twice_are_refused_in_every_table(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq
    t = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=['a', 'a'])
    pq.write_table(t, tmp_path/'d.parquet')
    with pa.OSFile(str(tmp_path/'d.arrow'), 'wb') as f, pa.ipc.new_file(f, t.schema) as out: out.write_table(t)
    for name in ('d.parquet', 'd.arrow'): assert "the column 'a' is given twice" in message(texts, tmp_path/name)
    inner = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=['a', 'a'])
    pq.write_table(pa.table({'s': inner}), tmp_path/'d.parquet')
    message(lambda: list(read_file(tmp_path/'d.parquet')))


def test_odd_values_of_a_table_are_read_or_refused_row_by_row(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq
    columns = dict(decimal=pa.array([Decimal('1.5'), None]), large=pa.array([['a'], []], pa.large_list(pa.large_string())), map=pa.array([[('k', 'v')], []], pa.map_(pa.string(), pa.string())),
                   nested=pa.array([dict(a=dict(b=[1])), None]), words=pa.array(['a', 'b']).dictionary_encode(), when=pa.array([datetime(2020, 1, 1), None]), data=pa.array([b'\xff', b'']), null=pa.nulls(2))
    pq.write_table(pa.table(columns), tmp_path/'d.parquet')
    (_, row), (_, last) = read_file(tmp_path/'d.parquet')
    assert row['large'] == ['a'] and row['nested'] == dict(a=dict(b=[1])) and row['words'] == 'a' and last['decimal'] is None
    broken = pa.Array.from_buffers(pa.string(), 3, pa.array([b'a', b'\xff\xfe', b'c']).buffers())
    far = pa.array([0, 2**62, 1], pa.timestamp('us'))
    for column in (broken, far, pa.array([0, 2**30, 1], pa.int32()).cast(pa.date32())):
        pq.write_table(pa.table(dict(text=pa.array(['a', 'b', 'c']), odd=column)), tmp_path/'d.parquet', coerce_timestamps=None)
        rows = list(read_each(tmp_path/'d.parquet'))
        assert [isinstance(o, DataError) for _, o in rows] == [False, True, False] and [n for n, _ in rows] == [1, 2, 3]
        assert 'd.parquet:2: a value cannot be read' in message(lambda: list(read_file(tmp_path/'d.parquet')))


# ---- files that change

def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path):
    path = write(tmp_path/'d.jsonl', [dict(text='a')])
    def later(): os.utime(path, ns=(1, 10**18))
    for old in (False, True):
        if old: later()
        stamp = stamp_of(path)
        check_unchanged([stamp])
        times = path.stat()
        path.write_text(path.read_text().replace('a"', 'b"') if old else path.read_text()+'{"text": "c"}\n')
        assert 'd.jsonl: the file changed while it was read' in message(check_unchanged, [stamp])
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    stamp = stamp_of(path)
    path.unlink()
    assert 'changed' in message(check_unchanged, [stamp])
    assert 'cannot read the file' in message(lambda: stamp_of(path))


def large(path, word='one', at=1):
    path.write_bytes(f'{{"text": "{word}"}}\n'.encode()*700_000)
    os.utime(path, (at, at))
    return path


def later(folder):
    "As if the record had been made a while after the last change"
    record = json.loads((folder/'.files.json').read_text())
    for o in record.values(): o['at'] += 10**10
    (folder/'.files.json').write_text(json.dumps(record))


def test_a_large_file_that_did_not_change_is_not_read_again(tmp_path, monkeypatch):
    path, small = large(tmp_path/'d.jsonl'), write(tmp_path/'s.jsonl', [dict(text='a')])
    os.utime(small, (1, 1))
    stamps = FileStamps(tmp_path)
    digest = stamps[path].digest, stamps[small].digest
    stamps.save()
    assert list(json.loads((tmp_path/'.files.json').read_text())) == [str(path)]
    read = []
    monkeypatch.setattr('segtune.data.stamps.digest_of', lambda p, own=digest_of: read.append(Path(p).name) or own(p))
    assert FileStamps(tmp_path)[path].digest == digest[0] and read == ['d.jsonl'], 'the record is not older than the last change of the file'
    later(tmp_path)
    read.clear()
    again = FileStamps(tmp_path)
    assert (again[path].digest, again[small].digest) == digest and read == ['s.jsonl']
    check_unchanged(again.values())
    forget_files(tmp_path)
    assert FileStamps(tmp_path)[path].digest == digest[0] and read[-1] == 'd.jsonl'


@pytest.mark.parametrize('how', ['content', 'replaced', 'touched', 'shorter'])
def test_a_large_file_that_left_a_trace_of_change_is_read_again(tmp_path, how):
    path = large(tmp_path/'d.jsonl')
    stamps = FileStamps(tmp_path)
    before = stamps[path].digest
    stamps.save()
    later(tmp_path)
    if how == 'content': large(path, 'two')
    if how == 'replaced': large(tmp_path/'new', 'two').replace(path)
    if how == 'touched': large(path, 'two', at=2)
    if how == 'shorter': path.write_bytes(path.read_bytes()[:-15])
    assert FileStamps(tmp_path)[path].digest == digest_of(path) != before


@pytest.mark.parametrize('record', ['', '[]', '{', '{"%s": 5}', '{"%s": {"traces": [1], "digest": "x", "at": 5}}', '{"%s": {"traces": null}}'])
def test_a_damaged_record_of_files_is_no_record(tmp_path, record):
    path = large(tmp_path/'d.jsonl')
    (tmp_path/'.files.json').write_text(record.replace('%s', str(path)))
    assert FileStamps(tmp_path)[path].digest == digest_of(path)


# ---- addresses

@pytest.fixture
def server():
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            data = b'[{"text": "a"}, {"text": "b"}]' if '.json?' in self.path or self.path.endswith('.json') else b'{"text": "a"}\n{"text": "b"}\n'
            if self.path == '/gone.jsonl': self.connection.close(); return
            self.send_response({'/none.jsonl': 404, '/broken.jsonl': 500, '/moved.jsonl': 302, '/round.jsonl': 302, '/no.jsonl': 403}.get(self.path, 200))
            for k, to in {'/moved.jsonl': '/d.jsonl', '/round.jsonl': '/round.jsonl'}.items():
                if self.path == k: self.send_header('Location', to)
            if 'unsized' not in self.path: self.send_header('Content-Length', str(len(data)+9*(self.path == '/cut.jsonl')))
            self.end_headers()
            self.wfile.write(data)
        def log_message(self, *args): pass
    s = HTTPServer(('127.0.0.1', 0), Answer)
    threading.Thread(target=s.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{s.server_port}'
    s.shutdown()


@pytest.mark.parametrize('path', ['d.jsonl', 'd.json', 'moved.jsonl', 'd.jsonl?download=true', 'unsized.jsonl', 'a b é.jsonl'])
def test_addresses_are_read(server, path):
    r, = find_rows(f'{server}/{path}')
    assert [row['text'] for _, row in r] == ['a', 'b'] and r.name.startswith(server)
    assert texts(f'{server}/{path}', split='train[1:]') == ['b']
    assert "not 'test'" in message(lambda: texts(f'{server}/{path}', split='test'))


@pytest.mark.parametrize('path, said', [('none.jsonl', '404'), ('broken.jsonl', '500'), ('no.jsonl', '403'), ('cut.jsonl', 'broke after 28 of 37 bytes'), ('gone.jsonl', 'cannot be fetched'), ('round.jsonl', 'redirect')])
def test_addresses_that_fail_say_why(server, path, said):
    assert said in message(lambda: find_rows(f'{server}/{path}'))


def test_odd_addresses_are_errors(tmp_path):
    for url in ('http://127.0.0.1:1/d.jsonl', 'http://', 'http://[', 'nosuch://x/d.jsonl', 'https:///d.jsonl', 'http://127.0.0.1:99999/d.jsonl'):
        assert 'secret' not in message(find_rows, url)
    assert 'secret' not in message(lambda: find_rows('http://me:secret@127.0.0.1:1/d.jsonl'))
    if importlib.util.find_spec('s3fs') is None:
        with pytest.raises(MissingError, match='s3fs'): find_rows('s3://bucket/d.jsonl')
    assert texts(f'file://{write(tmp_path/"d.jsonl", [dict(text="a")])}') == ['a']


# ---- the whole way

def run(d, *more):
    return subprocess.run([sys.executable, '-c', 'from segtune.cli import main; main()', 'preprocess', 'c.yml', *more], cwd=d, capture_output=True, text=True)


def test_preprocess_says_which_split_it_took_and_which_rows_are_wrong(tmp_path):
    write(tmp_path/'d/test.jsonl', [dict(text='held out')])
    path = write(tmp_path/'d/train.jsonl', [dict(text='one two three'), dict(text=None), dict(text='four five six')])
    path.write_text(path.read_text()+'{"text": "cut')
    (tmp_path/'c.yml').write_text('base_model: segtune/gpt2\ndatasets: [{path: d, type: text}]\n')
    refused = run(tmp_path)
    assert refused.returncode == 2 and 'note: d: has the splits train, test; train is read' in refused.stderr
    assert 'd/train.jsonl:2 text: ' in refused.stderr and 'd/train.jsonl:4: invalid JSON at column 10' in refused.stderr and '2 rows of d/train.jsonl are wrong' in refused.stderr
    skipped = run(tmp_path, '--set', 'on_bad=skip')
    assert skipped.returncode == 0 and '2 rows, ' in skipped.stdout and '2 rows dropped' in skipped.stdout


@pytest.mark.parametrize('constant', ['NaN', 'Infinity', '-Infinity'])
@pytest.mark.parametrize('text', ['{"a": %s}\n{"a": 1}\n', '[{"a": [%s]}, {"a": 1}]', '[\n{"a": {"b": %s}},\n{"a": 1}\n]'])
def test_constants_that_json_does_not_have_are_refused_row_by_row(tmp_path, text, constant):
    path = tmp_path/'a.json'
    path.write_text(text % constant)
    [wrong, right] = [o for _, o in read_each(path)]
    assert right == {'a': 1} and f'{constant} is no JSON value. Write null, a number or a string.' in str(wrong)
