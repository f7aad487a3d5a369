"""The bundled vocabularies as JavaScript, for the playground page; tools/docs.py writes them beside the site's scripts.

    python tools/playground.py DIR
"""
import base64
import json
import sys
from array import array
from pathlib import Path

VOCABULARIES = {"mistral-v0.1": "Mistral", "gpt2": "GPT-2"}

def units(text):
    "Length in UTF-16 units, as JavaScript counts"
    return len(text.encode("utf-16-le")) // 2

def packed(kind, numbers):
    found = array(kind, numbers)
    if sys.byteorder == "big": found.byteswap()
    return base64.b64encode(found.tobytes()).decode()

def vocabulary(name):
    "A tokenizer.json in few bytes: the tokens, and for each merge the token it makes and where that is cut"
    from segtune.models import bundled
    spec = json.loads((bundled(name) / "tokenizer.json").read_text(encoding="utf-8"))
    model = spec["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    pairs = [o.split(" ") if isinstance(o, str) else o for o in model["merges"]]
    pre = spec["pre_tokenizer"] or {}
    return {
        "name": name,
        "byteLevel": pre.get("type") == "ByteLevel",
        "special": [o["content"] for o in spec["added_tokens"]],
        "tokens": tokens,
        "results": packed("H", [model["vocab"]["".join(o)] for o in pairs]),
        "cuts": packed("B", [units(o[0]) for o in pairs]),
    }

def script(name):
    data = json.dumps(vocabulary(name), ensure_ascii=False, separators=(",", ":"))
    return f"(window.segtuneVocabularies ??= {{}})[{json.dumps(name)}] = {data};\n"

def write(folder):
    "Write one script for each vocabulary"
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in VOCABULARIES: (folder / f"{name}.js").write_text(script(name), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2: sys.exit(__doc__)
    write(sys.argv[1])
