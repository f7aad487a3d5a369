"Edits of a project: is the prepared data found, and if not, what is said to have changed?"
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import segtune.data.prepare as preparing
from segtune.data.cache import claimed
from segtune.data.manifest import prepared_sets, remove_set
from segtune.models import bundled
from segtune.project import Project

FORMATS = '''from pathlib import Path
from wording import question

ENDING = '.'
names = (Path(__file__).parent/'names.txt').read_text()

def clean(row): return [(question(row), False), (row['a']+ENDING, True)]

def other(row): return [(question(row), False), (row['a'], True)]
'''


def make(d):
    "A project with two datasets, one of them read by a function of the user's"
    d.mkdir()
    alpaca = [dict(instruction=f'{i}?', output=f'{i}.') for i in range(6)]
    own = [dict(q=f'{i}?', a=f'{i}') for i in range(6)]
    for name, rows in dict(data=alpaca, own=own, more=alpaca[:2]).items():
        (d/f'{name}.jsonl').write_text(''.join(json.dumps(o)+'\n' for o in rows))
    (d/'my_formats.py').write_text(FORMATS)
    (d/'wording.py').write_text('def question(row): return row["q"]\n')
    (d/'names.txt').write_text('Ada\n')
    entries = [dict(path='data.jsonl', type='alpaca'), dict(path='own.jsonl', type='my_formats.clean')]
    write(d, dict(base_model=str(bundled('gpt2')), sequence_len=896, datasets=entries))
    return d


def write(d, cfg): (d/'config.yml').write_text(yaml.safe_dump(cfg, sort_keys=False))


def key(**new): # of the config
    def edit(d):
        cfg = yaml.safe_load((d/'config.yml').read_text())
        write(d, {**cfg, **new})
    return edit


def entry(i, **new): # of a dataset entry
    def edit(d):
        cfg = yaml.safe_load((d/'config.yml').read_text())
        cfg['datasets'][i].update(new)
        write(d, cfg)
    return edit


def entries(change):
    def edit(d):
        cfg = yaml.safe_load((d/'config.yml').read_text())
        cfg['datasets'] = change(cfg['datasets'])
        write(d, cfg)
    return edit


def text(name, old, new):
    def edit(d):
        before = (d/name).read_text()
        assert old in before
        (d/name).write_text(before.replace(old, new))
    return edit


def rename(d):
    (d/'data.jsonl').rename(d/'renamed.jsonl')
    entry(0, path='renamed.jsonl')(d)


def swap_rows(d): (d/'data.jsonl').write_text(''.join(reversed((d/'data.jsonl').read_text().splitlines(True))))


def damage(d):
    (file,) = (d/'last_run_prepared').glob('*/data-*.arrow')
    os.truncate(file, 20)


HITS = {
    'nothing': lambda d: None, 'learning rate': key(learning_rate=1e-3), 'output directory': key(output_dir='elsewhere'),
    'seed': key(seed=7), 'held-out share': key(val_set_size=0.2), 'silenced rule': key(lint_silence=['no-eos']),
    'processes': key(dataset_num_proc=1), 'epochs': key(num_epochs=3), 'packing': key(sample_packing=True),
    'time of the file': lambda d: os.utime(d/'data.jsonl', (1, 1)), 'name of the file': rename,
    'a comment in the config': text('config.yml', 'sequence_len', '# longest\nsequence_len'),
    'a blank key': key(min_sample_len=None), 'a default written out': key(on_bad='error', train_on_inputs=False),
    "the type's own boundary": entry(0, boundary='axolotl'),
    'a module that nobody imports': lambda d: (d/'unused.py').write_text('x = 1\n'),
    'the file is read again for a key of training': key(micro_batch_size=4),
}
MISSES = {
    'a byte': (text('data.jsonl', '3.', '4.'), ['data.jsonl changed']),
    'a row more': (text('own.jsonl', '{"q": "5?"', '{"q": "n?", "a": ""}\n{"q": "5?"'), ['own.jsonl changed']),
    'rows in another order': (swap_rows, ['data.jsonl changed']),
    'both files': (lambda d: (swap_rows(d), text('own.jsonl', '5', '55')(d)), ['data.jsonl changed', 'own.jsonl changed']),
    'sequence_len': (key(sequence_len=1024), ['sequence_len 896 -> 1024']),
    'on_long': (key(on_long='cut'), ['on_long drop -> cut']),
    'its name in axolotl': (key(excess_length_strategy='truncate'), ['on_long drop -> cut']),
    'min_sample_len': (key(min_sample_len=2), ['min_sample_len none -> 2']),
    'deduplication': (key(dataset_exact_deduplication=True), ['dataset_exact_deduplication false -> true']),
    'on_bad': (key(on_bad='skip'), ['on_bad error -> skip']),
    'two options': (key(on_bad='skip', sequence_len=64), ['sequence_len 896 -> 64', 'on_bad error -> skip']),
    'train_on_inputs': (key(train_on_inputs=True), ['data.jsonl: train_on_inputs false -> true', 'own.jsonl: train_on_inputs false -> true']),
    'boundary': (entry(0, boundary='split'), ['data.jsonl: boundary axolotl -> split']),
    'special_in_data': (entry(1, special_in_data='parse'), ['own.jsonl: special_in_data literal -> parse']),
    'type': (entry(0, type='alpaca_chat'), ['data.jsonl: type alpaca -> alpaca_chat']),
    'another function': (entry(1, type='my_formats.other'), ['own.jsonl: type my_formats.clean -> my_formats.other']),
    'special token': (key(special_tokens=dict(pad_token='<pad>')), ['the tokenizer, special_tokens or tokens changed']),
    'tokens': (key(tokens=['<extra>']), ['the tokenizer, special_tokens or tokens changed']),
    'the model': (key(base_model=str(bundled('mistral-v0.1'))), [f'tokenizer {bundled("gpt2")} -> {bundled("mistral-v0.1")}']),
    'the function': (text('my_formats.py', "row['a']+ENDING", "row['a'].strip()+ENDING"), ['my_formats.py: clean() changed']),
    'a function it calls': (text('wording.py', 'row["q"]', 'row["q"].strip()'), ['wording.py: question() changed']),
    'a constant': (text('my_formats.py', "ENDING = '.'", "ENDING = '!'"), ['my_formats.py: ENDING changed']),
    'a comment': (text('my_formats.py', 'def clean', '# cleans\ndef clean'), ['my_formats.py changed']),
    'a file it reads': (text('names.txt', 'Ada', 'Bea'), ['names.txt changed']),
    'a version by hand': (entry(1, version='2'), ['own.jsonl: version none -> 2']),
    'a dataset more': (entries(lambda o: [*o, dict(path='more.jsonl', type='alpaca')]), ['more.jsonl added']),
    'a dataset less': (entries(lambda o: o[:1]), ['own.jsonl left out']),
    'the order of datasets': (entries(lambda o: o[::-1]), ['the order of the sources changed']),
    'skip': (entry(0, skip=1), ['data.jsonl: rows none -> [1, 6]']),
    'split': (entry(0, split='train[:2]'), ['data.jsonl: rows none -> [0, 2]']),
    'shards': (entry(0, shards=2), ['data.jsonl: shard none -> [2, 0, 42, 0, 6]']),
    'a damaged file': (damage, ['a file of the prepared data is missing or damaged']),
}


def prepared(d):
    os.chdir(d)
    p = Project.open('config.yml').prepared
    return p.from_cache, p.why


@pytest.fixture(autouse=True)
def come_back(monkeypatch, tmp_path): monkeypatch.chdir(tmp_path)


def test_the_table_has_forty_edits_and_more(): assert len(HITS)+len(MISSES) >= 40


@pytest.mark.parametrize('what', list(HITS))
def test_an_edit_that_changes_no_token_finds_the_data(tmp_path, what):
    d = make(tmp_path/'project')
    assert prepared(d) == (False, None)
    HITS[what](d)
    assert prepared(d) == (True, None)


@pytest.mark.parametrize('what', list(MISSES))
def test_an_edit_that_changes_tokens_is_named(tmp_path, what):
    edit, why = MISSES[what]
    d = make(tmp_path/'project')
    prepared(d)
    edit(d)
    assert prepared(d) == (False, why)
    assert prepared(d) == (True, None)


def test_a_module_that_another_one_imports_is_read_again(tmp_path):
    "in one process, as in a notebook"
    from segtune.data.lineage import read_rows
    d = make(tmp_path/'project')
    def last():
        os.chdir(d)
        project = Project.open('config.yml')
        return project.tokenizer.decode(read_rows(project.prepared.path, [11])[0][0])
    assert last() == '5?5.'
    text('wording.py', 'row["q"]', '"Q: "+row["q"]')(d)
    assert last() == 'Q: 5?5.'


def test_a_project_that_was_moved_is_found_ready(tmp_path):
    prepared(make(tmp_path/'here'))
    shutil.copytree(tmp_path/'here', tmp_path/'there')
    assert prepared(tmp_path/'there') == (True, None)


@pytest.mark.parametrize('what, said', [('library', 'jinja2 3.1.6 -> 99'), ('code', "segtune's code changed")])
def test_other_code_is_named(tmp_path, monkeypatch, what, said):
    d = make(tmp_path/'project')
    if what == 'library': monkeypatch.setattr(preparing, 'installed_version', lambda o: '3.1.6' if o == 'jinja2' else '1')
    prepared(d)
    if what == 'library': monkeypatch.setattr(preparing, 'installed_version', lambda o: '99' if o == 'jinja2' else '1')
    else: monkeypatch.setattr(preparing, 'token_code', lambda o: 'other code')
    assert prepared(d) == (False, [said])


def test_the_most_similar_of_several_is_taken(tmp_path):
    d = make(tmp_path/'project')
    for n in (64, 128): key(sequence_len=n)(d), prepared(d)
    key(sequence_len=128, on_bad='skip')(d)
    assert prepared(d) == (False, ['on_bad error -> skip'])
    (d/'unlike.jsonl').write_text(json.dumps(dict(instruction='x', output='y'))+'\n')
    entries(lambda o: [dict(path='unlike.jsonl', type='alpaca')])(d)
    assert prepared(d) == (False, None), 'other data altogether is nothing to compare with'


def run(d, *command):
    return subprocess.run([sys.executable, '-c', 'from segtune.cli import main; main()', *command], cwd=d, capture_output=True, text=True)


def test_the_command_line_says_why_and_lists_explains_and_clears(tmp_path):
    d = make(tmp_path/'project')
    assert 'nothing like it is there' in run(d, 'cache', 'explain', 'config.yml').stdout
    assert 'anew' not in run(d, 'preprocess', 'config.yml').stderr
    text('my_formats.py', "row['a']+ENDING", "row['a'].strip()+ENDING")(d)
    key(sequence_len=1024)(d)
    out = run(d, 'cache', 'explain', 'config.yml').stdout
    assert out.startswith('train: not prepared') and 'my_formats.py: clean() changed' in out and 'sequence_len 896 -> 1024' in out
    said = run(d, 'preprocess', 'config.yml')
    assert 'note: train: prepared anew: my_formats.py: clean() changed; sequence_len 896 -> 1024' in said.stderr.replace('own.jsonl: ', '')
    assert 'train: ready' in run(d, 'cache', 'explain', 'config.yml').stdout
    assert '2 in ' in run(d, 'cache', 'list', 'config.yml').stdout
    assert '1 of 2 in ' in run(d, 'cache', 'clear', 'config.yml').stdout
    assert 'found ready' in run(d, 'preprocess', 'config.yml').stdout
    assert '1 of 1 in ' in run(d, 'cache', 'clear', 'config.yml', '--all').stdout
    assert os.listdir(d/'last_run_prepared') == []
    wrong = run(d, 'cache', 'drop', 'config.yml')
    assert wrong.returncode == 2 and "expected list, explain or clear, got 'drop'" in wrong.stderr
    wrong = run(d, 'cache', 'list', 'config.yml', '--all')
    assert wrong.returncode == 2 and '--all: is for clear. Remove it from list.' in wrong.stderr


def test_what_is_being_made_is_not_removed(tmp_path):
    d = make(tmp_path/'project')
    prepared(d)
    (one,) = prepared_sets(d/'last_run_prepared')
    code = f'import time; from pathlib import Path; from segtune.data.cache import claimed\nwith claimed(Path({str(one.path)!r})): print("held", flush=True); time.sleep(60)'
    holder = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == 'held\n'
    assert not remove_set(one) and one.path.exists()
    holder.kill(), holder.wait()
    assert remove_set(one) and not one.path.exists() and prepared_sets(d/'last_run_prepared') == []
    with claimed(one.path): pass
    assert os.listdir(d/'last_run_prepared') == [] and time.time() > one.made


def test_rows_that_were_chosen_dropped_or_repeated_are_counted_and_listed(tmp_path):
    "in the manifest, in `cache explain` and in `inspect --stats`"
    d = make(tmp_path/'project')
    with open(d/'data.jsonl', 'a') as f: f.write(json.dumps(dict(instruction='0?', output='0.'))+'\n'+json.dumps(dict(instruction='long '*90, output='x'))+'\n')
    (d/'out.txt').write_text('data.jsonl:2\n')
    key(sequence_len=64, dataset_exact_deduplication=True, drop='out.txt')(d)
    entries(lambda o: [o[0], {**o[1], 'max_rows': 4}, dict(path='more.jsonl', type='alpaca')])(d)
    os.chdir(d)
    manifest = Project.open('config.yml').prepared.manifest
    (own,) = [o for o in manifest['parts']['sources'] if 'drawn' in o]
    assert manifest['parts']['sources'][0]['drop'] == [2] and own['drawn'][:2] == [4, 42]
    assert manifest['count']['changed'] == {'dropped: too long': 1, 'dropped: same as an earlier row': 2}
    assert [o[:2] for o in manifest['count']['listed']][:2] == [['dropped: same as an earlier row', 'data.jsonl:7'], ['dropped: too long', 'data.jsonl:8']]
    facts = ['data.jsonl: 1 row dropped, as ', 'own.jsonl: 4 of 6 rows are taken, drawn at random (max_rows)',
             '1 row dropped: too long', '2 rows dropped: same as an earlier row', 'data.jsonl:8: dropped: too long']
    for out in (run(d, 'cache', 'explain', 'config.yml').stdout, run(d, 'inspect', 'config.yml', '--stats').stdout):
        for o in facts: assert o in ' '.join(out.split()), out
    key(dataset_exact_deduplication=False)(d), entry(2, repeat=2)(d)
    assert 'more.jsonl: 2 rows are read 2 times (repeat)' in run(d, 'inspect', 'config.yml', '--stats').stdout


def test_what_datasets_leaves_beside_prepared_rows_is_no_damage(tmp_path):
    "whoever maps them, as other trainers do, writes a cache of their own there"
    from datasets import load_from_disk
    d = make(tmp_path/'project')
    prepared(d)
    (path,) = (d/'last_run_prepared').glob('[0-9a-f]*')
    longer = load_from_disk(str(path)).map(lambda row: dict(length=len(row['input_ids']))).shuffle(seed=1)
    assert list(path.glob('cache-*.arrow')) and len(longer) == 12
    assert prepared(d) == (True, None)
    damage(d)
    assert prepared(d) == (False, ['a file of the prepared data is missing or damaged'])


def test_what_cannot_be_removed_is_said_with_what_to_do(tmp_path, monkeypatch):
    "as on a read-only disk"
    import segtune.data.cache as cache
    from segtune.data.stamps import forget_files
    d = make(tmp_path/'project')
    prepared(d)
    (one,) = prepared_sets(d/'last_run_prepared')
    def refuse(*args, **_): raise OSError(30, 'Read-only file system', str(args[0]))
    with monkeypatch.context() as m:
        m.setattr(cache.os, 'open', refuse)
        with pytest.raises(OSError, match=r'cannot be written: Read-only file system. Make it writable, or set dataset_prepared_path'): remove_set(one)
    assert one.path.exists()
    forget_files(d/'last_run_prepared')
    (d/'last_run_prepared/.files.json').write_text('{}')
    with monkeypatch.context() as m:
        m.setattr('pathlib.Path.unlink', refuse)
        with pytest.raises(OSError, match=r'Make it writable, or leave out --verify'): forget_files(d/'last_run_prepared')
    forget_files(d/'last_run_prepared')
    assert not (d/'last_run_prepared/.files.json').exists()


def test_a_chat_template_decides_only_the_rows_that_go_through_it(tmp_path):
    "it lies beside the tokenizer, which other formats read without it"
    tok = tmp_path/'tok'
    shutil.copytree(bundled('gpt2'), tok)
    (tok/'chat_template.jinja').write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\\n{% endfor %}")
    (tmp_path/'a.jsonl').write_text('{"instruction": "1?", "output": "2."}\n'*3)
    (tmp_path/'c.jsonl').write_text(json.dumps(dict(messages=[dict(role='user', content='1?'), dict(role='assistant', content='2.')]))+'\n')
    def prepared(name, **entry):
        cfg = dict(base_model=str(tok), sequence_len=64, dataset_prepared_path=str(tmp_path/'out'), datasets=[dict(path=name, **entry)])
        write(tmp_path, cfg)
        return Project.open(tmp_path/'config.yml').prepared
    plain, chat = dict(name='a.jsonl', type='alpaca'), dict(name='c.jsonl', type='chat')
    before = [prepared(**o) for o in (plain, chat)]
    (tok/'chat_template.jinja').write_text("{% for m in messages %}{{ m.role }}> {{ m.content }}\\n{% endfor %}")
    after = [prepared(**o) for o in (plain, chat)]
    assert [o.from_cache for o in before+after] == [False, False, True, False]
    assert after[0].path == before[0].path and [Path(o).name for o in after[1].why] == ['c.jsonl: template changed']
