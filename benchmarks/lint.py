"""CPU seconds to lint rows against CPU seconds to encode them, for the bundled tokenizers.

    python benchmarks/lint.py                 100,000 rows for each tokenizer and boundary; minutes
    python benchmarks/lint.py --rows 5000     a quick look

Rows are functions of the Python standard library and what they do; where there are not enough, they come again with a number
before them. Time is that of the whole process, the tokenizer's threads included.
"""
import argparse
import time
from functools import partial
from itertools import cycle, islice

from segtune.data.stdlib import stdlib_rows
from segtune.encoder import Encoder
from segtune.lint.linter import Linter
from segtune.models import bundled
from segtune.segments import Segment
from segtune.tokenizer import load_tokenizer


def rows(n, tok, turns):
    "n rows as segments; `turns` questions and answers in each"
    known = list(stdlib_rows(''))
    for i, row in enumerate(islice(cycle(known), n)):
        out = [Segment(tok.bos, False)] if tok.bos != tok.eos else []
        for t in range(turns):
            question, answer = known[(i+t*7) % len(known)]['segments'] if t else row['segments']
            out += [Segment(f'# {i}.{t}\n{question["text"]}', False), Segment(answer['text']+tok.eos, True)]
        yield out


def cpu(f):
    start = time.process_time()
    out = f()
    return out, time.process_time()-start


def measure(name, boundary, n, turns, size=1000):
    tok = load_tokenizer(bundled(name))
    encoder = Encoder(tok, boundary)
    linter, linting = cpu(lambda: Linter(encoder, sequence_len=2048))
    source, encoding, tokens = rows(n, tok, turns), 0, 0
    while chunk := list(islice(source, size)):
        batch, t = cpu(partial(encoder.encode, chunk))
        encoding, tokens = encoding+t, tokens+len(batch.ids)
        linting += cpu(partial(linter.add, batch, [f'stdlib:{i}' for i in range(len(chunk))]))[1]
    linting += cpu(linter.finish)[1]
    print(f'{name:14} {boundary:8} {turns} turns {n:8,} rows {tokens/1e6:6.1f} M tokens   encode {encoding:7.2f} s   lint {linting:7.2f} s   '
          f'lint/encode {linting/encoding:.3f}   {dict(linter.counts)}', flush=True)
    return linting/encoding


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--rows', type=int, default=100_000, help='rows to lint (default: 100,000)')
    p.add_argument('--turns', type=int, default=0, help='questions and answers in a row (default: 1, and 4 on a tenth of the rows)')
    a = p.parse_args()
    cases = [(name, boundary) for name in ('mistral-v0.1', 'gpt2') for boundary in ('split', 'axolotl')]
    plans = [(a.turns, a.rows)] if a.turns else [(1, a.rows), (4, max(1, a.rows//10))]
    worst = max(measure(*case, n, turns) for turns, n in plans for case in cases)
    print(f'the highest lint/encode is {worst:.3f}')


if __name__ == '__main__': main()
