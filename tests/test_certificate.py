"A certificate holds for a sound project, and names what is wrong with each spoilt one."
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from segtune.certificate import certify
from segtune.models import bundled
from segtune.project import Project
from segtune.storage import read_json, write_json


def seg(*texts): return dict(segments=[dict(text=t.strip('|'), label=t.startswith('|')) for t in texts])

def qa(i, end='</s>'): return seg(f'<s>Q: {i}+{i}?\nA:', f'| {2*i}{end}')

def write(folder, rows, name='qa.jsonl', **config):
    "A project with these rows; more of its config is given as keywords"
    (folder/name).write_text(''.join(json.dumps(o)+'\n' for o in rows))
    config = dict(dict(base_model='bundled:mistral-v0.1', datasets=[dict(path=name)], val_set_size=.1), **config)
    (folder/'config.yml').write_text(json.dumps(config))
    return folder

def card(folder): return certify(Project.open(folder/'config.yml'))

def broken(folder): return {c.name: c.said for c in card(folder).checks if c.holds is False}

@pytest.fixture
def sound(tmp_path): return write(tmp_path, [qa(i) for i in range(40)])

def train_on_paper(folder):
    "What a finished run of this project leaves behind, without the training"
    from safetensors.numpy import save_file

    from segtune.training.batches import count_rows
    project = Project.open(folder/'config.yml')
    out = Path(project.cfg.output_dir)
    out.mkdir()
    settings = dict(tokenizer=project.tokenizer.fingerprint(), train_rows=count_rows(project.rows()[0]).fingerprint)
    write_json(out/'run.json', dict(finished=True, settings=settings, result=dict(steps=3, rung='share'), watched={}))
    save_file({'a': np.ones((64, 64), np.float32)}, out/'adapter_model.safetensors')
    return out


def test_a_sound_project(sound):
    c = card(sound)
    assert c.holds and {o.state for o in c.checks} == {'holds', 'n/a'} and (c.facts['rows'], c.facts['config']) == (40, 'config.yml')
    assert [o.name for o in c.checks if o.holds is None] == ['training', 'training step']
    train_on_paper(sound)
    c = card(sound)
    assert c.holds and {o.state for o in c.checks} == {'holds'} and 'share' in c.checks[-1].said
    assert str(sound) not in json.dumps(c.as_json()) and json.loads(json.dumps(c.as_json()))['holds'] is True


def spaces(d): write(d, [seg('|<s>Hello\n', '|hi there!. ', 'goodbye ', '|farewell</s>')]*3+[qa(i) for i in range(9)], datasets=[dict(path='qa.jsonl', boundary='axolotl')], val_set_size=0)
def astride(d): write(d, [qa(1), seg('<s>It is inter', '|national.</s>')], datasets=[dict(path='qa.jsonl', boundary='whole')], val_set_size=0)
def later_prompt(d): write(d, [qa(1), seg('|<s>Hello\n', '|hi there!. ', 'goodbye ', '|farewell</s>')], val_set_size=0)
def no_eos(d): write(d, [qa(i, '</s>'*(i != 7)) for i in range(20)], val_set_size=0, lint_silence=['no-eos'])
def eos_masked(d): write(d, [seg('<s>Q', '| a', '</s>')]*2, val_set_size=0)
def overlap(d): write(d, [qa(i) for i in range(20)]*2)
def overlap_of_files(d):
    (d/'held.jsonl').write_text(json.dumps(qa(3))+'\n'+json.dumps(qa(99))+'\n')
    write(d, [qa(i) for i in range(20)], test_datasets=[dict(path='held.jsonl')], val_set_size=0)
def held_without_eos(d):
    (d/'held.jsonl').write_text(json.dumps(qa(99, ''))+'\n')
    write(d, [qa(i) for i in range(20)], test_datasets=[dict(path='held.jsonl')], val_set_size=0)

def other_labels(d):
    "A bit flipped in the table on disk, its size as before"
    p = Project.open(d/'config.yml').prepared
    (file,) = p.path.glob('*.arrow')
    table = pa.ipc.open_stream(file.read_bytes()).read_all()
    labels = [o.as_py() for o in table['labels']]
    labels[5][2] = table['input_ids'][5][2].as_py()
    table = table.set_column(table.schema.get_field_index('labels'), table.schema.field('labels'), pa.array(labels, table.schema.field('labels').type))
    size = file.stat().st_size
    file.unlink()
    with pa.OSFile(str(file), 'wb') as f, pa.ipc.new_stream(f, table.schema) as w: w.write_table(table)
    if file.stat().st_size != size:  # the manifest knows sizes; what has another one is prepared again
        manifest = read_json(p.path/'.segtune/manifest.json')
        from segtune.data.cache import key_of
        manifest.pop('check')
        manifest['files'][file.name] = file.stat().st_size
        write_json(p.path/'.segtune/manifest.json', {**manifest, 'check': key_of(manifest)})

def lower_case(d):
    "A tokenizer whose file says something else than its class does"
    shutil.copytree(bundled('mistral-v0.1'), d/'tok')
    spec, conf = (json.loads((d/'tok'/f'{o}.json').read_text()) for o in ('tokenizer', 'tokenizer_config'))
    spec['normalizer']['normalizers'].insert(0, dict(type='Lowercase'))
    (d/'tok/tokenizer.json').write_text(json.dumps(spec))
    (d/'tok/tokenizer_config.json').write_text(json.dumps({**conf, 'tokenizer_class': 'LlamaTokenizer'}))
    write(d, [qa(i) for i in range(20)], base_model='./tok')

def no_auto(d):
    shutil.copytree(bundled('mistral-v0.1'), d/'tok')
    (d/'tok/tokenizer_config.json').write_text(json.dumps(dict(auto_map=dict(AutoTokenizer=['own.Tokenizer', 'own.Tokenizer']))))
    write(d, [qa(i) for i in range(20)], base_model='./tok', special_tokens=dict(eos_token='</s>'))

def edit_run(d, **changes):
    out = train_on_paper(d)
    run = read_json(out/'run.json')
    for k, v in changes.items(): run = {**run, k: {**run[k], **v} if isinstance(v, dict) else v}
    write_json(out/'run.json', run)
    return out

def unfinished(d): edit_run(d, finished=False)
def other_tokenizer(d): edit_run(d, settings=dict(tokenizer='0'*64))
def unproved(d): edit_run(d, result=dict(rung=None))
def other_rows(d): train_on_paper(d); write(d, [qa(i) for i in range(60)])
def cut_weights(d):
    file = train_on_paper(d)/'adapter_model.safetensors'
    file.write_bytes(file.read_bytes()[:-100])
def no_weights(d): (train_on_paper(d)/'adapter_model.safetensors').unlink()
def not_finite(d):
    from safetensors.numpy import save_file
    save_file({'a': np.full((4, 4), np.nan, np.float32)}, train_on_paper(d)/'adapter_model.safetensors')

SPOILT = [
    (spaces, 'text law', 'qa.jsonl:1'), (astride, 'label law', 'qa.jsonl:2'), (astride, 'prompt of generate', 'qa.jsonl:2'),
    (later_prompt, 'prompt law', 'qa.jsonl:2'), (no_eos, 'EOS', 'qa.jsonl:8'), (no_eos, 'EOS', '95.0%'), (eos_masked, 'EOS', 'qa.jsonl:1'),
    (overlap, 'held-out rows', 'trained on too'), (overlap_of_files, 'held-out rows', '1 row of 2'), (held_without_eos, 'EOS, held out', 'held.jsonl:1'),
    (other_labels, 'tokens on disk', 'qa.jsonl:6'), (lower_case, 'tokenizer', 'AutoTokenizer gives other tokens'),
    (no_auto, 'tokenizer', 'AutoTokenizer cannot load it'), (unfinished, 'training', 'not finished'), (other_tokenizer, 'training', 'another tokenizer'),
    (other_rows, 'training', 'other rows'), (cut_weights, 'training', 'cannot be read'), (no_weights, 'training', 'no file of weights'),
    (not_finite, 'training', 'not finite'), (unproved, 'training step', 'does not say')]

@pytest.mark.parametrize('spoil, name, said', SPOILT, ids=[f'{o[0].__name__}-{o[1]}' for o in SPOILT])
def test_a_spoilt_project_fails_and_names_why(sound, spoil, name, said):
    spoil(sound)
    found = broken(sound)
    assert said in found.get(name, ''), found


def test_windows_and_tokens_have_no_text_of_their_own(tmp_path):
    "Laws are not asked of them, and the rest is"
    text = dict(text=' '.join(f'word{i}' for i in range(300)))
    c = card(write(tmp_path, [text]*2, sequence_len=64, datasets=[dict(path='qa.jsonl', type='completion')], val_set_size=0, lint_silence=['duplicate']))
    states = {o.name: o.state for o in c.checks}
    assert (states['text law'], states['tokens on disk'], states['held-out rows']) == ('n/a', 'holds', 'n/a')
    tokens = dict(input_ids=[1, 22557, 2], labels=[-100, 22557, 2])
    states = {o.name: o.state for o in card(write(tmp_path, [tokens], datasets=[dict(path='qa.jsonl', type=None)], val_set_size=0)).checks}
    assert (states['text law'], states['tokens on disk'], states['EOS']) == ('n/a', 'holds', 'holds')


def test_deduplication_and_dropped_rows(tmp_path):
    "What is compared are the rows that stayed"
    rows = [qa(1), qa(1), seg('<s>'+'long '*90, '| a</s>'), qa(2)]
    c = card(write(tmp_path, rows, sequence_len=50, dataset_exact_deduplication=True, val_set_size=0))
    assert c.holds and c.facts['rows'] == 2


def segtune(folder, *args):
    code = 'from segtune.cli import main; main()'
    return subprocess.run([sys.executable, '-c', code, *args], cwd=folder, capture_output=True, text=True, env={**os.environ, 'HF_HUB_OFFLINE': '1'})


def test_the_command(sound):
    "Exit code, JSON, SVG, the files beside the adapter, and a model card that is kept"
    r = segtune(sound, 'verify', 'config.yml', '-o', 'card.svg')
    assert r.returncode == 0 and r.stdout.startswith('segtune certificate: holds\n') and (sound/'card.svg').read_text().startswith('<svg')
    assert not (sound/'model-out').exists()
    out = train_on_paper(sound)
    (out/'README.md').write_text('---\nlicense: mit\n---\n\nMine.\n')
    no_eos(sound)
    for _ in range(2):
        r = segtune(sound, 'verify', 'config.yml', '--json')
        told = json.loads(r.stdout)
        assert r.returncode == 1 and not told['holds'] and {o['name'] for o in told['checks'] if o['state'] == 'broken'} == {'EOS', 'training'}
    readme = (out/'README.md').read_text()
    assert readme.startswith('---\nlicense: mit\n---\n\nMine.\n') and readme.count('certificate.svg') == 1
    assert read_json(out/'certificate.json') == told and 'BROKEN' in (out/'certificate.svg').read_text()
    assert segtune(sound, 'verify', 'absent.yml').returncode == 2


def test_a_removed_run_takes_its_certificate_along(sound):
    from segtune.training.checkpoints import remove_run
    out = train_on_paper(sound)
    card(sound).save(out)
    remove_run(out)
    assert not [o.name for o in out.iterdir() if 'certificate' in o.name]


@pytest.mark.slow
def test_the_demos_data_passes_before_and_after_training(tmp_path):
    assert segtune(tmp_path, 'init', 'p', '--base-model', 'bundled:tiny').returncode == 0
    r = segtune(tmp_path/'p', 'verify', 'config.yml')
    assert r.returncode == 0, r.stdout
    assert segtune(tmp_path/'p', 'train', 'config.yml', '--set', 'max_steps=4').returncode == 0
    r = segtune(tmp_path/'p', 'verify', 'config.yml', '--set', 'max_steps=4')
    assert r.returncode == 0 and 'n/a' not in r.stdout and 'proved equal' in r.stdout
