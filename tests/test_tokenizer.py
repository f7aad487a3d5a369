"Our tokenizers give the ids that transformers gives, and spell what they encode."
import json

import pytest
from conftest import make_tokenizer, tokenizer_names
from hypothesis import given, settings
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
