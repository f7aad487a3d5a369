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
    assert r.returncode == 0 and 'law' not in r.stdout
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
    assert r.returncode == 1
    assert segtune(project, 'preprocess', 'config.yml', '--set', 'on_lint=error', '--set', 'boundary=split').returncode == 0


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
