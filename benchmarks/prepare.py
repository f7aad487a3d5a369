"""What preparing rows costs: segtune with each back end, the libraries alone, and axolotl's map, on the same rows in one run.

    python benchmarks/prepare.py                    20,000 rows of 4 segments, two tokenizers; minutes
    python benchmarks/prepare.py --rows 2000        a quick look
    python benchmarks/prepare.py --growth           segtune alone on 10,000, 100,000 and 1,000,000 short rows, with one and two workers
    python benchmarks/prepare.py --growth --long    the same with rows of 4 segments
    python benchmarks/prepare.py --start            the published row 500 times: cold, found ready, and the help
    python benchmarks/prepare.py --write            also put the tables into RESULTS.md

Each measurement is a process of its own, from its start to its end, and the best of three: CPU seconds of all its threads and
children, wall seconds, and peak memory. `work` is the part in which it tokenizes, for programs that say so themselves. Python keeps
compiled modules, as pip leaves them, also where the environment forbids it.

axolotl cannot be installed beside these versions of its libraries. What its `type: input_output` does to each row is written
out here as in its `prompt_strategies/input_output.py`: the tokenizer is called once a segment, inside `datasets.map`. The
command `axolotl preprocess` costs its imports, its checks and its filters on top.
"""
import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

HERE = Path(__file__).resolve()
RESULTS = HERE.with_name('RESULTS.md')
NAMES = {'mistral-v0.1': 'SentencePiece (Mistral)', 'gpt2': 'byte-level (GPT-2)'}


# ---- the rows: functions of the standard library and what they do, numbered, so that no text occurs twice

def segments(i, known, bos, eos):
    "Four segments: masked, trained, masked, trained"
    for t in range(2):
        question, answer = known[(i*3+t*7) % len(known)]['segments']
        before = known[(i*5+1) % len(known)]['segments'][0]['text']+'\n\n' if t else ''
        yield dict(label=False, text=(bos if t == 0 else '')+f'# {i}.{t}\n{before}{question["text"]}')
        yield dict(label=True, text=answer['text']+eos)


def write_rows(path, n, tok):
    from segtune.data.stdlib import stdlib_rows
    known = list(stdlib_rows('', max_chars=900))
    bos = tok.bos if tok.bos != tok.eos else ''
    with open(path, 'w', encoding='utf-8') as f:
        for i, _ in enumerate(islice(cycle(known), n)): f.write(json.dumps(dict(segments=list(segments(i, known, bos, tok.eos))))+'\n')


def write_short_rows(path, n, tok):
    "A question and an answer of a dozen tokens"
    def row(i):
        question = dict(label=False, text=f'Question {i}: what is the sum of {i} and {i*7 % 1000}?\n')
        return dict(segments=[question, dict(label=True, text=f'It is {i+i*7 % 1000}, of course.</s>')])
    with open(path, 'w', encoding='utf-8') as f: f.writelines(json.dumps(row(i))+'\n' for i in range(n))


# ---- what is measured, each in a process of its own

def pieces(path, rows=1000):
    "The texts of all segments, some rows at a time"
    with open(path, 'rb') as f:
        while lines := list(islice(f, rows)): yield [s['text'] for o in lines for s in json.loads(o)['segments']]


def alone(path, encode):
    "CPU seconds and tokens of encoding alone"
    spent = n = 0
    for texts in pieces(path):
        start = time.process_time()
        n += encode(texts)
        spent += time.process_time()-start
    return dict(work=spent, tokens=n)


def run_tokenizers(path, folder, out):
    from tokenizers import Tokenizer
    tok = Tokenizer.from_file(str(folder/'tokenizer.json'))
    return alone(path, lambda texts: sum(map(len, tok.encode_batch_fast(texts, add_special_tokens=False))))


def run_fastokens(path, folder, out):
    from fastokens._native import Tokenizer
    tok = Tokenizer.from_json_str((folder/'tokenizer.json').read_text(encoding='utf-8'))
    return alone(path, lambda texts: len(tok.encode_batch_flat(texts)[0])//4)


def run_map(path, folder, out):
    from datasets import disable_progress_bars, load_dataset
    from transformers import AutoTokenizer
    disable_progress_bars()
    tok = AutoTokenizer.from_pretrained(str(folder))
    def tokenize_prompt(row):
        ids, labels = [], []
        for s in row['segments']:
            some = tok(s['text'], add_special_tokens=False, return_tensors=None)['input_ids']
            ids += some
            labels += some if s['label'] else [-100]*len(some)
        return dict(input_ids=ids, labels=labels, attention_mask=[1]*len(ids))
    ds = load_dataset('json', data_files=str(path), split='train', cache_dir=str(out/'cache'))
    start = time.process_time()
    ds = ds.map(tokenize_prompt, remove_columns=list(ds.features))
    work = time.process_time()-start
    ds.save_to_disk(str(out/'saved'))
    return dict(work=work, tokens=sum(map(len, ds['input_ids'])))


def run_segtune(path, folder, out):
    from segtune.cli import main
    config = out/'config.yml'
    config.write_text(f'base_model: bundled:{folder.name}\nsequence_len: 4096\ndatasets:\n- path: {path}\n')
    sys.argv = ['segtune', 'preprocess', str(config), '--workers', os.environ.get('BENCH_WORKERS', '1')]
    main()


RUNS = dict(segtune=run_segtune, tokenizers=run_tokenizers, fastokens=run_fastokens, map=run_map)


def measure(kind, path, folder, times, **environ):
    "The best of several runs: CPU and wall seconds, peak memory in MB, and what the run says of itself"
    return min((measure_once(kind, path, folder, environ) for _ in range(times)), key=lambda o: o['cpu'])


def environment(): return {k: v for k, v in os.environ.items() if k != 'PYTHONDONTWRITEBYTECODE'}


def measure_once(kind, path, folder, environ):
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, str(HERE), '--one', kind, str(path), str(folder), out]
        start = time.perf_counter()
        with open(Path(out)/'said', 'w+') as said:
            p = subprocess.Popen(command, env={**environment(), **environ}, stdout=said, stderr=subprocess.STDOUT)
            _, status, used = os.wait4(p.pid, 0)
            p.returncode = os.waitstatus_to_exitcode(status)
            said.seek(0)
            text = said.read()
    if p.returncode: raise SystemExit(f'{kind} failed:\n{text}')
    told = json.loads(text.splitlines()[-1]) if kind != 'segtune' else {}
    return dict(cpu=used.ru_utime+used.ru_stime, wall=time.perf_counter()-start, peak=used.ru_maxrss/1024, **told)


# ---- tables

def table(head, rows):
    return '\n'.join('| '+' | '.join(map(str, o))+' |' for o in [head, ['---']*len(head), *rows])


def compare(name, n, times, folder):
    from segtune.models import bundled
    from segtune.tokenizer import load_tokenizer
    where, tok = bundled(name), load_tokenizer(bundled(name))
    path, few = folder/f'{name}.jsonl', folder/f'{name}.few.jsonl'
    write_rows(path, n, tok)
    write_rows(few, 20, tok)
    measure('segtune', path, where, 1) # untimed: proves the fast library for this tokenizer, which is remembered
    m = {'start-up of segtune, 20 rows': measure('segtune', few, where, times),
         'segtune preprocess, fastokens': measure('segtune', path, where, times),
         'fastokens alone': measure('fastokens', path, where, times),
         'segtune preprocess, tokenizers': measure('segtune', path, where, times, SEGTUNE_FAST='0'),
         'tokenizers alone, encode_batch_fast': measure('tokenizers', path, where, times),
         "axolotl's map": measure('map', path, where, times)}
    rows = [(k, f'{o["cpu"]:.2f}', f'{o["work"]:.2f}' if 'work' in o else '', f'{o["wall"]:.2f}', f'{o["peak"]:.0f}') for k, o in m.items()]
    start, fast, alone_fast, slow, alone_slow, per_row = m.values()
    tokens = per_row['tokens']/n
    beyond = [(fast['cpu']-start['cpu'])/alone_fast['work'], (slow['cpu']-start['cpu'])/alone_slow['work']]
    text = [f'### {NAMES[name]}: {n:,} rows of 4 segments, {tokens:.0f} tokens in the mean row', '',
            table(['', 'CPU s', 'of it work', 'wall s', 'peak MB'], rows), '',
            f'- With fastokens, beyond start-up: {beyond[0]:.1f} times fastokens alone.',
            f"- With fastokens, whole: {per_row['work']/fast['cpu']:.1f} times less than the work of axolotl's map,"
            f' {per_row["cpu"]/fast["cpu"]:.1f} times less than its process.',
            f'- With tokenizers, whole: {slow["cpu"]/alone_slow["work"]:.2f} times encode_batch_fast alone;'
            f' beyond start-up {beyond[1]:.2f} times.']
    return '\n'.join(text)


def grow(name, sizes, times, folder, long):
    from segtune.models import bundled
    from segtune.tokenizer import load_tokenizer
    where, rows, path, tok = bundled(name), [], folder/'grow.jsonl', load_tokenizer(bundled(name))
    write = write_rows if long else write_short_rows
    write(path, 1000, tok)
    measure('segtune', path, where, 1) # untimed, as above
    for n in sizes:
        write(path, n, tok)
        runs = [[measure_once('segtune', path, where, dict(BENCH_WORKERS=w)) for w in '12'] for _ in range(times)] # in turn
        one, two = (min(o, key=lambda o: o['wall']) for o in zip(*runs))
        faster = sorted(a['wall']/b['wall'] for a, b in runs)[times//2]
        rows.append((f'{n:,}', f'{one["cpu"]:.1f}', f'{one["cpu"]/n*1e6:.0f}', f'{one["wall"]:.1f}', f'{one["peak"]:.0f}',
                     f'{two["wall"]:.1f}', f'{two["peak"]:.0f}', f'{faster:.2f}'))
        print(*rows[-1], flush=True)
    head = ['rows', 'CPU s', 'CPU µs a row', 'wall s', 'peak MB', 'wall s, two workers', 'peak MB of the largest process', 'times faster, median']
    return f'### Growth: {NAMES[name]}, fastokens, {"rows of 4 segments" if long else "short rows"}; {times} runs of each in turn\n\n'+table(head, rows)


PUBLISHED = dict(segments=[dict(label=True, text='<s>Hello\n'), dict(label=True, text='hi there!. '),
                           dict(label=False, text='goodbye '), dict(label=True, text='farewell</s>')])
CONFIG = """base_model: bundled:mistral-v0.1
datasets:
  - path: output.jsonl
    type: input_output
val_set_size: 0.1
sequence_len: 896
seed: 49
special_tokens: {bos_token: "<s>", eos_token: "</s>", unk_token: "<unk>"}
"""


def spent(folder, *argv):
    "CPU and wall seconds of one command"
    start = time.perf_counter()
    p = subprocess.Popen([sys.executable, '-m', 'segtune', *argv], cwd=folder, env=environment(), stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(p.pid, 0)
    p.returncode = os.waitstatus_to_exitcode(status)
    if p.returncode: raise SystemExit(f'segtune {" ".join(argv)} failed')
    return used.ru_utime+used.ru_stime, time.perf_counter()-start


def start_up(folder, times):
    "The published example, as a person meets it: the best and the middle of several runs"
    (folder/'output.jsonl').write_text((json.dumps(PUBLISHED)+'\n')*500)
    (folder/'config.yml').write_text(CONFIG)
    debug, runs = ('preprocess', 'config.yml', '--debug'), {}
    spent(folder, *debug) # Python compiles the modules, unless the environment forbids it
    for _ in range(times):
        shutil.rmtree(folder/'last_run_prepared')
        for what, argv in {'cold': debug, 'found ready': debug, 'segtune --help': ('--help',)}.items(): runs.setdefault(what, []).append(spent(folder, *argv))
    rows = [(k, f'{min(o)[0]:.2f}', f'{sorted(o)[len(o)//2][0]:.2f}', f'{min(w for _, w in o):.2f}') for k, o in runs.items()]
    return f'`segtune preprocess config.yml --debug`, {times} runs of each in turn.\n\n'+table(['', 'CPU s, best', 'median', 'wall s, best'], rows)


def put(title, text):
    "Replace a section of RESULTS.md, or add it"
    old = RESULTS.read_text(encoding='utf-8')
    head, _, rest = old.partition(f'\n## {title}\n')
    _, mark, after = rest.partition('\n## ')
    RESULTS.write_text(f'{head.rstrip()}\n\n## {title}\n\n{text.strip()}\n{mark and chr(10)+"## "}{after}', encoding='utf-8')


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--rows', type=int, default=20_000, help='rows to prepare (default: 20,000)')
    p.add_argument('--times', type=int, default=3, help='runs of each, of which the best counts (default: 3)')
    p.add_argument('--tokenizer', choices=NAMES, action='append', help='default: both')
    p.add_argument('--growth', action='store_true', help='measure growth in place of the comparison')
    p.add_argument('--long', action='store_true', help='with --growth: the rows of the comparison, not short ones')
    p.add_argument('--start', action='store_true', help='measure the 500 rows of the published example in place of the comparison')
    p.add_argument('--sizes', type=int, nargs='+', default=[10_000, 100_000, 1_000_000], help='rows for --growth')
    p.add_argument('--write', action='store_true', help='put the tables into RESULTS.md')
    p.add_argument('--one', nargs=4, metavar=('KIND', 'ROWS', 'TOKENIZER', 'OUT'), help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.one:
        kind, *paths = a.one
        told = RUNS[kind](*map(Path, paths))
        return print(json.dumps(told)) if told else None
    folder = Path(tempfile.mkdtemp())
    try:
        names = a.tokenizer or list(NAMES)
        if a.start: parts = [start_up(folder, max(a.times, 7))]
        elif a.growth: parts = [grow(names[0], a.sizes, a.times, folder, a.long)]
        else: parts = [compare(o, a.rows, a.times, folder) for o in names]
    finally: shutil.rmtree(folder)
    when = f'{time.strftime("%Y-%m-%d")}, {platform.machine()}, {os.cpu_count()} cores shared with other work, so that ratios say more than seconds.'
    title = 'Preparing a growing file'+' of long rows'*a.long if a.growth else 'Preparing 500 rows' if a.start else 'Preparing rows'
    asked = ' --growth'+' --long'*a.long if a.growth else ' --start' if a.start else ''
    text = '\n\n'.join([f'Made by `benchmarks/prepare.py{asked}` on {when}', *parts])
    print(text)
    if a.write: put(title, text)


if __name__ == '__main__': main()
