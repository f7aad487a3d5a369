"""Make the Mistral tokenizers in segtune/assets/tokenizers from the package mistral-common, or check that they are equal.

    pip download --no-deps mistral-common==1.13.1
    python tools/make_tokenizers.py mistral_common-1.13.1-py3-none-any.whl            check what is there
    python tools/make_tokenizers.py mistral_common-1.13.1-py3-none-any.whl --write    write it again

Without a file, an installed mistral-common is used. Better not to install it, though: transformers 5 loads parts of it
for every Mistral model, and stops where the package's own requirements are missing.
"""
import argparse
import json
import struct
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "segtune" / "assets" / "tokenizers"
MODEL = "mistral_common/data/tokenizer.model.v1"
CONTROL = 3   # SentencePiece's number for pieces such as <s>
UNKNOWN = 2


# ---- the SentencePiece file, a protobuf message

def varint(data, at):
    "A number of any length, seven bits a byte, and where it ends"
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128: return value, at

def fields(message):
    "Every `(number, value)` of a protobuf message"
    at = 0
    while at < len(message):
        key, at = varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == 0: value, at = varint(message, at)
        elif kind == 2:
            size, at = varint(message, at)
            value, at = message[at:at + size], at + size
        elif kind in (1, 5):
            code, size = {1: ("<d", 8), 5: ("<f", 4)}[kind]
            value, at = struct.unpack_from(code, message, at)[0], at + size
        else: sys.exit(f"make_tokenizers.py: the file is no SentencePiece model, or a damaged one (wire type {kind})")
        yield number, value

def pieces(model):
    "`(text, score, kind)` of each piece, in the order of its ids"
    for number, value in fields(model):
        if number == 1:
            piece = dict(fields(value))
            yield piece[1].decode(), piece.get(2, 0.0), piece.get(3, 1)


# ---- the same as BPE

def merges(scores):
    "Pairs of pieces that make a piece, best score first; of one piece's pairs, the one with the smaller ids first"
    ids = {o: i for i, o in enumerate(scores)}
    found = []
    for whole, score in scores.items():
        cuts = [(whole[:i], whole[i:]) for i in range(1, len(whole))]
        pairs = sorted((ids[a], ids[b], a, b) for a, b in cuts if a in ids and b in ids)
        found += [(-score, a, b) for *_, a, b in pairs]
    return [(a, b) for _, a, b in sorted(found, key=lambda o: o[0])]

def mistral(model):
    "The tokenizer of Mistral-7B-v0.1, with the space it invents at the start"
    known = list(pieces(model))
    scores = {text: score for text, score, _ in known}
    bpe = models.BPE(vocab={o: i for i, o in enumerate(scores)}, merges=merges(scores), unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tok = Tokenizer(bpe)
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tok.add_special_tokens([AddedToken(text, normalized=False, special=True) for text, _, kind in known if kind in (CONTROL, UNKNOWN)])
    tok.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", tok.token_to_id("<s>"))])
    return tok

def with_chatml(tok):
    "The same with the two tokens that fine-tuning on ChatML adds"
    tok = Tokenizer.from_str(tok.to_str())
    tok.add_special_tokens([AddedToken("<|im_end|>", normalized=False, special=True)])
    tok.add_tokens([AddedToken("<|im_start|>", normalized=False, special=False)])
    return tok


# ---- compare and write

def read_model(wheel=None):
    "The bytes of the SentencePiece file, out of a wheel or the installed package"
    if wheel:
        with zipfile.ZipFile(wheel) as z: return z.read(MODEL)
    spec = find_spec("mistral_common")
    if not spec: sys.exit("make_tokenizers.py: mistral-common is not installed. Give its wheel: pip download --no-deps mistral-common==1.13.1")
    return (Path(spec.submodule_search_locations[0]).parent / MODEL).read_bytes()

def differences(ours, bundled):
    "What differs between two tokenizers, by part"
    a, b = json.loads(ours.to_str()), json.loads(bundled.to_str())
    return [o for o in ("added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder") if a[o] != b[o]] + \
           [f"model.{o}" for o in a["model"].keys() | b["model"].keys() if a["model"].get(o) != b["model"].get(o)]

def write(tok, file):
    "One merge a line, half the size of what `tok.save` writes"
    spec = json.loads(tok.to_str())
    spec["model"]["merges"] = [" ".join(o) for o in spec["model"]["merges"]]
    file.write_text(json.dumps(spec, indent=2, ensure_ascii=False), encoding="utf-8")

def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("wheel", nargs="?", help="the mistral-common wheel; without it the installed package")
    p.add_argument("--write", action="store_true", help="write tokenizer.json instead of comparing")
    args = p.parse_args()
    base = mistral(read_model(args.wheel))
    wrong = False
    for name, tok in {"mistral-v0.1": base, "mistral-v0.1-chatml": with_chatml(base)}.items():
        file = FOLDER / name / "tokenizer.json"
        if args.write: write(tok, file)
        found = differences(tok, Tokenizer.from_file(str(file)))
        wrong |= bool(found)
        print(f"{name}: {tok.get_vocab_size()} tokens, {'differs in ' + ', '.join(found) if found else 'equal'}")
    return wrong


if __name__ == "__main__": sys.exit(main())
