"A command that finds its data ready says what a run would say, or does not answer at all."
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import segtune.ready as ready
from segtune.models import bundled

ROOT = Path(__file__).resolve().parent.parent
ARGV = ['preprocess', 'c/config.yml', '--debug', '--debug-num-examples', '3']
CHAT = dict(messages=[dict(role='user', content='Hi.'), dict(role='assistant', content='Hello.')])


def write(path, rows): Path(path).write_text(''.join(json.dumps(o)+'\n' for o in rows))


def config(**new):
    cfg = yaml.safe_load(Path('c/config.yml').read_text()) if Path('c/config.yml').exists() else {}
    Path('c/config.yml').write_text(yaml.safe_dump({**cfg, **new}, sort_keys=False))


@pytest.fixture
def project(tmp_path, monkeypatch):
    "The config in a directory of its own, its data and tokenizer in the current one"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('SEGTUNE_CACHE', str(tmp_path/'cache'))
    Path('c').mkdir()
    shutil.copytree(bundled('tiny'), 'model', ignore=shutil.ignore_patterns('*.safetensors'))
    for name in ('data', 'held'): write(f'{name}.jsonl', [dict(instruction=f'{name} {i}?', output=f'{i}.') for i in range(20)])
    config(base_model='model', sequence_len=64, datasets=[dict(path='data.jsonl', type='alpaca')], test_datasets=[dict(path='held.jsonl', type='alpaca')])


@pytest.fixture
def run(monkeypatch, capsys):
    "The command as it is typed, or as it works where no record is: `(exit code, output, errors)`"
    import segtune.cli as cli
    def one(argv=ARGV, recall=True):
        if not recall: monkeypatch.setattr(cli, 'recall', lambda argv: None)
        monkeypatch.setattr(sys, 'argv', ['segtune', *argv])
        capsys.readouterr()
        with pytest.raises(SystemExit) as e: cli.main()
        monkeypatch.setattr(cli, 'recall', ready.recall)
        return (e.value.code, *capsys.readouterr())
    return one


def recalled(capsys, argv=ARGV):
    "What the record says; None where it does not answer"
    capsys.readouterr()
    code = ready.recall(argv)
    said = tuple(capsys.readouterr())
    if code is None: assert said == ('', ''), 'who does not answer says nothing'
    return None if code is None else (code, *said)


def prepared(): return sorted(Path('c/last_run_prepared').glob('[0-9a-f]*'))[0]


def same_stamps(path, edit):
    "Edit a file, and set its size and time back"
    path = Path(path)
    s, before = path.stat(), path.read_bytes()
    path.write_bytes(edit(before))
    assert path.stat().st_size == s.st_size and path.read_bytes() != before
    os.utime(path, ns=(s.st_atime_ns, s.st_mtime_ns))


def swap(b): return b[:-9]+bytes([b[-9] ^ 1])+b[-8:]
def text(path, old, new): Path(path).write_text(Path(path).read_text().replace(old, new))


EDITS = {
    'a row': lambda: text('data.jsonl', '3.', '4.'),
    'a row, with size and time as before': lambda: same_stamps('data.jsonl', lambda b: b.replace(b'3.', b'4.')),
    'a held-out row': lambda: text('held.jsonl', '3.', '4.'),
    'the data is gone': lambda: os.remove('data.jsonl'),
    'the config': lambda: config(sequence_len=65),
    'the config, with size and time as before': lambda: same_stamps('c/config.yml', lambda b: b.replace(b'64', b'65')),
    'a comment in the config': lambda: Path('c/config.yml').open('a').write('# longer\n'),
    'data beside the config': lambda: shutil.copy('held.jsonl', 'c/data.jsonl'),
    'a tokenizer beside the config': lambda: shutil.copytree(bundled('gpt2'), 'c/model'),
    'the tokenizer': lambda: text('model/tokenizer.json', '"version"', ' "version"'),
    'names of special tokens': lambda: Path('model/special_tokens_map.json').write_text('{"pad_token": "<pad>"}'),
    'a chat template': lambda: Path('model/chat_template.jinja').write_text('{{ messages }}'),
    'no tokenizer config': lambda: os.remove('model/tokenizer_config.json'),
    'prepared data cut short': lambda: os.truncate(next(prepared().glob('data-*')), 20),
    'prepared data, with size and time as before': lambda: same_stamps(next(prepared().glob('data-*')), swap),
    'a prepared file more': lambda: (prepared()/'more.json').write_text('{}'),
    'the manifest': lambda: same_stamps(prepared()/'.segtune'/'manifest.json', swap),
    'no report of lint': lambda: os.remove(next((prepared()/'.segtune').glob('lint-*.json'))),
    'no prepared data': lambda: shutil.rmtree('c/last_run_prepared'),
}


@pytest.mark.parametrize('what', list(EDITS))
def test_an_edit_is_seen(project, run, capsys, what):
    first = run()
    again = recalled(capsys)
    assert again == (first[0], first[1].replace('(prepared)', '(found ready)'), first[2])
    assert again == run(recall=False), 'a run says the same'
    EDITS[what]()
    assert recalled(capsys) is None


KEPT = {
    'nothing': lambda: None,
    'the time of the data': lambda: os.utime('data.jsonl', (1, 1)),
    'a file that nothing names': lambda: Path('other.jsonl').write_text('{}'),
    'an output directory': lambda: Path('c/model-out').mkdir(),
    'another prepared set': lambda: shutil.copytree(prepared(), 'c/last_run_prepared/0'),
}


@pytest.mark.parametrize('what', list(KEPT))
def test_what_changes_nothing_is_found_ready(project, run, capsys, what):
    run()
    KEPT[what]()
    again = recalled(capsys)
    assert again is not None and again == run(recall=False)


def test_another_program_answers_for_itself(project, run, capsys, monkeypatch, tmp_path):
    run()
    assert recalled(capsys) is not None
    with monkeypatch.context() as m:
        m.setattr(ready, 'program', lambda: 'other code')
        assert recalled(capsys) is None
    (tmp_path/'lib').mkdir()
    monkeypatch.setattr(sys, 'path', [*sys.path, str(tmp_path/'lib')])
    before = ready.program()
    (tmp_path/'lib'/'tokenizers-99.dist-info').mkdir()
    assert ready.program() != before, 'a package was installed'


def test_the_program_is_all_of_its_files(tmp_path, monkeypatch):
    copy = shutil.copytree(ROOT/'segtune', tmp_path/'segtune', ignore=shutil.ignore_patterns('__pycache__', 'tokenizers'))
    import segtune
    monkeypatch.setattr(segtune, '__file__', str(copy/'__init__.py'))
    before = ready.program()
    assert before == ready.program()
    (copy/'data'/'kinds.py').write_text((copy/'data'/'kinds.py').read_text()+'\n')
    assert ready.program() != before


def test_another_line_directory_or_reader_has_a_record_of_its_own(project, run, capsys, monkeypatch):
    run()
    for argv in (ARGV[:-1]+['2'], ARGV[:2], [*ARGV, '--verify'], [*ARGV, '--set', 'sequence_len=64'], ['lint', *ARGV[1:]]): assert recalled(capsys, argv) is None
    monkeypatch.setenv('RANK', '1')
    assert recalled(capsys) is None
    monkeypatch.setenv('RANK', '0')
    assert recalled(capsys) is not None
    monkeypatch.setattr(ready, 'has_color', lambda: True)
    assert recalled(capsys) is None


def test_a_template_that_reads_the_date_is_asked_again_tomorrow(project, run, capsys, monkeypatch):
    write('data.jsonl', [CHAT])
    dated = "{{ strftime_now('%Y') }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    Path('model/chat_template.jinja').write_text(dated)
    config(datasets=[dict(path='data.jsonl', type='chat_template')], test_datasets=None)
    first = run()
    assert first[0] == 0, first
    assert recalled(capsys) == run(recall=False)
    monkeypatch.setattr(ready.time, 'strftime', lambda form: '2031-01-01')
    assert recalled(capsys) is None


UNKNOWN = {
    'a directory': lambda: (Path('all').mkdir(), shutil.move('data.jsonl', 'all/data.jsonl'), config(datasets=[dict(path='all', type='alpaca')])),
    'a pattern': lambda: config(datasets=[dict(path='da*.jsonl', type='alpaca')]),
    'a function': lambda: (Path('c/mine.py').write_text("def f(row): return [(row['output'], True)]\n"), config(datasets=[dict(path='data.jsonl', type='mine.f')])),
    'dropped rows': lambda: (Path('drop.txt').write_text('data.jsonl:3\n'), config(drop='drop.txt')),
    'a template in a file': lambda: (write('data.jsonl', [CHAT]), Path('t.jinja').write_text('{% for m in messages %}{{ m.role }}{{ m.content }}{% endfor %}'),
                                     config(chat_template='jinja', chat_template_jinja='t.jinja', test_datasets=None, datasets=[dict(path='data.jsonl', type='chat_template')])),
}


@pytest.mark.parametrize('what', list(UNKNOWN))
def test_what_files_do_not_tell_is_not_recorded(project, run, capsys, what):
    UNKNOWN[what]()
    for said in ('(prepared)', '(found ready)'):
        code, out, err = run()
        assert code == 0 and said in out, (out, err)
    assert recalled(capsys) is None and not Path('cache/ready').exists()


def test_what_is_said_of_rows_is_said_once(project, run, capsys):
    "notes that are counted while rows are formatted are no part of a later run; the exit code is"
    tool = dict(type='function', function=dict(name='now', description='The time.', parameters=dict(type='object', properties={})))
    write('data.jsonl', [{**CHAT, 'tools': [tool]}]*8)
    config(datasets=[dict(path='data.jsonl', type='chat_template', chat_template='chatml')], test_datasets=None, val_set_size=0.5, on_lint='error')
    code, _, err = run()
    assert code == 1 and 'this ends here' in err and '(8 rows, first data.jsonl:1)' in err, err
    again = recalled(capsys)
    assert again[0] == 1 and 'this ends here' in again[2] and '8 rows, first' not in again[2]
    assert again == run(recall=False)


def test_a_mistake_leaves_no_record(project, run, capsys):
    Path('data.jsonl').open('a').write('{}\n')
    assert [run()[0] for _ in range(2)] == [2, 2] and not Path('cache/ready').exists()


def test_a_reader_that_goes_away_spoils_no_record(project, tmp_path):
    "exit code 1 without a traceback, with and without a record, and the next one hears all"
    code = [sys.executable, '-c', 'from segtune.cli import main; main()', *ARGV]
    def unheard():
        p = subprocess.Popen(code, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        p.stdout.close()
        return p.stderr.read(), p.wait()
    assert unheard() == ('', 1) and not Path('cache/ready').exists()
    first = subprocess.run(code, capture_output=True, text=True)
    assert first.returncode == 0 and list(Path('cache/ready').iterdir())
    assert unheard() == ('', 1)
    assert subprocess.run(code, capture_output=True, text=True).stdout == first.stdout.replace('(prepared)', '(found ready)')


def test_a_config_from_a_pipe_is_read_once(project, tmp_path):
    cfg = Path('c/config.yml').read_text()+f'dataset_prepared_path: {tmp_path}/out\n'
    def said(text): return subprocess.run([sys.executable, '-m', 'segtune', 'preprocess', '/dev/stdin'], input=text, capture_output=True, text=True).stdout
    assert '(prepared)' in said(cfg) and '(found ready)' in said(cfg)
    assert '(prepared)' in said(cfg.replace('sequence_len: 64', 'sequence_len: 65')) and not Path('cache/ready').exists()


def test_who_has_no_home_has_no_record(project, run, capsys, monkeypatch):
    def homeless(): raise RuntimeError('Could not determine home directory.')
    monkeypatch.setattr(ready, 'cache_dir', homeless)
    assert run()[0] == run()[0] == 0 and recalled(capsys) is None


def test_old_records_go(tmp_path):
    for i in range(205): os.utime((tmp_path/f'{i}.json').open('w').name, (i, i))
    ready._remove_oldest(tmp_path)
    assert len(list(tmp_path.iterdir())) == 200 and not (tmp_path/'4.json').exists()


LIGHT = ['typer', 'rich', 'yaml', 'pydantic', 'numpy', 'pyarrow', 'tokenizers', 'jinja2', 'orjson', 'segtune.console', 'segtune.config', 'segtune.options', 'segtune.project']


def loaded(cwd, argv, names=LIGHT):
    "Which of these modules a command imports"
    code = f'''import sys
sys.argv = ['segtune', *{argv!r}]
from segtune.cli import main
try: main()
except SystemExit as e: code = e.code
print([o for o in {names!r} if o in sys.modules], code, file=sys.stderr)'''
    r = subprocess.run([sys.executable, '-c', code], cwd=cwd, capture_output=True, text=True)
    return r.stdout, r.stderr.splitlines()[-1]


def test_data_found_ready_needs_no_library(project, tmp_path):
    "of those that take long to import, none"
    first, needed = loaded(tmp_path, ARGV)
    assert '(prepared)' in first and "'pydantic'" in needed and "'numpy'" in needed
    assert loaded(tmp_path, ARGV) == (first.replace('(prepared)', '(found ready)'), '[] 0')


UNUSED = ['pandas', 'datasets', 'transformers', 'torch', 'ray', 'segtune.data.prepared', 'segtune.data.bins', 'segtune.data.ray_tasks', 'segtune.look.report', 'segtune.look.page', 'segtune.look.stats']


def test_data_is_prepared_without_what_only_other_commands_use(project, tmp_path):
    out, needed = loaded(tmp_path, ARGV, UNUSED)
    assert '(prepared)' in out and needed == '[] 0'


def test_help_needs_the_command_line_alone(tmp_path):
    out, needed = loaded(tmp_path, ['--help'])
    assert 'preprocess' in out and needed == "['typer', 'segtune.console'] 0"
