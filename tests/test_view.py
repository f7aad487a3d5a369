"The views of a row: the printed line to the byte, and nothing lost or invented for any tokenizer."
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import make_tokenizer, tokenizer_names
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from segtune.encoder import Encoder
from segtune.look.terminal import print_row
from segtune.look.view import _line, as_row, char_pieces, fold, segment_numbers, show, token_line, token_table, view, view_tokens, visible
from segtune.pieces import boundaries
from segtune.segments import Segment

GOLDEN = json.loads((Path(__file__).parent/'data'/'debug_print.json').read_text(encoding='utf-8'))
forms = dict(plain_line={}, colored_line=dict(color=True), text_only_line=dict(text_only=True), text_only_colored=dict(color=True, text_only=True))
parts = ['<s>', '</s>', ' ', '  ', '\n', '\n\n', '\t', '\u200b', '\u0301', 'é', '東京', '😀', '👨‍👩‍👧', 'שלום', '·', '·', '▁', '⏎', 'Hello', ' there', '<b>&amp;', '"', '##ing', '\0']
rows = st.lists(st.builds(Segment, st.lists(st.sampled_from(parts), max_size=5).map(''.join), st.booleans()), max_size=5)
quick = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
every_tokenizer = pytest.mark.parametrize('name', tokenizer_names)


def fast_name(name): return name.removesuffix('-slow').replace('mistral-v0.1', 'mistral')

@pytest.mark.parametrize('form', forms)
@pytest.mark.parametrize('at', range(len(GOLDEN)))
def test_the_line_is_axolotls(at, form):
    "Written from the tokens that axolotl decoded, for all 24 rows."
    row = GOLDEN[at]
    assert _line(row['decoded_tokens'], row['input_ids'], row['labels'], **forms[form]) == row[form]

@pytest.mark.parametrize('form', forms)
@pytest.mark.parametrize('at', range(len(GOLDEN)))
def test_the_line_from_ids(at, form):
    "Written from ids alone. The slow tokenizer decodes a byte token by itself as `<0x0A>`, and some spaces as nothing: those four rows cannot be had from a fast one."
    row = GOLDEN[at]
    tok = make_tokenizer(fast_name(row['tokenizer']))
    line = token_line(tok, row['input_ids'], row['labels'], **forms[form])
    slow_only = row['tokenizer'].endswith('-slow') and tok.decode_each(row['input_ids']) != row['decoded_tokens']
    assert (line == row[form]) != slow_only

def test_only_four_golden_rows_need_the_slow_tokenizer():
    differ = [r for r in GOLDEN if make_tokenizer(fast_name(r['tokenizer'])).decode_each(r['input_ids']) != r['decoded_tokens']]
    assert len(GOLDEN) == 24 and [r['tokenizer'] for r in differ] == ['mistral-v0.1-slow']*4


class Words(HTMLParser):
    "The text of each token box of a page, by kind, its titles, the tokens of its table, and whether every tag is closed"
    def __init__(self, html):
        super().__init__()
        self.stack, self.boxes, self.titles, self.lines = [], [], [], []
        self.feed(html)
    def handle_starttag(self, tag, attrs):
        classes = (dict(attrs).get('class') or '').split()
        if tag != 'wbr': self.stack.append((tag, classes))
        if 'sg-tok' in classes and 'title' in dict(attrs): self.boxes.append(['', 'sg-t' in classes]); self.titles.append(dict(attrs)['title'])
        elif 'sg-tok' in classes and any(o == 'td' for o, _ in self.stack): self.lines.append(['', 'sg-t' in classes])
    def handle_endtag(self, tag): assert self.stack.pop()[0] == tag
    def handle_data(self, data):
        if any('sg-tok' in c for _, c in self.stack) and any(o == 'td' for o, _ in self.stack): self.lines[-1][0] += data
        if self.boxes and any('sg-tok' in c for _, c in self.stack) and not any(t in ('table', 'style') or 'sg-legend' in c for t, c in self.stack): self.boxes[-1][0] += data

@every_tokenizer
@quick
@example(segments=[Segment('👨‍👩‍👧'*5, False)])   # so many masked tokens that some are folded away
@example(segments=[Segment('\u200b'*60, False), Segment('\n'*130, False), Segment('\0', True), Segment('⏎'*60, False)])
@given(segments=rows)
def test_html_shows_every_token(name, segments):
    tok = make_tokenizer(name)
    for boundary in boundaries:
        row = Encoder(tok, boundary).encode_row(segments)
        html = show(tok, row)._repr_html_()
        page, tokens = Words(html), view_tokens(tok, row)
        assert not page.stack
        assert [(w.replace('\n', ''), t) for w, t in page.boxes] == [(t.text, t.trained) for t in tokens]
        assert all(f'id {t.id} · label {t.label} ' in o for t, o in zip(tokens, page.titles))
        assert [tuple(o) for o in page.lines] == [(t.text, t.trained) for t in tokens]

@every_tokenizer
@quick
@given(segments=rows)
def test_tokens_are_complete(name, segments):
    "One line for each token; segments go forward; a token of a character's own kind begins in the segment that holds that character."
    tok = make_tokenizer(name)
    row = Encoder(tok).encode_row(segments)
    table, where = token_table(tok, row), segment_numbers(row) or []
    assert table.id.tolist() == row.ids.tolist() and table.label.tolist() == row.labels.tolist()
    assert where == sorted(where) and all(segments[i].text for i in where)
    assert all(segments[i].label == (label != -100) for i, label in zip(where, row.labels))
    assert [t.n_crossed for t in view_tokens(tok, row)] == [0]*len(row.ids)

@quick
@given(st.lists(st.sampled_from([b'a', b' ', b'\xe6', b'\x9d', b'\xb1', b'\xe6\x9d', b'\xb1!', b'\xf0\x9f', b'\x98\x80', b'\xff', b'', 'é'.encode()]), max_size=12))
def test_pieces_join_to_the_whole(token_bytes):
    pieces = char_pieces(token_bytes)
    joined = ''.join(c for p in pieces for c, k in p if k < 2)
    assert joined.encode('utf-8', 'surrogateescape') == b''.join(token_bytes)
    assert [bool(p) for p in pieces] == [bool(s) for s in token_bytes]

@given(st.text())
def test_visible_leaves_nothing_unseen(text):
    shown = visible(text)
    assert not re.search(r'[\s\x00-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]', shown)
    assert visible(text.replace(' ', '')).count('·') == 0

@quick
@given(st.lists(st.booleans(), max_size=300), st.integers(1, 30), st.integers(1, 12))
def test_folding_loses_nothing(trained, limit, keep):
    tokens = view_tokens(make_tokenizer('gpt2'), as_row(([64]*len(trained), [64 if t else -100 for t in trained])))
    folded = fold(tokens, limit, keep)
    assert [t for _, p in folded for t in p] == tokens
    assert all(not t.trained for f, p in folded if f for t in p)

def test_text_in_html_is_escaped():
    tok = make_tokenizer('gpt2')
    html = show(tok, Encoder(tok).encode_row([Segment('<script>alert(1)</script>"onload="', True)]), place='<img src=x>"')._repr_html_()
    assert '<script' not in html and '<img' not in html

def test_several_rows_in_html_are_escaped_and_shown_once():
    tok = make_tokenizer('gpt2')
    rows = [Encoder(tok).encode_row([Segment(f'<script>alert({i})</script>', True)]) for i in range(3)]
    html = view(tok, rows, ['<img src=x>']*3)._repr_html_()
    assert '<script' not in html and '<img' not in html
    assert html.startswith('<p>3 rows; the first of them:</p>') and html.count('class="seg-view"') == 1
    assert view(tok, [])._repr_html_() == '<p>0 rows</p>'


def test_several_rows_print_their_first():
    "Not only how many there are"
    tok = make_tokenizer('byte-level')
    rows = [([1], [1])]*5
    said = repr(view(tok, rows))
    assert said.startswith('5 rows\n\nrow 0\n') and said.count('\n\nrow ') == 3
    assert repr(view(tok, rows[:1])).startswith('1 row\n')

@every_tokenizer
def test_a_terminal_counts_what_it_folds(name):
    "Of a long masked run the middle is a number; the table has every token."
    from rich.console import Console
    tok = make_tokenizer(name)
    shown = show(tok, Encoder(tok).encode_row([Segment('goodbye \u200b'*140, False), Segment(' x', True)]))
    console = Console(width=100, record=True, file=io.StringIO())
    print_row(shown, console, table=True)
    flow, table = console.export_text().rsplit('characters', 1)
    folded = [int(n.replace(',', '')) for n in re.findall(r'… ([\d,]+) masked tokens …', flow)]
    assert len(folded) == 1 and folded[0] == sum(len(p) for f, p in fold(shown.tokens) if f)
    assert len([o for o in table.splitlines() if o.strip()]) == len(shown.tokens)

def test_the_legend_explains_what_is_drawn():
    "The sign of an edge has one meaning, said of no segment that the row lacks; a row of one segment has no edge"
    tok = make_tokenizer('gpt2')
    html = show(tok, Encoder(tok).encode_row([Segment('a', False), Segment(' b', True)]))._repr_html_()
    assert 'a segment begins, with its number' in html and not re.search(r'segment \d+ begins<', html)
    for row in ([Segment('plain text', True)], [Segment('', False), Segment('plain text', True)]):
        html = show(tok, Encoder(tok).encode_row(row))._repr_html_()
        assert 'sg-edge"' not in html and 'begins' not in html
