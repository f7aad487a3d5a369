"Our tokenizers give the ids that transformers gives, and spell what they encode."
import json

import pytest
from conftest import make_tokenizer, tokenizer_names
from hypothesis import given, settings
from hypothesis import strategies as st
from test_laws import texts

from segtune.models import bundled
from segtune.segments import TokenizerError
from segtune.tokenizer import as_tokenizer, load_tokenizer
from segtune.tokenizer_file import is_library_fault

plain = ['Hello there', ' leading', 'trailing ', '  two  spaces', 'line\n\nbreaks\t', 'Café déjà vu', '東京 😀 👍🏽', 'a\u0301', '</s> and <s>', '<|im_start|>user\nhi<|im_end|>\n',
         '<|endoftext|>', 'def f(x):\n    return x + 1', '12345 3.14', '\0', '▁', '']


@pytest.mark.parametrize('name', ['mistral-v0.1', 'mistral-v0.1-chatml', 'gpt2', 'tiny'])
def test_ids_are_those_of_transformers(name):
    from transformers import AutoTokenizer
    theirs, ours = AutoTokenizer.from_pretrained(bundled(name)), load_tokenizer(bundled(name))
    for text in [*plain, ''.join(plain)]:
        assert ours.backend.encode(text).ids == theirs(text, add_special_tokens=False)['input_ids'], text
    assert as_tokenizer(theirs).backend.encode(''.join(plain)).ids == ours.backend.encode(''.join(plain)).ids
    assert (ours.eos, ours.bos or theirs.bos_token) == (theirs.eos_token, theirs.bos_token)


def test_added_tokens_are_those_of_transformers():
    from transformers import AutoTokenizer
    theirs = AutoTokenizer.from_pretrained(bundled('gpt2'))
    theirs.add_special_tokens({'pad_token': '<pad>'})
    theirs.add_tokens(['<tool>', 'hello'])
    ours = load_tokenizer(bundled('gpt2'), {'pad_token': '<pad>'}, ['<tool>', 'hello'])
    text = 'say hello<tool> there <pad>hellothere'
    assert ours.backend.encode(text).ids == theirs(text, add_special_tokens=False)['input_ids']
    assert len(ours) == len(theirs)


@pytest.mark.parametrize('name', [n for n in tokenizer_names if not make_tokenizer(n).is_lossy])
@settings(max_examples=100, deadline=None)
@given(text=texts)
def test_lossless_tokenizers_spell_the_text(name, text):
    "byte for byte, but for the spaces that the tokenizer itself invents, and U+2581, which stands for a space in some"
    tok = make_tokenizer(name)
    spelled = tok.to_bytes(tok.backend.encode(text).ids).decode()
    if tok.adds_prefix_space or 'metaspace' in name:
        assert spelled.replace('▁', ' ').replace(' ', '') == text.replace('▁', ' ').replace(' ', '')
    else: assert spelled == text


@pytest.mark.parametrize('prefix', ['a', 'abcdef', 'a prefix longer than any token', 'é'])
def test_merges_that_the_library_would_not_survive_are_one_clear_error(tmp_path, prefix):
    "a prefix of subwords that the merges do not have ends in a Rust panic, or ends the process"
    spec = json.loads(json.dumps(make_tokenizer('byte-level').spec))
    spec['model']['continuing_subword_prefix'] = prefix
    (tmp_path/'tokenizer.json').write_text(json.dumps(spec))
    with pytest.raises(TokenizerError, match=r'continuing_subword_prefix is .* model\.merges\[\d+\] does not have'): load_tokenizer(tmp_path)


def test_a_panic_counts_as_a_fault_of_the_library_and_ctrl_c_does_not():
    PanicException = type('PanicException', (BaseException,), {})
    assert is_library_fault(PanicException()) and is_library_fault(ValueError())
    assert not is_library_fault(KeyboardInterrupt()) and not is_library_fault(SystemExit())


# ---- files that are not as they should be

@pytest.mark.parametrize('file,text', [
    ('tokenizer_config.json', '{"eos_token": "\\ud800"}'), ('tokenizer_config.json', '{"chat_template": "a \\udc00 b"}'),
    ('special_tokens_map.json', '{"pad_token": {"content": "\\uDBFF"}}'), ('tokenizer_config.json', '{"x": "\\ud83d\\ud83d"}'),
    ('tokenizer_config.json', b'\xff\xfe'), ('chat_template.jinja', b'\xff{{ x }}')])
def test_text_that_is_no_text_is_refused_with_its_file(tmp_path, file, text):
    (tmp_path/'tokenizer.json').write_bytes((bundled('gpt2')/'tokenizer.json').read_bytes())
    (tmp_path/file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(TokenizerError, match=file): load_tokenizer(tmp_path)


def test_a_character_of_two_halves_is_text(tmp_path):
    (tmp_path/'tokenizer.json').write_bytes((bundled('gpt2')/'tokenizer.json').read_bytes())
    (tmp_path/'tokenizer_config.json').write_text('{"pad_token": "\\ud83d\\ude00"}')
    assert load_tokenizer(tmp_path).pad == '😀' and len(load_tokenizer(tmp_path).fingerprint()) == 64


def unknown_to_none():
    "A tokenizer that names an unknown token that it does not have"
    from segtune.tokenizer import FastTokenizer
    model = dict(type='BPE', vocab={c: i for i, c in enumerate('abc')}, merges=[], unk_token='?')
    return FastTokenizer(dict(version='1.0', added_tokens=[], model=model, pre_tokenizer=dict(type='WhitespaceSplit')))


@pytest.mark.parametrize('what', ['encode', 'lint', 'format'])
def test_a_text_that_the_library_cannot_encode_names_the_tokenizer(what):
    from segtune.encoder import Encoder
    from segtune.formats.base import format_context
    from segtune.lint.linter import Linter
    from segtune.segments import Segment
    tok = unknown_to_none()
    fits, odd = [Segment('a b', False), Segment(' c', True)], [Segment('a b', False), Segment(' x', True)]
    encoder = Encoder(tok)
    if what == 'lint':   # a space alone cannot be encoded, and is in no token
        found = Linter(encoder).add(encoder.encode([fits])).finish()
        assert 'dropped-text' not in {o.rule for o in found}
        return
    with pytest.raises(TokenizerError, match='cannot encode'): encoder.encode([odd]) if what == 'encode' else format_context(tok).encode('x')


@pytest.mark.parametrize('field,value', [('content', True), ('content', None), ('content', ['a']), ('id', 'x'), ('id', 1.5), ('special', 'yes'), ('lstrip', None)])
def test_an_added_token_of_another_type_is_refused_or_read_as_the_library_reads_it(tmp_path, field, value):
    spec = json.loads((bundled('gpt2')/'tokenizer.json').read_text())
    spec['added_tokens'][0][field] = value
    (tmp_path/'tokenizer.json').write_text(json.dumps(spec))
    with pytest.raises(TokenizerError, match=r'tokenizer\.json'): load_tokenizer(tmp_path)


def plain_tokens(texts, normalized=False):
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=normalized, special=True)
    return [dict(flags, id=9000+i, content=t) for i, t in enumerate(dict.fromkeys(texts))]


bits = ['<', 'a', 'ab', '<s', '>', 's>', 'b<', ' ', 'é', '東', '</', '|']


@settings(max_examples=300, deadline=None)
@given(names=st.lists(st.lists(st.sampled_from(bits), min_size=1, max_size=4).map(''.join), min_size=1, max_size=6), parts=st.lists(st.sampled_from(bits), max_size=14), data=st.data())
def test_special_tokens_are_cut_where_the_library_cuts(names, parts, data):
    "also where one is the beginning of another, or two overlap"
    from segtune.tokenizer import FastTokenizer, _library_cutter
    text, added = ''.join([*parts, *data.draw(st.lists(st.sampled_from(names), max_size=3))]), plain_tokens(names)
    tok = FastTokenizer({**make_tokenizer('metaspace-always').spec, 'added_tokens': added})
    assert tok.cut_special(text) == [tuple(o) for o in _library_cutter(added)(text)]


def test_tokens_that_look_at_their_neighbours_are_cut_by_the_library():
    from segtune.tokenizer import FastTokenizer
    spec = make_tokenizer('metaspace-always').spec
    strips, word = plain_tokens(['<t>']), plain_tokens(['word'])
    strips[0]['rstrip'] = word[0]['single_word'] = True
    assert FastTokenizer({**spec, 'added_tokens': strips}).cut_special('a<t>  b') == [(1, 6)]
    assert FastTokenizer({**spec, 'added_tokens': word}).cut_special('a word, words') == [(2, 6)]
    assert FastTokenizer({**spec, 'added_tokens': plain_tokens(['<t>'])+plain_tokens(['t'], True)}).cut_special('t<t>') == [(0, 1), (1, 4)]


def test_a_vocabulary_is_spelled_token_by_token():
    "all at once, as it would be one by one"
    from segtune.tokenizer_file import spell_tokens
    for name in tokenizer_names:
        tok = make_tokenizer(name)
        vocab = tok.backend.get_vocab(with_added_tokens=True)
        added = {i: t.content.encode() for i, t in tok.backend.get_added_tokens_decoder().items()}
        assert len(tok.token_bytes) == 1+max(vocab.values())
        for t, i in list(vocab.items())[::7]: assert tok.token_bytes[i] == (added[i] if i in added else spell_tokens(tok.spec, [t])[0])
