"Statistics against counting by hand, and plots that show those numbers."
import matplotlib

matplotlib.use('Agg')

import numpy as np
import pytest
from conftest import make_tokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segtune.encoder import Encoder
from segtune.look.stats import by_source, length_histogram, plot_lengths, plot_shares, plot_sources, row_stats, share_histogram, stats_lines, totals
from segtune.segments import Segment

quick = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
rows = st.lists(st.lists(st.booleans(), max_size=30), max_size=25)


def pairs(rows): return [(list(range(len(r))), [i if on else -100 for i, on in enumerate(r)]) for r in rows]


@quick
@given(rows=rows, limit=st.integers(1, 30))
def test_totals(rows, limit):
    t = totals(row_stats(pairs(rows)), limit)
    n, on = [len(r) for r in rows], [sum(r) for r in rows]
    assert (t['rows'], t['tokens'], t['trained']) == (len(rows), sum(n), sum(on))
    assert (t['shortest'], t['longest']) == (min(n, default=0), max(n, default=0))
    assert t['untrained'] == on.count(0) and t['over'] == sum(k > limit for k in n)
    if rows: assert sorted(n)[(len(n)-1)//2] <= t['median'] <= sorted(n)[len(n)//2] and t['p95'] in n


@quick
@given(rows=rows)
def test_histograms_hold_every_row_once(rows):
    df = row_stats(pairs(rows))
    for h, values in ((length_histogram(df), df.tokens), (share_histogram(df), df.share)):
        assert h.rows.sum() == len(rows) and np.all(h.start[1:].values == h.end[:-1].values)
        for a, b, n in zip(h.start, h.end, h.rows): assert n == sum((a <= v < b) or (v == b == h.end.iloc[-1]) for v in values)
    assert len(length_histogram(df)) <= 31


@quick
@given(rows=rows.filter(bool), names=st.lists(st.sampled_from(['a.jsonl', 'b.jsonl', 'c']), min_size=25, max_size=25))
def test_sources(rows, names):
    s = by_source(row_stats(pairs(rows), [(o, 1) for o, _ in zip(names, rows)]))
    assert list(s.index) == list(dict.fromkeys(names[:len(rows)]))
    assert s.rows.sum() == len(rows) and s.trained.sum() == sum(map(sum, rows))
    assert s.weight.sum() == pytest.approx(1 if s.trained.sum() else 0)
    for name, line in s.iterrows(): assert line.tokens == sum(len(r) for r, o in zip(rows, names) if o == name)


def test_a_batch_and_its_rows_count_alike():
    batch = Encoder(make_tokenizer('gpt2')).encode([[Segment('What is it?', False), Segment(' A test.', True)], [], [Segment('All.', True)]], spans=True)
    one, other = row_stats(batch), row_stats([batch.row(i) for i in range(3)])
    assert one.equals(other) and one.trained.tolist() == [3, 0, 2]


def test_lines_for_a_terminal():
    df = row_stats(pairs([[True]*4, [False]*4, [True, False]]), [('a', 1), ('a', 2), ('b', 1)])
    lines = stats_lines(df, 3)
    assert lines[:3] == ['3 rows, 10 tokens, 5 of them trained (50.0%)',
                         'tokens in a row: shortest 2, median 4, 95% up to 4, longest 4; sequence_len is 3', 'rows without a trained token: 1']
    assert [o.split() for o in lines[-2:]] == [['a', '2', '8', '4', '50.0%', '80.0%', '4', '4'], ['b', '1', '2', '1', '50.0%', '20.0%', '2', '2']]
    assert stats_lines(row_stats([]))[0] == '0 rows, 0 tokens, 0 of them trained (0.0%)'


def test_plots_show_the_numbers():
    df = row_stats(pairs([[True]*4, [False]*4, [True, False]]), [('a', 1), ('a', 2), ('b', 1)])
    for ax in (plot_lengths(df, 3), plot_shares(df)): assert sum(p.get_height() for p in ax.patches) == 3
    assert [t.get_text() for t in plot_sources(df).get_yticklabels()] == ['a', 'b']
