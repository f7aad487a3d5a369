"Tokenizers for the tests: three real ones, and small ones of every family trained here."
import json
import os
from functools import cache

import pytest
from hypothesis import settings

from segtune.models import bundled
from segtune.tokenizer import FastTokenizer, load_tokenizer

# CI tries the same examples every time, so that a change is judged by what it changed; anyone's own machine tries new ones
settings.register_profile('ci', derandomize=True)
if os.environ.get('CI') == 'true': settings.load_profile('ci')

text = ['Hello there, how are you today?', 'goodbye and farewell to all of them', 'def f(x):\n    return x + 1\n\nprint(f(2))', 'Café déjà vu, naïve façade',
        'the quick brown fox jumps over the lazy dog', '  two spaces and\ttabs\n\n', '### Instruction:\nName a colour.\n\n### Response:\nBlue.', '東京は日本の首都です 😀 👍🏽 ok']*20
special = ['<unk>', '<s>', '</s>', '<|im_end|>']


def _train(model, trainer, normalizer=None, pre=None, decoder=None):
    from tokenizers import Tokenizer
    t = Tokenizer(model)
    if normalizer: t.normalizer = normalizer
    if pre: t.pre_tokenizer = pre
    if decoder: t.decoder = decoder
    t.train_from_iterator(text, trainer)
    return json.loads(t.to_str())


def _byte_level(prefix, normalizer=None):
    from tokenizers import decoders, models, pre_tokenizers, trainers
    pre = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tr = trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    return _train(models.BPE(), tr, normalizer, pre, decoders.ByteLevel())


def _metaspace(scheme):
    "BPE with byte fallback behind a Metaspace pre-tokenizer"
    from tokenizers import decoders, models, pre_tokenizers, trainers
    fallback = [f'<0x{b:02X}>' for b in range(256)]
    tr = trainers.BpeTrainer(vocab_size=900, special_tokens=special+fallback, show_progress=False)
    pre = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    spec = _train(models.BPE(unk_token='<unk>', byte_fallback=True, fuse_unk=True), tr, None, pre,
                  decoders.Sequence([decoders.Replace('▁', ' '), decoders.ByteFallback(), decoders.Fuse()]))
    return {**spec, 'added_tokens': [t for t in spec['added_tokens'] if t['content'] not in fallback]}


def _unigram(normalizer=None, scheme='always'):
    from tokenizers import decoders, models, pre_tokenizers, trainers
    tr = trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token='<unk>', show_progress=False)
    return _train(models.Unigram(), tr, normalizer, pre_tokenizers.Metaspace(prepend_scheme=scheme), decoders.Metaspace())


def _wordpiece():
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
    tr = trainers.WordPieceTrainer(vocab_size=400, special_tokens=['[UNK]', *special], show_progress=False)
    return _train(models.WordPiece(unk_token='[UNK]'), tr, normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer(), decoders.WordPiece())


def _stripping():
    "byte-level, with a special token that swallows the spaces around it"
    spec = _byte_level(False)
    for t in spec['added_tokens']:
        if t['content']=='<|im_end|>': t.update(lstrip=True, rstrip=True)
    return spec


def _nfc(spec): return {**spec, 'normalizer': {'type': 'NFC'}}


_made = {
    'mistral': lambda: load_tokenizer(bundled('mistral-v0.1')), 'mistral-chatml': lambda: load_tokenizer(bundled('mistral-v0.1-chatml')), 'gpt2': lambda: load_tokenizer(bundled('gpt2')),
    'byte-level': lambda: _byte_level(False), 'byte-level-prefix': lambda: _byte_level(True), 'byte-level-nfc': lambda: _nfc(_byte_level(False)), 'byte-level-strip': _stripping,
    'metaspace-always': lambda: _metaspace('always'), 'metaspace-first': lambda: _metaspace('first'), 'metaspace-never': lambda: _metaspace('never'),
    'unigram': _unigram, 'unigram-first': lambda: _unigram(scheme='first'), 'unigram-nfc': lambda: _nfc(_unigram()), 'wordpiece': _wordpiece,
}
tokenizer_names = list(_made)


@cache
def make_tokenizer(name):
    t = _made[name]()
    return t if isinstance(t, FastTokenizer) else FastTokenizer(t, dict(bos_token='<s>', eos_token='</s>', unk_token='<unk>'), source=name)


@pytest.fixture(params=tokenizer_names)
def tok(request): return make_tokenizer(request.param)
