"What goes into cache keys and run.json about a format stays the same from version to version."
import json
from pathlib import Path

import pytest

from segtune.data.formats import example_format
from segtune.formats.base import formats
from segtune.models import bundled
from segtune.tokenizer import load_tokenizer

FROZEN = json.loads((Path(__file__).parent / "identities.json").read_text(encoding="utf-8"))


def asked():
    "`type|boundary|sequence_len` of everything that is frozen"
    for name, f in formats.items():
        for style in (None, *f.styles):
            for boundary in ("split", "axolotl"): yield f"{name}{':' + style if style else ''}|{boundary}|256"
        yield f"{name}|axolotl|None"

def identity(key, tok):
    "All that decides the tokens of a format's rows, as JSON gives it back"
    name, boundary, length = key.split("|")
    base, _, style = (name, "", "") if name in formats else name.partition(":")
    options = dict(boundary=boundary, sequence_len=None if length == "None" else int(length))
    if style: options["style"] = style
    f = example_format(base, tok, **options)
    windows = f.windows and list(f.windows)
    found = dict(identity=f.identity, boundary=f.boundary, cut=f.cut, windows=windows, train_on_inputs=f.train_on_inputs)
    return json.loads(json.dumps(found))

@pytest.fixture(scope="module")
def tok(): return load_tokenizer(bundled("mistral-v0.1"))


@pytest.mark.parametrize("key", FROZEN)
def test_the_identity_of_a_format_is_what_it_was(key, tok): assert identity(key, tok) == FROZEN[key]

def test_every_format_is_frozen(): assert set(FROZEN) == set(asked()), "freeze a new format's identity in identities.json"
