"""Say that today's code makes the same tokens as before, once the tests have proved it.

    python tools/tokens.py           run the goldens and the laws; if they pass, today's code is added to the table
    python tools/tokens.py --check   only say whether today's code is in the table
    python tools/tokens.py --new     the tokens are meant to change: today's code begins a new name

The table is segtune/assets/tokens.json: the fingerprint of the code, and the name of the tokens that it makes. Prepared
data is kept under that name, so that a change which leaves every token as it was finds the data ready. Run this as the
last step of such a change, after `nbdev_export`. Never run it to silence a test.
"""
import argparse
import json
import subprocess
import sys

from check import ROOT, environment

TABLE = ROOT / "segtune" / "assets" / "tokens.json"
PROOF = ["tests/test_goldens.py", "tests/test_laws.py", "tests/test_segments.py", "tests/test_formats.py"]


def fingerprint():
    "Of the code as it stands in this checkout, asked in a fresh process"
    code = "from segtune.data.prepare import code_fingerprint, token_modules; print(code_fingerprint(token_modules))"
    how = dict(cwd=ROOT, env=environment(), check=True, capture_output=True, text=True)
    return subprocess.run([sys.executable, "-c", code], **how).stdout.strip()

def proved():
    "Do the goldens and the laws pass?"
    command = [sys.executable, "-m", "pytest", "-q", "-x", *PROOF]
    return subprocess.run(command, cwd=ROOT, env=environment(), check=False).returncode == 0

def add(table, code, new=False):
    "The table with this code in it, under the newest name or as a name of its own"
    newest = code if new or not table else list(table.values())[-1]
    return {**{k: v for k, v in table.items() if k != code}, code: newest}

def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether today's code is in the table")
    parser.add_argument("--new", action="store_true", help="the tokens are meant to change")
    args = parser.parse_args(argv)
    code, table = fingerprint(), json.loads(TABLE.read_text(encoding="utf-8"))
    if code in table and not args.new:
        print(f"{code[:12]} makes the tokens {table[code][:12]}")
        return 0
    if args.check:
        print(f"{code[:12]} is not in {TABLE.relative_to(ROOT)}: its data is prepared anew")
        return 1
    if not proved():
        print("not added: a test failed")
        return 1
    TABLE.write_text(json.dumps(add(table, code, args.new), indent=1) + "\n", encoding="utf-8")
    print(f"{code[:12]} is added to {TABLE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__": sys.exit(main())
