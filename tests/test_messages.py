"What a message says: where in the config a mistake stands, what is wrong, what to do."
import json
import os

import pytest

from segtune.project import Project
from segtune.segments import ConfigError, SegtuneError
from segtune.yaml_file import override, read_yaml

row = {'segments': [{'text': '<s>Q\n', 'label': False}, {'text': 'A</s>', 'label': True}]}
head = 'base_model: bundled:mistral-v0.1\n'
entry = 'datasets:\n  - path: d.jsonl\n    type: segments\n'


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'d.jsonl').write_text((json.dumps(row)+'\n')*3)
    return tmp_path


def told(text, *overrides):
    "the message of a config whose data is prepared"
    with open('config.yml', 'w') as f: f.write(text)
    with pytest.raises(SegtuneError) as e: assert Project.open('config.yml', overrides).prepared
    return str(e.value)


# ---- a mistake that only shows when the data is opened has its line too

@pytest.mark.parametrize('more, wanted', [
    ('    split: test\n', 'd.jsonl split: has the split train'),
    ('    split: "train[:x]"\n', "config.yml:5 datasets.0.split: 'train[:x]' is no part of a split"),
    ('    shards: 2\n    shards_idx: 2\n', 'config.yml:6 datasets.0.shards_idx: expected a number from 0 to 1, got 2.'),
    ('    ds_type: jsn\n', 'config.yml:5 datasets.0.ds_type: expected one of json'),
    ('lint_silence: [duplicat]\n', "config.yml:5 lint_silence: there is no lint rule 'duplicat'. Did you mean 'duplicate'?"),
    ('drop: nope.txt\n', "config.yml:5 drop: cannot read 'nope.txt'")])
def test_the_line_of_a_late_mistake(place, more, wanted): assert told(head+entry+more).startswith(wanted)


@pytest.mark.parametrize('text, wanted', [
    (head+'datasets:\n  - path: d.jsonl\n  - path: nope.jsonl\n', "config.yml:4 datasets.1.path: no such file: 'nope.jsonl'"),
    (head+entry+'test_datasets:\n  - path: nope.jsonl\n', "config.yml:6 test_datasets.0.path: no such file: 'nope.jsonl'"),
    (head+entry.replace('segments', 'chat'), 'config.yml:3 datasets.0.chat_template: the tokenizer has no chat template'),
    (head+entry.replace('segments', 'chat')+'chat_template: tokenizer_default\n', 'config.yml:5 chat_template: the tokenizer has no chat template'),
    (head+entry.replace('segments', 'chat')+'    chat_template: tokenizer_default\n',
     'config.yml:5 datasets.0.chat_template: the tokenizer has no chat template')])
def test_the_entry_of_a_late_mistake(place, text, wanted): assert told(text).startswith(wanted)


def test_the_line_of_a_file_in_a_directory(place):
    (place/'data').mkdir()
    os.rename('d.jsonl', 'data/d.jsonl')
    text = head+entry.replace('d.jsonl', 'data')+'    data_files: b.jsonl\n'
    assert told(text).startswith("config.yml:5 datasets.0.data_files: no such file: 'b.jsonl'")


def test_what_was_set_on_the_command_line_has_no_line(place):
    assert told(head+entry, 'datasets.0.path=nope.jsonl').startswith("--set datasets.0.path: no such file: 'nope.jsonl'")
    assert told(head+entry, 'seed.x=1').startswith('--set seed: expected an integer')

@pytest.mark.parametrize('assignment, wanted', [
    ('datasets.0.typ=x', "datasets.0.typ: format 'segments' has no option 'typ'."),
    ('datasets.0.0=x', "datasets.0.0: format 'segments' has no option '0'."),
    ("datasets.0.type={format: '{y}'}", 'datasets.0.type.format: unknown placeholder {y}.'),
    ('datasets.0.type={formt: x}', "datasets.0.type: format 'user_defined' has no option 'formt'."),
    ('datasets.0.type=nope', "datasets.0.type: unknown format 'nope'."),
    ('datasets.0.split=nope', "datasets.0.split: d.jsonl has the split train, not 'nope'."),
    ('datasets.0.path=zz', "datasets.0.path: 'zz' is no file or directory, and the hub did not give it"),
    ('datasets.0.skip=x', "datasets.0.skip: expected an integer, got 'x'."),
    ('tokenizer_config=zz', "tokenizer_config: 'zz' is no directory, and the hub did not give it"),
    ('drop=zz', "drop: cannot read 'zz'"),
])
def test_what_was_set_names_the_flag_and_no_file(place, assignment, wanted):
    assert told(head+entry, assignment).startswith(f'--set {wanted}')

def test_a_key_inside_of_type_has_its_own_line(place):
    text = "datasets:\n  - path: d.jsonl\n    type:\n      field_output: output\n      format: '{y}'\n"
    assert 'datasets.0.type.format: unknown placeholder {y}.' in told(head+text)


def test_a_config_in_memory_has_no_lines():
    "the keyword arguments of a notebook are in no file"
    import segtune as st
    from segtune.models import bundled
    with pytest.raises(SegtuneError, match=r"^path: no such file: 'nope\.jsonl'"): st.prepare('nope.jsonl', st.load_tokenizer(bundled('mistral-v0.1')))


def test_a_file_beside_it_with_nearly_this_name(place):
    assert "Is 'd.jsonl' meant?" in told(head+entry.replace('d.jsonl', 'd.json'))


# ---- keys of another section

@pytest.mark.parametrize('more, wanted', [
    ('    sequence_len: 5\n', 'config.yml:5 datasets.0.sequence_len: is a key of the whole config. Move it to the top level.'),
    ('    learning_rate: 5\n    odd: 1\n', "config.yml:6 datasets.0.odd: format 'segments' has no option 'odd'"),
    ('roles_to_train: [assistant]\n', 'config.yml:5 roles_to_train: is a key of a dataset entry. Move it under datasets.'),
    ('type: chat\n', 'config.yml:5 type: is a key of a dataset entry. Move it under datasets.'),
    ('path: d.jsonl\n', 'config.yml:5 path: is a key of a dataset entry. Move it under datasets.')])
def test_a_key_of_another_section(place, more, wanted): assert wanted in told(head+entry+more)


# ---- names that nobody knows

def test_unknown_names_are_short(place):
    "a hint, or where the names are listed; never forty names in one line"
    (place/'mine.py').write_text('x = 1\n')
    typed = lambda name: told(head+entry.replace('segments', name))
    assert typed('alpcaa').endswith("unknown format 'alpcaa'. Did you mean alpaca?")
    assert typed('zzz').endswith("unknown format 'zzz'. segtune formats lists them; or name a function as module.function.")
    assert typed('nowhere.qa').endswith("unknown format 'nowhere.qa'. There is no module 'nowhere' beside the config or on Python's path.")
    assert typed('mine.qa').endswith("unknown format 'mine.qa'. The module 'mine' has no function 'qa'.")
    assert len(told(head+entry.replace('segments', 'chat')+'    chat_template: chatlm\n')) < 250


@pytest.mark.parametrize('more, wanted', [('true', 'true'), ('false', 'false'), ('1', '1')])
def test_which_end_tokens_are_trained_is_a_word(place, more, wanted):
    text = head+entry.replace('segments', 'chat_template')+f'    chat_template: chatml\n    train_on_eos: {more}\n'
    assert told(text).startswith("config.yml:6 datasets.0.train_on_eos: expected 'all', 'turn', 'last' or 'none', got "+wanted)


# ---- YAML

@pytest.mark.parametrize('text, wanted', [
    ('a:\n\t- b\n', 'config:2: invalid YAML: a tab indents this line. Indent with spaces.'),
    ('a: 1\n---\nb: 2\n', 'config:2: invalid YAML: expected a single document in the stream, but found another document.')])
def test_yaml_in_words(text, wanted):
    with pytest.raises(ConfigError) as e: read_yaml(text)
    assert str(e.value) == wanted


def test_a_date_is_named_as_it_was_written(place):
    assert told(head+entry+'output_dir: 2024-01-02\n').endswith("output_dir: expected a string, got the date 2024-01-02. Write it in quotes.")


def test_an_override_of_what_is_not_there_is_named():
    assert override(read_yaml('a: 1'), 'b.c=2').lines['b',] == '--set'


# ---- data

def test_why_no_row_is_left(place):
    "the advice is about the reason"
    assert told(head+entry+'sequence_len: 2\n').endswith('Raise sequence_len, or check the data.')
    assert told(head+entry+'min_sample_len: 99\n').endswith('Lower min_sample_len, or check the data.')
    (place/'d.jsonl').write_text('{"segments": []}\n')
    assert told(head+entry).endswith('d.jsonl:1 with 0 tokens. Check the data.')


@pytest.mark.parametrize('data, kind, wanted', [
    ({'instruction': 'a', 'output': 'b'}, 'segments', "the row has 'instruction', 'output'. Set type to the format of such rows, for example alpaca."),
    ({'messages': []}, 'segments', "Set type to the format of such rows, for example chat."),
    ({'x': 1}, 'segments', "\"segments\" is missing; the row has 'x'. Set type to the format of such rows; segtune formats lists them."),
    ({'Segments': []}, 'segments', "Is 'Segments' meant?"),
    ({'segments': None}, 'segments', 'd.jsonl:1 segments: expected a list, got null. Write a list of objects with "text" and "label".'),
    ({'segments': [{'text': None, 'label': True}]}, 'segments', 'segments[0].text: expected a string, got null. Write the text as a string.')])
def test_rows_of_another_format(place, data, kind, wanted):
    (place/'d.jsonl').write_text(json.dumps(data)+'\n')
    assert wanted in told(head+entry)


def test_which_message_lacks_its_role(place):
    (place/'d.jsonl').write_text(json.dumps({'messages': [{'role': 'user', 'content': 'a'}, {'content': 'b'}]})+'\n')
    assert "d.jsonl:1 messages[1]: the field 'role' is missing" in told(head+entry.replace('segments', 'chat')+'    chat_template: chatml\n')


@pytest.mark.parametrize('name, wanted', [
    ('d.jsonl.xz', "'.xz' files are not read"), ('d.zip', "'.zip' files are not read"), ('d.xyz', 'does not say what it holds')])
def test_a_packed_file_is_named(place, name, wanted):
    os.rename('d.jsonl', name)
    assert wanted in told(head+entry.replace('d.jsonl', name))


def test_a_packed_file_that_says_nothing_of_it(place):
    import gzip
    (place/'d.jsonl').write_bytes(gzip.compress((json.dumps(row)+'\n').encode()))
    assert told(head+entry).startswith('d.jsonl: is packed, and its name does not say so. Name it d.jsonl.gz.')


def test_a_wrong_tokenizer_is_named_by_its_key(place):
    assert told(head+entry+'tokenizer_config: nowhere\n').startswith("config.yml:5 tokenizer_config: 'nowhere' is no directory")
    assert told('base_model: nowhere\n'+entry).startswith("config.yml:1 base_model: 'nowhere' is no directory")


def test_a_closed_terminal_is_none(monkeypatch):
    import sys

    from segtune.output import is_terminal, say
    monkeypatch.setattr(sys, 'stdout', None)
    assert is_terminal() is False and say('nobody reads this') is None


def test_a_wrong_value_of_a_grid_shows_before_any_row_is_read(place):
    from typer.testing import CliRunner

    from segtune import cli
    (place/'config.yml').write_text(head+entry)
    r = CliRunner().invoke(cli.app, ['train', 'config.yml', '--set', 'lora_r=4,x', '--set', 'adapter=lora'])
    assert str(r.exception).startswith("--set lora_r: expected an integer, got 'x'.") and not (place/'last_run_prepared').exists()


@pytest.mark.parametrize('args, wanted', [
    (['train', 'config.yml', '--resume', '--overwrite'], '--overwrite: removes the run that --resume would go on with.'),
    (['verify', 'config.yml', '-o', 'no/x.svg'], "--out: no such directory: 'no'."),
    (['evaluate', 'config.yml', '--predictions', 'no/x.jsonl'], "--predictions: no such directory: 'no'.")])
def test_what_cannot_be_done_is_said_before_the_work(place, args, wanted):
    from typer.testing import CliRunner

    from segtune import cli
    (place/'config.yml').write_text(head+entry)
    (place/'model-out').mkdir()
    (place/'model-out/config.json').write_text('{}')  # generate asks for a model first
    assert str(CliRunner().invoke(cli.app, args).exception).startswith(wanted) and not (place/'last_run_prepared').exists()


@pytest.mark.parametrize('args, wanted', [
    (['inspect', 'config.yml', '--row', '99'], '--row: there is no row 99; the data has 3 rows, counted from 0.'),
    (['inspect', 'config.yml', '--row', '0', '--row', '3'], '--row: there is no row 3; the data has 3 rows'),
    (['generate', 'config.yml', '--row', '99'], '--row: there is no row 99; the data has 3 rows'),
    (['formats', 'nope'], "formats: unknown format 'nope'."),
    (['formats', 'no.pe'], "formats: 'no.pe' is not a format of segtune.")])
def test_a_message_names_what_was_typed(place, args, wanted):
    from typer.testing import CliRunner

    from segtune import cli
    (place/'config.yml').write_text(head+entry)
    (place/'model-out').mkdir()
    (place/'model-out/config.json').write_text('{}')  # generate asks for a model first
    assert str(CliRunner().invoke(cli.app, args).exception).startswith(wanted)

def test_a_mistake_brings_no_lines_of_segtunes_own(place):
    "also from a checkout, which no package manager has installed"
    from segtune.program import own_traceback
    from segtune.training.model import load_base
    (place/'model').mkdir()
    (place/'model/config.json').write_text(json.dumps(dict(model_type='llama', hidden_size=8, num_hidden_layers=1,
                                                           num_attention_heads=1, intermediate_size=8, vocab_size=8)))
    with pytest.raises(SegtuneError, match='cannot be loaded') as e: load_base('model')
    assert e.value.__cause__ and own_traceback(e.value) == ''


def test_damaged_files_of_an_adapter_are_named(place):
    from segtune.certificate import certify
    from segtune.training.load import load_adapter
    (place/'out').mkdir()
    (place/'out/adapter_config.json').write_text('{"base_model_name_or_path": "bundled:tiny", "peft_type": "LORA"}')
    (place/'out/adapter_model.safetensors').write_text('half')
    with pytest.raises(SegtuneError, match=r'^out/adapter_model\.safetensors: cannot be read \(.*\)\. Copy the file again'): load_adapter('out')
    (place/'out/run.json').write_text('{')
    (place/'config.yml').write_text(head+entry+'output_dir: out\n')
    states = {c.name: c.state for c in certify(Project.open('config.yml')).checks}
    assert states['training'] == states['training step'] == 'BROKEN'


# ---- what lint says of rows that were dropped

@pytest.mark.parametrize('more, why', [('dataset_exact_deduplication: true\n', 'same as an earlier row'), ('min_sample_len: 12\n', 'shorter than min_sample_len'),
                                       ('on_bad: skip\n', 'no trained token'), ('sequence_len: 12\n', 'too long')])
def test_only_what_is_too_long_is_called_so(place, more, why):
    "a row may be dropped for other reasons than its length"
    long = {'segments': [{'text': '<s>Question\n', 'label': False}, {'text': 'a b c d e f g h i j k l m</s>', 'label': True}]}
    masked = {'segments': [{'text': '<s>Question one', 'label': False}]}
    (place/'d.jsonl').write_text(''.join(json.dumps(o)+'\n' for o in (long, row, row, masked) if why != 'too long' or o is not masked))
    (place/'config.yml').write_text(head+entry+more)
    p = Project.open('config.yml').prepared
    dropped = {k.removeprefix('dropped: '): n for k, n in p.count.changed.items()}
    assert why in dropped
    found = {o['id']: o['rows'] for o in p.lint['rules']}
    assert found.get('too-long', 0) == dropped.get('too long', 0)
