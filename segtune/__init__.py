"""Fine-tune language models on prompts you write.

`import segtune as st` is all that a notebook needs; each name is loaded when it is first used.
"""
__version__ = "0.1.0"

_FACE = {
    "load_tokenizer": "tokenizer", "Segment": "segments", "SegtuneError": "segments",
    "show": "face", "encode": "face", "prepare": "face", "train": "face", "open": "face",
}


def __getattr__(name):
    if name not in _FACE: raise AttributeError(f"module 'segtune' has no attribute {name!r}")
    from importlib import import_module
    return getattr(import_module(f"segtune.{_FACE[name]}"), name)


def __dir__(): return sorted([*globals(), *_FACE])
