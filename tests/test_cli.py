"The command line as a user meets it: exact output, exit codes, and nothing half-written."
import json
import os
import re
import subprocess
import sys
from glob import glob

import pytest

from segtune.packaged import bundled

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
    assert r.returncode == 1 and 'error text: 500 rows' in r.stdout and 'on_lint' in r.stderr
    clean = ['--set', 'on_lint=error', '--set', 'boundary=split']
    r = segtune(project, 'preprocess', 'config.yml', *clean)
    assert r.returncode == 1 and 'error leak: 450 rows' in r.stdout, 'all rows are alike, those that are held out too'
    assert segtune(project, 'preprocess', 'config.yml', *clean, '--set', 'lint_silence=[leak]').returncode == 0
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
    assert r.returncode == 1 and report['severities'] == {'error': 2, 'warning': 3, 'note': 0}
    assert {o['id']: o['rows'] for o in report['rules']} == {'added-text': 500, 'train-eval-overlap': 450, 'edge-space': 500, 'prompt-mismatch': 500, 'duplicate': 449}
    assert report['rules'][0]['examples'][0] | {'message': ''} == {'row': 0, 'place': 'output.jsonl:1', 'segment': 1, 'message': ''}
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
    assert out.startswith('train:\nlint: 1 error\n') and '\nheld out:\nlint: ' in out


def test_new_tokens_matter_only_to_an_earlier_adapter(project):
    "embeddings of added tokens are trained along, unless training goes on from an adapter"
    (project/'output.jsonl').write_text(json.dumps({'segments': [{'label': False, 'text': '<s>[ask] a'}, {'label': True, 'text': ' b</s>'}]})+'\n')
    sets = ['--set', 'val_set_size=0', '--set', 'tokens=["[ask]"]', '--set', 'boundary=split', '--json']
    assert json.loads(segtune(project, 'lint', 'config.yml', *sets).stdout)['train']['rules'] == []
    r = segtune(project, 'lint', 'config.yml', *sets, '--set', 'lora_model_dir=./earlier')
    (rule,) = json.loads(r.stdout)['train']['rules']
    assert (r.returncode, rule['id']) == (1, 'new-tokens') and '⟦[ask]⟧' in rule['examples'][0]['message']


def test_inspect(project):
    r = segtune(project, 'inspect', 'config.yml', '--row', '17', '--row', '3')
    assert r.returncode == 0 and re.findall(r'output\.jsonl:(\d+) ', r.stdout) == ['18', '4']
    assert r.stdout.count('error text:') == 2 and '\x1b' not in r.stdout
    r = segtune(project, 'inspect', 'config.yml', '--row', '17', '--diff', 'split')
    assert '3 differ' in r.stdout and r.stdout.count('▁hi') == 1
    assert len(re.findall(r'output\.jsonl:\d+ ', segtune(project, 'inspect', 'config.yml', '--random', '5', '--seed', '1').stdout)) == 5
    assert len(re.findall(r'output\.jsonl:\d+ ', segtune(project, 'inspect', 'config.yml', '--grep', 'goodbye', '--random', '7').stdout)) == 7
    assert segtune(project, 'inspect', 'config.yml', '--grep', 'no such text').stdout == ''
    r = segtune(project, 'inspect', 'config.yml', '--row', '500')
    assert r.returncode == 2 and 'there is no row 500; the data has 500 rows, counted from 0.' in r.stderr


def test_inspect_whole_data_sets(project):
    r = segtune(project, 'inspect', 'config.yml', '--stats', '--html', 'report.html')
    assert r.returncode == 0 and r.stdout.startswith('500 rows, 7,000 tokens, 5,500 of them trained (78.6%)\n') and r.stdout.endswith('report.html\n')
    page = (project/'report.html').read_text()
    assert '<title>output.jsonl</title>' in page and page.count('<details class="rule">') == 5 and 'sequence_len 896' in page


def test_what_cannot_be_written(project):
    "a message and no traceback, whatever the system refuses"
    r = segtune(project, 'inspect', 'config.yml', '--html', 'absent/report.html')
    assert (r.returncode, r.stderr) == (2, 'absent/report.html: cannot write the report (No such file or directory). Choose another file.\n')
    r = segtune(project, 'preprocess', 'config.yml', '--set', 'dataset_prepared_path=output.jsonl')
    assert r.returncode in (1, 2) and 'Traceback' not in r.stderr and 'output.jsonl' in r.stderr


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
    assert not (project/'last_run_prepared').exists() or os.listdir(project/'last_run_prepared') == []


def test_usage():
    assert segtune('.', '--help').returncode == 0
    assert segtune('.', '--version').stdout.strip().count('.') == 2
    assert segtune('.', 'preprocess', 'absent.yml').returncode == 2
    assert segtune('.', 'preprocessed').returncode == 2
