"The command line as a user meets it: exact output, exit codes, and nothing half-written."
import json
import os
import re
import subprocess
import sys
from glob import glob

import pytest

from segtune.models import bundled

hello = {'segments': [{'label': True, 'text': '<s>Hello\n'}, {'label': True, 'text': 'hi there!. '},
                      {'label': False, 'text': 'goodbye '}, {'label': True, 'text': 'farewell</s>'}]}
published = '''\
base_model: mistralai/Mistral-7B-v0.1      # in tests: a local directory with this tokenizer
data_seed: 49
seed: 49
datasets:
  - path: output.jsonl
    type: input_output
val_set_size: 0.1
sequence_len: 896
sample_packing: false
micro_batch_size: 2
gradient_accumulation_steps: 3
eval_batch_size: 2
num_epochs: 1
learning_rate: 0.0002
train_on_inputs: false
special_tokens:
  bos_token: "<s>"
  eos_token: "</s>"
  unk_token: "<unk>"
'''
line = ('<s>(1, 1) Hello(22557, 22557) \n(13, 13) hi(12014, 12014) there(736, 736) !(28808, 28808) .(28723, 28723) (28705, 28705) '
        'good(-100, 1179) bye(-100, 17664) (-100, 28705) fare(19111, 19111) well(5458, 5458) </s>(2, 2)')


@pytest.fixture
def project(tmp_path):
    (tmp_path/'mistralai').mkdir()
    os.symlink(bundled('mistral-v0.1'), tmp_path/'mistralai/Mistral-7B-v0.1')
    (tmp_path/'output.jsonl').write_text((json.dumps(hello)+'\n')*500)
    (tmp_path/'config.yml').write_text(published)
    return tmp_path


def segtune(project, *args, **env):
    code = 'from segtune.cli import main; main()'
    return subprocess.run([sys.executable, '-c', code, *args], cwd=project, capture_output=True, text=True, env={**os.environ, 'HF_HUB_OFFLINE': '1', **env})


def test_published_example(project):
    "the config of the published guide, unchanged: the exact debug line, and the exact rows on disk"
    r = segtune(project, 'preprocess', 'config.yml', '--debug')
    assert (r.returncode, r.stderr) == (0, '')
    assert r.stdout.rstrip('\n').endswith('\n'+line)
    from datasets import load_from_disk
    (path,) = glob(str(project/'last_run_prepared/*'))
    row = load_from_disk(path)[0]
    assert row['input_ids'] == [1, 22557, 13, 12014, 736, 28808, 28723, 28705, 1179, 17664, 28705, 19111, 5458, 2]
    assert row['labels'] == [1, 22557, 13, 12014, 736, 28808, 28723, 28705, -100, -100, -100, 19111, 5458, 2]
    assert sorted(os.listdir(path)) == ['.segtune', 'data-00000-of-00001.arrow', 'dataset_info.json', 'state.json']


def test_published_example_under_split(project):
    r = segtune(project, 'preprocess', 'config.yml', '--set', 'boundary=split')
    assert r.returncode == 0 and 'error text' not in r.stdout
    from datasets import load_from_disk

    from segtune.tokenizer import load_tokenizer
    (path,) = glob(str(project/'last_run_prepared/*'))
    assert load_tokenizer(bundled('mistral-v0.1')).decode(load_from_disk(path)[0]['input_ids']) == '<s> Hello\nhi there!. goodbye farewell</s>'


def test_second_run_hits(project):
    assert '(prepared)' in segtune(project, 'preprocess', 'config.yml').stdout
    assert '(found ready)' in segtune(project, 'preprocess', 'config.yml', '--set', 'learning_rate=1').stdout
    assert '(prepared)' in segtune(project, 'preprocess', 'config.yml', '--set', 'sequence_len=895').stdout


def test_one_row_and_every_row_can_be_shown(project):
    (project/'output.jsonl').write_text(json.dumps(hello)+'\n')
    assert line in segtune(project, 'preprocess', 'config.yml', '--debug').stdout
    (project/'output.jsonl').write_text(''.join(json.dumps({'segments': [{'label': True, 'text': f'row {i}</s>'}]})+'\n' for i in range(9)))
    out = segtune(project, 'preprocess', 'config.yml', '--debug', '--debug-num-examples', '20').stdout
    assert sorted(re.findall(r'output\.jsonl:(\d+)\n', out)) == [str(i) for i in range(1, 10)]
    assert out == segtune(project, 'preprocess', 'config.yml', '--debug', '--debug-num-examples', '20').stdout.replace('found ready', 'prepared')


def test_lint_can_stop_the_run(project):
    r = segtune(project, 'preprocess', 'config.yml', '--set', 'on_lint=error')
    assert r.returncode == 1 and 'warning added-text: 500 rows' in r.stdout and 'on_lint' in r.stderr
    clean = ['--set', 'on_lint=error', '--set', 'boundary=split']
    r = segtune(project, 'preprocess', 'config.yml', *clean)
    assert r.returncode == 1 and 'error train-eval-overlap: 450 rows' in r.stdout, 'all rows are alike, those that are held out too'
    assert segtune(project, 'preprocess', 'config.yml', *clean, '--set', 'lint_silence=[train-eval-overlap]').returncode == 0
    assert segtune(project, 'preprocess', 'config.yml', *clean, '--set', 'val_set_size=0').returncode == 0


def test_lint(project):
    "the published row: all three inserted spaces by name; exit codes; the same as JSON; unknown rules"
    r = segtune(project, 'lint', 'config.yml')
    assert r.returncode == 1 and r.stderr == ''
    assert "the tokens have a space that is not in the text before 'hi·there!.·' (segments[1]), 'goodbye·' (segments[2]) and 'farewell</s>' (segments[3])" in r.stdout
    split = ['--set', 'boundary=split', '--set', 'val_set_size=0']
    assert [segtune(project, 'lint', 'config.yml', *split, *o).returncode for o in ([], ['--strict'])] == [0, 1]
    silent = ['--set', 'lint_silence=[edge-space, prompt, duplicate]']
    r = segtune(project, 'lint', 'config.yml', *split, *silent, '--strict')
    assert (r.returncode, r.stdout) == (0, 'lint: nothing found\n')
    r = segtune(project, 'lint', 'config.yml', '--json')
    report = json.loads(r.stdout)['train']
    assert r.returncode == 1 and report['severities'] == {'error': 1, 'warning': 4, 'note': 0}
    assert {o['id']: o['rows'] for o in report['rules']} == {'added-text': 500, 'train-eval-overlap': 450, 'edge-space': 500, 'prompt-mismatch': 500, 'duplicate': 449}
    added = next(o for o in report['rules'] if o['id'] == 'added-text')
    assert added['examples'][0] | {'message': ''} == {'row': 0, 'place': 'output.jsonl:1', 'segment': 1, 'message': ''}
    r = segtune(project, 'lint', 'config.yml', '--set', 'lint_silence=[duplicates]')
    assert r.returncode == 2 and "lint_silence: there is no lint rule 'duplicates'. Did you mean 'duplicate'?" in r.stderr


def test_lint_of_a_held_out_file(project):
    "rows of test_datasets are linted too, and looked for among the training rows"
    rows = [{'segments': [{'label': False, 'text': f'<s>Q: {i}?\nA:'}, {'label': True, 'text': f' {i}.</s>'}]} for i in range(30)]
    (project/'train.jsonl').write_text(''.join(json.dumps(o)+'\n' for o in rows[:20]))
    (project/'held.jsonl').write_text(''.join(json.dumps(o)+'\n' for o in [*rows[18:], {'segments': [{'label': True, 'text': '<s>no end'}]}]))
    sets = ['--set', 'datasets=[{path: train.jsonl}]', '--set', 'test_datasets=[{path: held.jsonl}]', '--set', 'val_set_size=0']
    for _ in range(2): # the second time from the cache
        r = segtune(project, 'lint', 'config.yml', *sets, '--json')
        o = json.loads(r.stdout)
        assert [(k['id'], k['rows'], [e['place'] for e in k['examples']]) for k in o['train']['rules']] == [('train-eval-overlap', 2, ['train.jsonl:19', 'train.jsonl:20'])]
        assert next((k['id'], k['rows'], [e['place'] for e in k['examples']]) for k in o['held_out']['rules']) == ('no-eos', 1, ['held.jsonl:13'])
        assert r.returncode == 1
    out = segtune(project, 'lint', 'config.yml', *sets).stdout
    assert out.startswith('train:\nerror train-eval-overlap: 2 rows') and '\nlint: 1 error\nheld out:\n' in out and out.splitlines()[-1].startswith('lint: ')


def test_new_tokens_matter_only_to_an_earlier_adapter(project):
    "embeddings of added tokens are trained along, unless training goes on from an adapter"
    (project/'output.jsonl').write_text(json.dumps({'segments': [{'label': False, 'text': '<s>[ask] a'}, {'label': True, 'text': ' b</s>'}]})+'\n')
    sets = ['--set', 'val_set_size=0', '--set', 'tokens=["[ask]"]', '--set', 'boundary=split', '--json']
    assert json.loads(segtune(project, 'lint', 'config.yml', *sets).stdout)['train']['rules'] == []
    r = segtune(project, 'lint', 'config.yml', *sets, '--set', 'lora_model_dir=./earlier', '--set', 'adapter=lora')
    (rule,) = json.loads(r.stdout)['train']['rules']
    assert (r.returncode, rule['id']) == (1, 'new-tokens') and '⟦[ask]⟧' in rule['examples'][0]['message']


def test_inspect(project):
    r = segtune(project, 'inspect', 'config.yml', '--row', '17', '--row', '3')
    assert r.returncode == 0 and re.findall(r'output\.jsonl:(\d+) ', r.stdout) == ['18', '4']
    assert r.stdout.count('warning added-text:') == 2 and '\x1b' not in r.stdout
    r = segtune(project, 'inspect', 'config.yml', '--row', '17', '--diff', 'split')
    assert '3 differ' in r.stdout and r.stdout.count('▁hi') == 1
    assert len(re.findall(r'output\.jsonl:\d+ ', segtune(project, 'inspect', 'config.yml', '--random', '5', '--seed', '1').stdout)) == 5
    assert len(re.findall(r'output\.jsonl:\d+ ', segtune(project, 'inspect', 'config.yml', '--grep', 'goodbye', '--random', '7').stdout)) == 7
    r = segtune(project, 'inspect', 'config.yml', '--grep', 'no such text')
    assert (r.returncode, r.stdout, r.stderr) == (0, '', "no rows match: none of 500 has the text 'no such text'\n")
    r = segtune(project, 'inspect', 'config.yml', '--row', '500')
    assert r.returncode == 2 and 'there is no row 500; the data has 500 rows, counted from 0.' in r.stderr


def test_inspect_whole_data_sets(project):
    r = segtune(project, 'inspect', 'config.yml', '--stats', '--html', 'report.html')
    assert r.returncode == 0 and r.stdout.startswith('500 rows, 7,000 tokens, 5,500 of them trained (78.6%)\n') and r.stdout.endswith(f'report.html: 500 rows, 5 lint rules triggered\n{(project/"report.html").as_uri()}\n')
    page = (project/'report.html').read_text()
    assert '<title>output.jsonl</title>' in page and page.count('<details class="rule">') == 5 and 'sequence_len 896' in page


def test_what_cannot_be_written(project):
    "a message and no traceback, whatever the system refuses"
    r = segtune(project, 'inspect', 'config.yml', '--html', 'absent/report.html')
    assert (r.returncode, r.stderr) == (2, "--html: no such directory: 'absent'. Choose another file.\n")
    r = segtune(project, 'preprocess', 'config.yml', '--set', 'dataset_prepared_path=output.jsonl')
    assert (r.returncode, r.stderr) == (2, "--set dataset_prepared_path: 'output.jsonl' is a file, and a directory is written. Choose another directory.\n")


def test_inspect_shows_windows_and_cut_rows_as_prepared(project):
    "what is shown is what is on disk: the third window of a text, a row that was cut"
    (project/'output.jsonl').write_text(json.dumps({'text': ' '.join(f'word{i}' for i in range(60))})+'\n')
    windows = ['--set', 'datasets.0.type=completion', '--set', 'sequence_len=64', '--set', 'val_set_size=0']
    shown = [segtune(project, 'inspect', 'config.yml', *windows, '--row', str(i)).stdout for i in range(3)]
    assert [o.split('\n')[0] for o in shown][:2] == ['output.jsonl:1 · 64 tokens, 64 trained (100%)']*2 and len({*shown}) == 3
    (project/'output.jsonl').write_text(json.dumps(hello)+'\n')
    r = segtune(project, 'inspect', 'config.yml', '--set', 'sequence_len=10', '--set', 'on_long=cut', '--set', 'val_set_size=0')
    assert r.stdout.startswith('output.jsonl:1 · 10 tokens, 8 trained') and 'fare' not in r.stdout.split('\n')[4]


@pytest.mark.parametrize('args, data, message', [
    (['--set', 'sequence_lenn=3'], None, 'sequence_lenn: unknown key. Did you mean sequence_len?'),
    (['--set', 'base_model=./nowhere'], None, "no such directory: './nowhere'"),
    (['--set', 'datasets.0.path=nowhere.jsonl'], None, "no such file: 'nowhere.jsonl'"),
    (['--set', 'datasets.0.type=input_outptu'], None, "unknown format 'input_outptu'. Did you mean input_output"),
    (['--set', 'sequence_len=5'], None, 'no rows are left to train on: 500 rows dropped: too long'),
    (['--set', 'on_long=error', '--set', 'sequence_len=5'], None, 'output.jsonl:1: the row has 14 tokens, and sequence_len is 5'),
    ([], '{"segments": [{"label": "false", "text": "a"}]}', 'output.jsonl:1 segments[0].label: expected true or false, got "false" (a string)'),
    ([], '', 'output.jsonl: the file has no rows'),
])
def test_mistakes(project, args, data, message):
    "one message, exit code 2, no traceback, nothing written"
    if data is not None: (project/'output.jsonl').write_text(data)
    r = segtune(project, 'preprocess', 'config.yml', *args)
    assert r.returncode == 2 and message in r.stderr and 'Traceback' not in r.stderr and r.stdout == ''
    assert not (project/'last_run_prepared').exists()


def test_usage():
    assert segtune('.', '--help').returncode == 0
    assert segtune('.', '--version').stdout.strip().count('.') == 2
    assert segtune('.', 'preprocess', 'absent.yml').returncode == 2
    assert segtune('.', 'preprocessed').returncode == 2


# ---- one program, one rule for paths, one message for a mistake

def test_check(project):
    "notes and mistakes of the config alone; no data, no tokenizer, no model"
    (project/'output.jsonl').unlink()
    r = segtune(project, 'check', 'config.yml', '--set', 'wandb_project=x', '--set', 'base_model=org/nowhere')
    assert (r.returncode, r.stderr) == (0, '') and 'ignored: wandb_project' in r.stdout and 'no mistakes' in r.stdout
    assert os.listdir(project/'mistralai') and not (project/'last_run_prepared').exists()
    (project/'odd.yml').write_text('base_model: m\ndatasets:\n  - path: a\n    type: alpaca\n    roles: [x]\nrl: dpo\nsequence_len: x\n')
    r = segtune(project, 'check', 'odd.yml', '--json')
    told = json.loads(r.stdout)
    assert (r.returncode, r.stderr, told['ok'], told['notes']) == (2, '', False, [])
    assert [(o['key'], o['line']) for o in told['errors']] == [('datasets.0.roles', 5), ('rl', 6), ('sequence_len', 7)]
    r = segtune(project, 'check', 'odd.yml')
    assert r.returncode == 2 and r.stderr.count('odd.yml:') == 3 and 'Traceback' not in r.stderr
    assert json.loads(segtune(project, 'check', 'absent.yml', '--json').stdout)['ok'] is False


def test_python_m_segtune(project):
    r = subprocess.run([sys.executable, '-m', 'segtune', 'formats', 'alpaca'], cwd=project, capture_output=True, text=True)
    assert r.returncode == 0 and 'instruction' in r.stdout


def test_what_cannot_be_split_is_told_by_preprocess_as_by_train(project):
    (project/'output.jsonl').write_text(json.dumps(hello)+'\n')
    for command in ('preprocess', 'train'):
        r = segtune(project, command, 'config.yml', '--set', 'val_set_size=1')
        assert r.returncode == 2 and 'val_set_size' in r.stderr and 'Traceback' not in r.stderr


def prepared_rows(folder, *args):
    "Tokens and labels on disk, of the training rows and of the held-out ones"
    from datasets import load_from_disk
    r = segtune(folder, 'preprocess', *args)
    assert r.returncode == 0, r.stderr
    paths = re.findall(r'^(?:train|held out): (.*) \(', r.stdout, re.MULTILINE)
    return [[(o['input_ids'], o['labels']) for o in load_from_disk(str(folder/p))] for p in paths]


@pytest.mark.parametrize('name', ['e.jsonl', 'e.jsonl.gz', 'there/e.jsonl'])
def test_eject_gives_the_same_tokens_for_held_out_rows_too_from_any_directory(project, name):
    (project/'there').mkdir()
    (project/'a.jsonl').write_text(json.dumps(dict(instruction='Name a colour.', output='Blue.'))+'\n')
    (project/'b.jsonl').write_text(json.dumps(dict(instruction='Name a fruit.', output='Pear.'))+'\n')
    (project/'config.yml').write_text('base_model: mistralai/Mistral-7B-v0.1\ntrain_on_inputs: true\nboundary: axolotl\ndatasets: [{path: a.jsonl, type: alpaca}]\n'
                                      'test_datasets: [{path: b.jsonl, type: alpaca}]\nsequence_len: 64\n')
    r = segtune(project, 'eject', 'config.yml', '-o', name, '--set', 'sequence_len=128')
    assert r.returncode == 0, r.stderr
    new = name.replace('.gz', '').replace('.jsonl', '.yml')
    assert 'sequence_len: 128' in (project/new).read_text(), 'what was set on the command line stays'
    rows = prepared_rows(project, new)
    assert rows == prepared_rows(project, 'config.yml', '--set', 'sequence_len=128') and [len(o) for o in rows] == [1, 1]


@pytest.mark.parametrize('out', ['config.yml', 'e', 'e.txt', '.', '.jsonl', 'nowhere/e.jsonl', 'output.jsonl', ''])
def test_eject_overwrites_nothing(project, out):
    before = {f: (project/f).read_bytes() for f in ('config.yml', 'output.jsonl')}
    r = segtune(project, 'eject', 'config.yml', '-o', out)
    assert r.returncode == 2 and 'Traceback' not in r.stderr and r.stderr
    assert before == {f: (project/f).read_bytes() for f in before} and sorted(os.listdir(project)) == ['config.yml', 'mistralai', 'output.jsonl']


@pytest.mark.parametrize('args', [['formats', 'os.getcwd'], ['formats', 'alpaca:nothing'], ['inspect', 'config.yml', '--random', '-3'], ['inspect', 'config.yml', '--seed', '-4'],
    ['generate', 'config.yml', '--prompt', 'x', '--row', '1'], ['generate', 'config.yml', '--max-new-tokens', '0'], ['preprocess', 'config.yml', '--set', 'seed=[1'],
    ['preprocess', '.'], ['preprocess', 'config.yml', '--set', 'datasets.0.path="a\\0b"'], ['train', 'config.yml', '--set', 'resume_from_checkpoint=nowhere'],
    ['preprocess', 'config.yml', '--debug-num-examples', '-1']])
def test_odd_arguments_end_in_one_message(project, args):
    r = segtune(project, *args)
    assert r.returncode == 2 and r.stderr and 'Traceback' not in r.stderr


def test_file_names_that_are_no_text(project):
    "a name that is not UTF-8 can be printed"
    os.rename(os.fsencode(project/'output.jsonl'), os.fsencode(project/'output')+b'\xff.jsonl')
    (project/'config.yml').write_text(published.replace('output.jsonl', '"*.jsonl"'))
    r = segtune(project, 'preprocess', 'config.yml', '--debug', PYTHONUTF8='1')
    assert r.returncode in (0, 2) and 'Traceback' not in r.stderr


def test_no_control_character_reaches_the_terminal(project):
    "Out of a message, a file's name, a row or a finding; they are spelled out."
    bad = '\x1b[2J\x07\x00\x9b'
    row = dict(segments=[dict(label=False, text=f'<s>{bad}'), dict(label=True, text=f'{bad} \r</s>')])
    name = 'a\x1b[31m\x07.jsonl'
    (project/name).write_text(json.dumps(row)+'\n')
    (project/'config.yml').write_text(json.dumps(dict(base_model='mistralai/Mistral-7B-v0.1', datasets=[dict(path=name, type='segments')])))
    (project/'wrong.jsonl').write_text(json.dumps({'segments': [{'label': bad, bad: 1}]})+'\n')
    def said(*args):
        r = segtune(project, *args)
        assert '\\x1b' in r.stdout+r.stderr, args
        return r.stdout+r.stderr
    texts = [said('preprocess', 'config.yml', '--debug'), said('lint', 'config.yml'), said('inspect', 'config.yml', '--row', '0'),
             said('preprocess', 'config.yml', '--set', 'datasets=[{path: wrong.jsonl, type: segments}]'), said('check', f'{bad[:-2]}.yml')]
    assert not [c for text in texts for c in text if not c.isprintable() and c not in '\n\t']


# ---- help, errors and streams as people and scripts meet them

def test_help_is_grouped_and_whole(project):
    "Start, data, train, use; every command with its whole sentence and an example; nothing wider than the terminal"
    out = segtune(project, '--help', COLUMNS='80').stdout
    assert [o for o in out.splitlines() if o in ('Start:', 'Data:', 'Train:', 'Use:')] == ['Start:', 'Data:', 'Train:', 'Use:']
    names = re.findall(r'^  (\w+) +\w', out[out.index('Start:'):], re.MULTILINE)
    assert names[0] == 'init' and len(re.findall(r'^ +segtune \w+', out, re.MULTILINE)) == len(names)
    assert {'init', 'demo', 'formats', 'check', 'preprocess', 'lint', 'inspect', 'eject', 'train', 'evaluate', 'generate', 'merge'} <= {*names}
    for name in names:
        page = segtune(project, name, '--help', COLUMNS='80').stdout
        assert f'Example:\n  segtune {name}' in page and '[required]' not in page and not re.search(r'<\w|\{', page), name
        for text in (out, page): assert max(map(len, text.splitlines())) <= 80 and '...' not in text.replace('[ARGS]...', '')


@pytest.mark.parametrize('args, message', [
    (['inspect', 'config.yml', '--row', 'x'], "--row: expected an integer, got 'x'."),
    (['inspect', 'config.yml', '--random', '0'], "--random: expected 1 or more, got '0'."),
    (['inspect', 'config.yml', '--diff', 'foo'], "--diff: expected split, whole or axolotl, got 'foo'."),
    (['inspect', 'config.yml', '--only', 'foo'], "--only: expected all, trained or masked, got 'foo'."),
    (['generate', 'config.yml', '--temperature', 'hot'], "--temperature: expected a number, got 'hot'."),
    (['preprocess', 'config.yml', '--set', 'sequence_len=abc'], "--set sequence_len: expected an integer, got 'abc'."),
    (['inspct', 'config.yml'], "inspect"), (['lint'], 'CONFIG'), (['lint', 'config.yml', '--strct'], '--strict')])
def test_errors_name_what_was_typed(project, args, message):
    "The flag and the value; before any row is printed"
    r = segtune(project, *args)
    assert (r.returncode, r.stdout) == (2, '') and message in r.stderr and 'config.yml:' not in r.stderr


@pytest.mark.parametrize('columns', [60, 80, 200])
def test_formats_never_break_inside_a_word(project, columns):
    from segtune.data.formats import formats
    out = segtune(project, 'formats', COLUMNS=str(columns)).stdout
    assert max(map(len, out.splitlines())) <= max(columns, 60)
    words = set(out.split())
    for f in formats.values(): assert {f.name, *f.about.split()} <= words
    assert len(re.findall(r'^\S', out, re.MULTILINE)) == 6  # four groups, and how to go on


def test_lint_ends_with_the_worst_and_the_summary(project):
    out = segtune(project, 'lint', 'config.yml').stdout
    heads = [o.split(' ')[0] for o in out.splitlines() if o and o[0] != ' ']
    assert heads == ['warning']*4+['error', 'lint:']
    assert segtune(project, 'preprocess', 'config.yml').stdout.splitlines()[-1] == '  lint: 1 error, 4 warnings'


def on_a_terminal(project, *args, width=80, **env):
    "What a command prints on a terminal of its own"
    import pty
    import struct
    from fcntl import ioctl
    from termios import TIOCSWINSZ
    main, side = pty.openpty()
    ioctl(side, TIOCSWINSZ, struct.pack('HHHH', 24, width, 0, 0))
    code = [sys.executable, '-c', 'from segtune.cli import main; main()', *args]
    run = subprocess.Popen(code, cwd=project, stdout=side, stderr=side, stdin=subprocess.DEVNULL, env={**os.environ, 'TERM': 'xterm-256color', **env})
    os.close(side)
    out = b''
    while True:
        try: part = os.read(main, 65536)
        except OSError: break
        if not part: break
        out += part
    os.close(main)
    run.wait()
    turning = r'(?:\r\x1b\[K[^\r\n]*)*\r\x1b\[K'   # the line that turns until the first word comes
    return re.sub(turning, '', out.decode().replace('\r\n', '\n'))


def test_colours_only_where_a_terminal_is(project):
    "Readable on dark and on light grounds: neither yellow, cyan, blue, white nor black"
    out = on_a_terminal(project, 'lint', 'config.yml')
    assert '\x1b[1;31merror' in out and not re.search(r'\x1b\[[\d;]*\b(30|33|34|36|37|9\d)m', out)
    lines = re.sub(r'\x1b\[[\d;]*m', '', out).splitlines()
    assert max(map(len, lines)) <= 80 and 'train-eval-overlap:' in ' '.join(lines).split()
    assert not re.search(r'\x1b\[[\d;]*3\dm', on_a_terminal(project, 'lint', 'config.yml', NO_COLOR='1'))
    assert '\x1b' not in segtune(project, 'lint', 'config.yml').stdout
    assert '\x1b[3' in on_a_terminal(project, 'preprocess', 'config.yml', '--debug')


# ---- exit codes of errors

@pytest.mark.parametrize("code", [1, 2, 130, 143])
def test_an_error_ends_with_its_own_exit_code(monkeypatch, code):
    "a mistake of the user's is 2, a run that began and failed 1, and one that a signal ended 128 and the signal's number"
    import segtune.cli as cli
    from segtune.segments import SegtuneError
    from segtune.training.checkpoints import FailedRun
    from segtune.training.interruptions import Interrupted
    errors = {1: FailedRun("the loss is nan."), 2: SegtuneError("wrong."), 130: Interrupted("stopped.", 2), 143: Interrupted("stopped.", 15)}
    def app(**how): raise errors[code]
    monkeypatch.setattr(cli, "app", app)
    assert cli._run() == (code, str(errors[code]))

def test_a_command_that_is_told_to_stop_says_so_by_its_exit_code(tmp_path):
    import signal
    row = dict(segments=[dict(text="Q", label=False), dict(text=" A<|im_end|>", label=True)])
    (tmp_path / "a.jsonl").write_text((json.dumps(row) + "\n") * 8)
    (tmp_path / "c.yml").write_text("base_model: bundled:tiny\nadapter: lora\nlora_target_linear: true\nmax_steps: 100000\nsave_steps: 0\ndatasets: [{path: a.jsonl}]\n")
    p = subprocess.Popen([sys.executable, "-m", "segtune", "train", "c.yml"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert any(o.startswith("step ") for o in p.stdout)
    p.send_signal(signal.SIGTERM)
    err = p.communicate(timeout=120)[1]
    assert p.returncode == 143 and "stopped by SIGTERM after step" in err


# ---- a starter project

def test_a_starter_finds_its_model_from_where_it_lies(tmp_path):
    "a base model that is named from here is found from there, and the commands that are printed can be pasted"
    os.symlink(bundled('tiny'), tmp_path/'my model')
    r = segtune(tmp_path, 'init', 'new one', '--base-model', 'my model')
    assert r.returncode == 0 and "\n  cd 'new one'\n" in r.stdout
    assert 'base_model: "../my model"' in (tmp_path/'new one/config.yml').read_text()
    assert segtune(tmp_path/'new one', 'formats', 'text').returncode == 0
    from segtune.project import Project
    assert Project.open(tmp_path/'new one/config.yml').tokenizer.eos == '<|im_end|>'


def test_no_starter_in_the_place_of_a_file(tmp_path):
    (tmp_path/'x').write_text('')
    r = segtune(tmp_path, 'init', 'x', '--base-model', 'bundled:tiny')
    assert (r.returncode, r.stderr) == (2, 'x: this is a file. Choose a new directory.\n')
    r = segtune(tmp_path, 'init', 'y', '--base-model', 'bundled:nope')
    assert r.returncode == 2 and r.stderr.startswith("base_model: 'nope' does not come with segtune.") and not (tmp_path/'y').exists()
