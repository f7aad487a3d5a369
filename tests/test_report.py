"The report: what is packed comes out again, and ten thousand rows can be searched, filtered and read in a browser."
import base64
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import zlib
from collections import namedtuple
from itertools import accumulate

import numpy as np
import pytest
from conftest import make_tokenizer, tokenizer_names
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_site import chromium, css, requested, unavailable

from segtune.encoder import Encoder
from segtune.look.pack import TokenFacts, label_runs, packed, varints
from segtune.look.report import write_report
from segtune.look.view import as_row, segment_numbers, view_tokens
from segtune.pieces import boundaries
from segtune.segments import Segment, segments2row

Found = namedtuple('Found', 'rule severity row segment message fix')
parts = ['<s>', '</s>', ' ', '  ', '\n', '\n\n', '\t', '\u200b', '\u0301', 'e\u0301', 'é', '東京', '😀', '❤️', '👨‍👩‍👧', 'שלום', '·', '·', '▁', '⏎', 'Hello', ' there', '</script><b>&amp;', '"', '##ing', '\0', '\x85', '\U000e0041']
rows_of_segments = st.lists(st.builds(Segment, st.lists(st.sampled_from(parts), max_size=5).map(''.join), st.booleans()), max_size=5)
quick = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
every_tokenizer = pytest.mark.parametrize('name', tokenizer_names)


# ---- packing

def read_varints(data):
    out, value, shift = [], 0, 0
    for b in data:
        value |= (b & 127) << shift
        if b < 128: out.append(value); value = shift = 0
        else: shift += 7
    return out

@given(st.lists(st.integers(0, 2**28-1)))
def test_varints_come_back(numbers): assert read_varints(varints(np.array(numbers, np.int64))) == numbers

@given(st.lists(st.booleans()))
def test_label_runs_come_back(trained):
    runs = label_runs([1 if t else -100 for t in trained])
    assert [i % 2 == 1 for i, n in enumerate(runs) for _ in range(n)] == trained

def unpacked(tables, chunks):
    "The rows again: ids, labels, {token: segment}, added, crossed, origin, segments"
    for _, text in chunks:
        ints = read_varints(zlib.decompress(base64.b64decode(text)))
        while ints:
            head, ints = ints[:8], ints[8:]
            n, sizes = head[0], [head[1], 2*head[2], head[3], head[4], head[7], head[0]]
            cuts = [0, *accumulate(sizes)]
            runs, starts, added, crossed, layout, ids = (ints[a:b] for a, b in zip(cuts, cuts[1:]))
            ints = ints[cuts[-1]:]
            ids = [tables['ids'][i] for i in ids]
            on = [i % 2 == 1 for i, k in enumerate(runs) for _ in range(k)]
            assert len(ids) == len(on) == n
            begins = dict(zip(accumulate(starts[::2]), accumulate(starts[1::2])))
            yield ids, [i if t else -100 for i, t in zip(ids, on)], begins, list(accumulate(added)), list(accumulate(crossed)), (tables['sources'][head[5]-1] if head[5] else None, head[6]), [(v >> 3, bool(v & 4), bool(v & 2), bool(v & 1)) for v in layout]

@every_tokenizer
@quick
@given(rows=st.lists(rows_of_segments, max_size=4))
def test_what_is_packed_comes_out(name, rows):
    "Ids, labels, segments, and the facts that the view finds token by token."
    tok = make_tokenizer(name)
    for boundary in boundaries:
        encoded = [Encoder(tok, boundary).encode_row(r) for r in rows]
        origins = [('a.jsonl' if i % 2 else 'b.jsonl', 7+i) for i in range(len(rows))]
        back = list(unpacked(*packed(encoded, tok, origins, n=2)))
        assert len(back) == len(rows)
        for row, origin, (ids, labels, begins, added, crossed, place, layout) in zip(encoded, origins, back):
            viewed = view_tokens(tok, row)
            assert (ids, labels, place) == (row.ids.tolist(), row.labels.tolist(), origin)
            where = segment_numbers(row) or []
            assert begins == {k: s for k, s in enumerate(where) if k == 0 or where[k-1] != s}
            assert added == [k for k, t in enumerate(viewed) if any(kind == 'added' for _, kind in t.shown)]
            assert crossed == [k for k, t in enumerate(viewed) if t.n_crossed]
            assert layout == [(len(s.text), s.label, s.special, s.fresh) for s in row.segments]*(len(ids) > 0)

def test_rows_without_spans_are_packed():
    tok = make_tokenizer('gpt2')
    rows = [as_row(([64, 65], [-100, 65])), as_row(([], []))]
    assert [o[:3] for o in unpacked(*packed(rows, tok))] == [([64, 65], [-100, 65], {}), ([], [], {})]

def test_facts_can_tell_a_second_space():
    "Of two spaces the first is the tokenizer's; the text has one."
    tok = make_tokenizer('mistral')
    row = Encoder(tok, 'axolotl').encode_row([Segment('a', False), Segment(' b', True)])
    assert ''.join(t.text for t in view_tokens(tok, row)) == '▁a▁·b' and TokenFacts(tok).added(row).tolist() == [0, 1]


# ---- ten thousand rows

words = 'the quick brown fox jumps over a lazy dog while old river trees sleep under green light and many small birds sing'.split()

class Made:
    "A report, and what is true of it"
    def __init__(self, path):
        rng = random.Random(5)
        def prose(n): return ' '.join(rng.choice(words) for _ in range(n))
        self.tok, self.path = make_tokenizer('mistral'), path
        self.rows = [[Segment(f'<s>### Question:\n{prose(rng.randint(20, 180))}\n\n### Answer:\n', False), Segment(prose(rng.randint(5, 60)) + '</s>', True)] for _ in range(10_000)]
        for i in (41, 4_000, 9_999): self.rows[i] = [Segment('<s>Which animal has Zebra stripes?', False), Segment(' The Okapi, nearly.</s>', True)]
        self.rows[77] = [Segment('an okapi, all masked', False)]
        self.rows[78] = []
        self.rows[5] = [Segment('<s>Hello\n', True), Segment('hi there!. ', True), Segment('goodbye ', False), Segment('farewell</s>', True)]
        self.rows[6] = [Segment('<script>alert(1)</script> Café 東京 \u200b', False), Segment('שלום\n\n', True)]
        self.batch = Encoder(self.tok, 'axolotl').encode(self.rows, spans=True)
        self.origins = [('qa.jsonl' if i % 3 else 'chat.jsonl', i+1) for i in range(10_000)]
        self.findings = [Found('text-law', 'error', 5, 1, "its tokens spell '⏎·hi'.", 'Set boundary: split.')]
        self.findings += [Found('trailing-space', 'warning', i, 0, 'ends with a space <b>.', 'Move it.') for i in range(0, 10_000, 7)]
        self.findings += [Found('untrained', 'warning', i, None, 'nothing is trained.', 'Leave the row out.') for i in (77, 78)]
        write_report(path, self.batch, self.tok, self.findings, origins=self.origins, sequence_len=256, changed={'dropped: too long': 12}, title='Ten thousand <rows>')

    def holding(self, text, label=None): # rows whose text has it, in segments of that label
        return [i for i, r in enumerate(self.rows) if text in ''.join(s.text for s in r if label is None or s.label == label).lower()]

@pytest.fixture(scope='module')
def made(tmp_path_factory): return Made(tmp_path_factory.mktemp('report')/'report.html')

@pytest.fixture(scope='module')
def driver():
    import os
    why = unavailable()
    if why and os.environ.get('CI') == 'true': pytest.fail(why)
    if why: pytest.skip(why)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        driver = chromium(profile)
        driver.set_window_size(1380, 1000)
        yield driver
        driver.quit()

def until(driver, script, seconds=20):
    "Wait until a script gives something true, and give it"
    end = time.time()+seconds
    while time.time() < end:
        if got := driver.execute_script('return '+script): return got
        time.sleep(.02)
    raise AssertionError(f'not within {seconds} s: {script}')

def errors(driver): return [o['message'] for o in driver.get_log('browser') if o['level'] in ('SEVERE', 'ERROR')]

def scheme(colors): # smooth scrolling would move what is about to be clicked
    return [{'name': 'prefers-color-scheme', 'value': colors}, {'name': 'prefers-reduced-motion', 'value': 'reduce'}]

@pytest.fixture
def page(driver, made):
    "The report, opened anew; in the end no console error, and nothing asked for but the file itself"
    requested(driver), errors(driver)
    driver.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': scheme('light')})
    driver.get('about:blank')
    driver.get(made.path.as_uri()+'#tab=rows')
    until(driver, 'document.documentElement.dataset.ready')
    yield driver
    assert errors(driver) == []
    assert {o.split('#')[0] for o in requested(driver)} - {'about:blank'} == {made.path.as_uri()}

def choose(page, **values):
    "Set controls, as a user would, and wait for the list"
    before = page.execute_script("return document.getElementById('list').dataset.done")
    page.execute_script("for (const [id, v] of Object.entries(arguments[0])) { const e = document.getElementById(id); e.value = v; e.dispatchEvent(new Event(id === 'query' ? 'input' : 'change')); }", values)
    until(page, f"document.getElementById('list').dataset.done !== '{before}'")
    return listed(page)

def listed(page):
    "The numbers of all rows in the list, read by scrolling through it; only short lists"
    n = int(re.match(r'[\d,]+', css(page, '#status')[0].text)[0].replace(',', ''))
    got = [int(o.text.split('\n')[0].split()[0].replace(',', '')) for o in css(page, '#list .item')] if n <= 12 else None
    return n, got

def rule_value(page, rule): return next(o.get_attribute('value') for o in css(page, '#rule option') if o.text.startswith(rule))

def test_first_paint_is_quick(page):
    paint = page.execute_script("return performance.getEntriesByName('first-contentful-paint')[0].startTime")
    assert 0 < paint < 2000, f'first paint after {paint:.0f} ms'
    assert css(page, '#status')[0].text == '10,000 rows' and page.title == 'Ten thousand <rows>'

def test_only_some_rows_are_in_the_page(page):
    assert len(css(page, '#list .item')) < 60
    page.execute_script("const b = document.getElementById('list'); b.scrollTop = b.scrollHeight")
    until(page, "document.getElementById('row-9999')")
    assert len(css(page, '#list .item')) < 60

def test_searching(page, made):
    assert choose(page, query='zebra') == (3, [41, 4000, 9999]) == (3, made.holding('zebra'))
    assert choose(page, query='OKAPI')[1] == made.holding('okapi') == [41, 77, 4000, 9999]
    assert choose(page, **{'in': 'trained'})[1] == made.holding('okapi', True) == [41, 4000, 9999]
    assert choose(page, **{'in': 'masked'})[1] == made.holding('okapi', False) == [77]
    assert choose(page, query='東京')[1] == [6]
    assert choose(page, query='no such words') == (0, [])
    page.find_element('id', 'reset').click()
    until(page, "document.getElementById('status').textContent === '10,000 rows'")
    assert choose(page, query='fox')[0] == len(made.holding('fox')) > 5000

def test_a_match_is_marked(page, made):
    choose(page, query='zebra')
    page.find_element('id', 'row-4000').click()
    assert ''.join(drawn(page, '.sg-hit')) == '·Zebra'
    assert [o.text for o in css(page, '#list mark')] == ['Zebra']*3
    choose(page, query='fox')
    css(page, '#list .item')[3].click()
    opened = int(css(page, '#row')[0].get_attribute('data-row'))
    n = sum(s.text.count('fox') for s in made.rows[opened])
    assert n > 1 and ''.join(drawn(page, '.sg-hit')) in ('·fox'*n, '▁fox'+'·fox'*(n-1))

def test_filtering(page, made):
    assert choose(page, rule=rule_value(page, 'text-law')) == (1, [5])
    assert choose(page, rule=rule_value(page, 'trailing-space'))[0] == len(range(0, 10_000, 7))
    assert choose(page, rule='none')[0] == 10_000-len({f.row for f in made.findings})
    assert choose(page, rule='', share='nothing')[1] == [77, 78]
    assert choose(page, share='', source='chat.jsonl')[0] == len(range(0, 10_000, 3))
    assert choose(page, source='', length='over')[0] == int((made.batch.lengths > 256).sum()) > 0
    assert choose(page, length='', sort='longest')[0] == 10_000
    assert css(page, '#list .item b')[0].text == f'{made.batch.lengths.argmax():,}'

DRAWN = """const drawn = e => [...e.childNodes].map(o => o.nodeType === 3 ? o.data : o.dataset.m ?? drawn(o)).join('').replaceAll('\\n', '');
           return [...document.querySelectorAll('#shown ' + arguments[0])].map(e => [drawn(e), e.classList.contains('sg-t'), e.title])"""

def boxes(page): return page.execute_script(DRAWN, '.sg-tok')

def drawn(page, what):
    "What is seen of some tokens, with what the styles draw"
    return [o[0] for o in page.execute_script(DRAWN, what)]

def test_a_row_is_shown_as_the_view_shows_it(page, made):
    choose(page, rule=rule_value(page, 'text-law'))
    page.find_element('id', 'row-5').click()
    tokens = view_tokens(made.tok, made.batch.row(5))
    assert [(t, on) for t, on, _ in boxes(page)] == [(t.text, t.trained) for t in tokens]
    assert all(f'id {t.id} ' in title and f'segment {t.segment} ' in title and 'qa.jsonl:6' in title for t, (_, _, title) in zip(tokens, boxes(page)))
    assert [o.get_attribute('data-m') for o in css(page, '#shown .sg-edge')] == ['0', '1', '2', '3']
    assert 'text-law' in css(page, '#shown .found')[0].text and 'Set boundary: split.' in css(page, '#shown .found')[0].text
    page.find_element('id', 'table').click()
    assert [o.text for o in css(page, '#shown th')] == ['token', 'label', 'id', 'segment']
    assert [o.text for o in css(page, '#shown td:nth-child(3)')] == [str(t.id) for t in tokens]

def test_a_long_row_shows_every_token(page, made):
    "What is folded away in the text is there, and the table folds nothing"
    i = next(i for i, r in enumerate(made.rows) if made.batch.lengths[i] > 200 and r and not r[0].label)
    page.execute_script(f'show({i})')
    tokens = [(t.text, t.trained) for t in view_tokens(made.tok, made.batch.row(i))]
    assert css(page, '#shown details.sg-fold') and [o[:2] for o in map(tuple, boxes(page))] == tokens
    page.find_element('id', 'table').click()
    assert [o[:2] for o in map(tuple, boxes(page))] == tokens
    page.find_element('id', 'table').click()

def test_markup_in_the_data_stays_text(page, made):
    choose(page, query='<script>')
    page.find_element('id', 'row-6').click()
    assert ''.join(t for t, _, _ in boxes(page)) == ''.join(t.text for t in view_tokens(made.tok, made.batch.row(6)))
    assert not css(page, '#shown script, #list script, .found b')

def test_findings_lead_to_rows(page):
    page.execute_script("tab('findings')")
    rule = next(o for o in css(page, 'details.rule') if 'trailing-space' in o.text)
    assert '1,429 rows' in rule.text
    page.execute_script('arguments[0].open = true', rule)
    link = rule.find_elements('css selector', 'a')[1]
    assert link.text == 'row 7 · qa.jsonl:8'
    page.execute_script('arguments[0].click()', link)
    until(page, "document.getElementById('row').dataset.row === '7'")
    page.execute_script("tab('findings')")
    page.execute_script('arguments[0].click()', rule.find_element('css selector', 'button'))
    until(page, "document.getElementById('status').textContent === '1,429 of 10,000 rows'")

def test_an_address_can_name_a_row(driver, made):
    driver.get('about:blank')
    driver.get(made.path.as_uri()+'#row=4000')
    until(driver, "document.getElementById('row').dataset.row === '4000' && document.getElementById('row-4000')")
    assert errors(driver) == []

def test_by_keyboard_alone(page):
    from selenium.webdriver import ActionChains, Keys
    def press(*keys): ActionChains(page).send_keys(*keys).perform()
    def opened(i): until(page, f"document.getElementById('row').dataset.row === '{i}'")
    press('/', 'zebra')
    until(page, "document.getElementById('status').textContent === '3 of 10,000 rows'")
    press(Keys.ENTER)
    opened(41)
    press(Keys.ARROW_DOWN)
    opened(4000)
    press(Keys.END)
    opened(9999)
    press('i')
    opened(4000)
    assert page.switch_to.active_element.get_attribute('id') == 'list' and css(page, '#list')[0].get_attribute('aria-activedescendant') == 'row-4000'
    press(Keys.ESCAPE)
    until(page, "document.getElementById('status').textContent === '10,000 rows'")
    assert css(page, '#list [aria-selected=true] b')[0].text == '4,000'
    page.execute_script("document.querySelector('#shown .sg-flow').focus()")
    press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert css(page, '#about')[0].text.startswith('token 1 · ')


# ---- colours mean what the legend says

LOOK = """const s = getComputedStyle(arguments[0]);
          return {ground: s.backgroundColor, line: s.borderBottomColor, style: s.borderBottomStyle, weight: s.fontWeight}"""

def look(page, element): return page.execute_script(LOOK, element)

def rgba(color):
    "Red, green, blue and opacity from 0 to 1"
    n = [float(o) for o in re.findall(r'[\d.]+', color)]
    scale = 1 if color.startswith('color(') else 255
    return [o/scale for o in n[:3]], n[3] if len(n) > 3 else 1

def luminance(rgb): return sum(w*(c/12.92 if c <= .04045 else ((c+.055)/1.055)**2.4) for w, c in zip((.2126, .7152, .0722), rgb))

def contrast(a, b):
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high+.05)/(low+.05)

@pytest.mark.parametrize('how', ['system', 'button'])
@pytest.mark.parametrize('theme', ['light', 'dark'])
def test_colours_are_those_of_the_legend(page, made, theme, how):
    if how == 'system': page.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': scheme(theme)})
    else:
        other = {'light': 'dark', 'dark': 'light'}[theme]
        page.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': scheme(other)})
        for _ in range(['light', 'dark'].index(theme)+1): page.find_element('id', 'theme').click()
    choose(page, rule=rule_value(page, 'text-law'))
    page.find_element('id', 'row-5').click()
    legend = {k: look(page, css(page, f'.legend [data-kind={k}] .sg-tok')[0]) for k in ('trained', 'masked')}
    tokens = css(page, '#shown .sg-tok')
    labels = made.batch.row(5).labels
    assert len(tokens) == len(labels) == 14
    for e, label in zip(tokens, labels): assert look(page, e) == legend['masked' if label == -100 else 'trained']
    assert all(legend['trained'][k] != legend['masked'][k] for k in ('ground', 'line', 'style', 'weight')), 'they differ by more than hue'
    panel, ink = (rgba(page.execute_script(f"return getComputedStyle(document.getElementById('row')).{k}"))[0] for k in ('backgroundColor', 'color'))
    assert (luminance(panel) > .5) == (theme == 'light')
    for o in legend.values():
        color, opacity = rgba(o['ground'])
        assert contrast([opacity*c+(1-opacity)*p for c, p in zip(color, panel)], ink) > 7
    assert contrast(rgba(legend['trained']['line'])[0], panel) > 3

def test_every_tokenizer_is_drawn_alike(driver, tmp_path):
    "The page's script and the view agree on every token of awkward rows."
    rng = random.Random(11)
    for name in tokenizer_names:
        tok = make_tokenizer(name)
        rows = [[Segment(''.join(rng.choice(parts) for _ in range(rng.randint(0, 6))), rng.random() < .5) for _ in range(rng.randint(0, 4))] for _ in range(60)]
        encoded = [Encoder(tok, boundaries[i % 3]).encode_row(r) for i, r in enumerate(rows)]
        driver.get('about:blank')
        driver.get(write_report(tmp_path/f'{name}.html', encoded, tok).as_uri())
        until(driver, 'document.documentElement.dataset.ready')
        drawn = driver.execute_script("return [...Array(60).keys()].map(i => { const s = new Set(sums(list(i, 'added'))); return characters(i).map((c, k) => shown(c, s.has(k)).map(o => o[0]).join('')); })")
        assert drawn == [[t.text for t in view_tokens(tok, r)] for r in encoded], name
        assert errors(driver) == []

def test_a_report_without_rows_opens(driver, tmp_path):
    driver.get(write_report(tmp_path/'empty.html', [], make_tokenizer('gpt2'), []).as_uri())
    until(driver, 'document.documentElement.dataset.ready')
    assert css(driver, '#status')[0].get_attribute('textContent') == '0 rows'
    assert 'Nothing was found' in css(driver, '#findings')[0].get_attribute('textContent')
    assert errors(driver) == []

def test_the_page_forbids_itself_the_network(made):
    "A page that asked for something would be stopped by its own policy; and the check for requests can see one."
    text = made.path.read_text(encoding='utf-8')
    assert "default-src 'none'" in text.split('</head>')[0]
    assert not re.search(r'<(script|link|img|iframe)[^>]+(src|href)="(?!data:)', text)

def test_its_size(made):
    "A kilobyte or so for a thousand tokens, whatever the tables add."
    assert made.path.stat().st_size < 1.6*len(made.batch.ids)

def test_json_cannot_end_its_script(tmp_path):
    tok = make_tokenizer('gpt2')
    row = Encoder(tok).encode_row([Segment('</script><script>alert(1)</script>', True)])
    text = write_report(tmp_path/'x.html', [row], tok, [Found('r', 'error', 0, 0, '</script>', '')], title='</title>').read_text(encoding='utf-8')
    meta = re.search(r'id="meta">(.*?)</script>', text, re.S)[1]
    assert json.loads(meta)['found'][0][3] == '</script>' and text.split('</head>')[0].count('</title>') == 1


# ---- the workbench

class Bench:
    "A small report of everything that can be acted on, and what is true of it"
    texts = ['Plain row.', 'tab\tand\u00a0space  two \n\n', '東京 😀 e\u0301 ▁ _ · ⏎', '\r\nline', 'the same', 'the same', '<b>&amp;</b> \u200b\0']
    def __init__(self, path):
        rng = random.Random(9)
        self.tok, self.path = make_tokenizer('mistral'), path
        prose = ' '.join(rng.choice(words) for _ in range(80))
        texts = [*self.texts, prose, prose.replace('fox', 'hen', 1)]
        self.rows = [[Segment(f'<s>Question {0 if t == "the same" else i}: ', False), Segment(t, False, False), Segment(f' {t}</s>', True, fresh=i == 0)] for i, t in enumerate(texts)]
        self.rows += [[Segment(f'<s>Number {i}.\nA:', False), Segment(' '+' '.join(rng.choice(words) for _ in range(i))+'</s>', True)] for i in range(1, 60)]
        self.held = [len(self.rows), len(self.rows)+1]
        self.rows += [self.rows[0], [Segment('<s>Held', False), Segment(' out</s>', True)]]
        self.batch = Encoder(self.tok, 'axolotl').encode(self.rows, spans=True)
        self.origins = [('a b.jsonl' if i < 9 else 'c.jsonl', i+1) for i in range(self.held[0])] + [('held.jsonl', i+1) for i in range(2)]
        self.hits = {'spaces': list(range(0, 60, 2)), 'twice': [5]}
        self.findings = [Found('twice', 'error', 5, None, 'the same row as a b.jsonl:5', 'Remove it.'), Found('spaces', 'note', 0, 1, 'a space', 'Move it.')]
        self.losses = {'base': [np.full(n, 5.) for n in self.batch.lengths], 'tuned': [np.where(np.arange(n) % 2, .5, np.nan) for n in self.batch.lengths]}
        write_report(path, self.batch, self.tok, self.findings, hits=self.hits, origins=self.origins, held=self.held, n_train=self.held[0], losses=self.losses, sequence_len=40, title='Bench')

    def text(self, i): return ''.join(s.text for s in self.rows[i])

@pytest.fixture(scope='module')
def made_bench(tmp_path_factory): return Bench(tmp_path_factory.mktemp('bench')/'bench.html')

def enter(driver, path, hash_='#tab=rows', theme='light', size=(1280, 900)):
    driver.set_window_size(*size)
    driver.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': scheme(theme)})
    driver.get('about:blank')
    driver.get(path.as_uri()+hash_)
    until(driver, 'document.documentElement.dataset.ready')

@pytest.fixture
def bench(driver, made_bench, tmp_path):
    requested(driver), errors(driver)
    driver.execute_cdp_cmd('Browser.setDownloadBehavior', {'behavior': 'allow', 'downloadPath': str(tmp_path)})
    driver.execute_cdp_cmd('Browser.grantPermissions', {'permissions': ['clipboardReadWrite', 'clipboardSanitizedWrite']})
    enter(driver, made_bench.path)
    driver.execute_script('localStorage.clear(); decisions.clear(); notes.clear(); remember()')
    yield driver
    assert errors(driver) == []
    assert {o.split('#')[0] for o in requested(driver)} - {'about:blank'} <= {made_bench.path.as_uri()} | {o for o in requested(driver) if o.startswith('blob:')}

def count(page): return int(re.match(r'[\d,]+', page.execute_script("return document.getElementById('status').textContent"))[0].replace(',', ''))

def shows(page, n): until(page, f"parseInt(document.getElementById('status').textContent.replace(',', '')) === {n}")

def copied(page): return page.execute_async_script('const done = arguments[0]; navigator.clipboard.readText().then(done, e => done("" + e))')

def opened_row(page, i):
    page.execute_script(f'location.hash = "row={i}"')
    until(page, f"document.getElementById('row').dataset.row === '{i}'")

def test_what_is_copied_is_the_row(bench, made_bench):
    "Its text to the character, the row as JSON, and where it came from; in every row, whatever stands in it."
    for i in range(len(made_bench.rows)):
        assert bench.execute_script(f'return rowText({i})') == made_bench.text(i)
        assert json.loads(bench.execute_script(f'return rowJson({i})')) == segments2row(made_bench.rows[i])
    for i in (1, 2, 3):
        opened_row(bench, i)
        for id_, want in (('copy-text', made_bench.text(i)), ('copy-json', None), ('copy-place', f'a b.jsonl:{i+1}')):
            bench.find_element('id', id_).click()
            got = copied(bench)
            assert got == want if want else json.loads(got) == segments2row(made_bench.rows[i])
    assert 'copied' in css(bench, '#said')[0].text

def test_marks_cannot_be_selected(bench, made_bench):
    "What a reader selects by hand is the row's own text too."
    for i in (0, 1, 7, 20):
        opened_row(bench, i)
        got = bench.execute_script("const s = getSelection(); s.selectAllChildren(document.querySelector('#shown .sg-flow')); return s.toString()")
        assert got == made_bench.text(i)

def test_every_hit_is_there(bench, made_bench):
    "No finding means no finding, counted independently; a rule's filter gives all of its rows, explained or not."
    hit = {i for o in made_bench.hits.values() for i in o} | {8}   # the last is nearly the same as the one before it
    n = len(made_bench.rows)
    assert choose(bench, rule='none')[0] == n-len(hit)
    assert choose(bench, rule='some')[0] == len(hit)
    assert choose(bench, rule='spaces')[0] == len(made_bench.hits['spaces'])
    assert choose(bench, rule='near-duplicate') == (1, [8])
    bench.execute_script("tab('findings')")
    assert ['30 rows', '1 row', '1 row'] == sorted((o.text for o in css(bench, '.rule .count')), reverse=True)

def test_a_bar_is_a_filter(bench, made_bench):
    bench.execute_script("tab('overview')")
    bars = css(bench, 'rect[data-filter=tokens]')
    said = [o.get_attribute('aria-label') for o in bars]
    lengths = made_bench.batch.lengths
    for k in (0, len(bars)//2, len(bars)-1):
        a, b = map(int, bars[k].get_attribute('data-value').split('-'))
        bench.execute_script("tab('overview')")
        bars[k].click()
        want = int(((lengths >= a) & (lengths < b)).sum())
        shows(bench, want)
        assert said[k].endswith(f': {want} row{"s"*(want != 1)}')
    share = (made_bench.batch.labels != -100).sum()
    assert share > 0 and len(css(bench, '#chips button')) == 1
    css(bench, '#chips button')[0].click()
    shows(bench, len(made_bench.rows))
    bench.execute_script("tab('overview')")
    bar = css(bench, 'rect[data-filter=trained]')[-1]
    n = int(re.search(r'([\d,]+) row', bar.get_attribute('aria-label'))[1])
    bench.execute_script('arguments[0].focus()', bar)
    from selenium.webdriver import ActionChains, Keys
    ActionChains(bench).send_keys(Keys.ENTER).perform()
    shows(bench, n)

def test_the_address_keeps_filters_and_row(bench, made_bench):
    choose(bench, query='fox', rule='spaces', set='train', sort='longest')
    bench.execute_script('show(rows[1], true)')
    hash_, row, listed_ = bench.execute_script('return [location.hash, open, rows]')
    assert all(o in hash_ for o in ('tab=rows', 'q=fox', 'rule=spaces', 'set=train', 'sort=longest', f'row={row}'))
    enter(bench, made_bench.path, hash_)
    until(bench, f"document.getElementById('row').dataset.row === '{row}'")
    assert bench.execute_script('return [location.hash, open, rows]') == [hash_, row, listed_]
    enter(bench, made_bench.path, '#tokens=abc&same=99&first=x&rule=nothing&row=9999')   # an address that is wrong does no harm
    shows(bench, len(made_bench.rows))

def test_rows_that_are_alike_are_linked(bench, made_bench):
    opened_row(bench, 5)
    links = [(o.text, o.get_attribute('href').split('#')[1]) for o in css(bench, '#shown .found a')]
    assert links == [('a b.jsonl:5', 'row=4')]*2
    css(bench, '#shown .found.group button')[0].click()
    shows(bench, 2)
    assert bench.execute_script('return rows') == [4, 5]
    opened_row(bench, 7)
    assert 'Nearly the same: a b.jsonl:9' in css(bench, '#shown .found.group')[0].text
    opened_row(bench, 0)
    assert 'held.jsonl:1 (held out)' in css(bench, '#shown .found.group')[0].text

def test_held_out_rows_are_marked(bench, made_bench):
    assert choose(bench, set='held') == (2, made_bench.held)
    assert 'held out' in css(bench, '#list .item')[0].text and 'Held-out row 0' in css(bench, '#shown h3')[0].text
    assert choose(bench, set='train')[0] == made_bench.held[0]
    bench.execute_script("tab('overview')")
    assert 'of them held out' in css(bench, '.cards')[0].text

def test_after_a_search_the_pane_shows_a_match(bench, made_bench):
    opened_row(bench, 0)
    assert choose(bench, query='東京')[1] == [2]
    assert css(bench, '#row')[0].get_attribute('data-row') == '2'
    choose(bench, query='no such words')
    assert css(bench, '#shown')[0].text == 'No rows match.' and not css(bench, '#shown button')

def test_deciding(bench, made_bench, tmp_path):
    from selenium.webdriver import ActionChains, Keys
    def press(*keys): ActionChains(bench).send_keys(*keys).perform()
    opened_row(bench, 1)
    bench.execute_script("document.getElementById('list').focus()")
    press('x'), press('j'), press('k'), press('j'), press('x'), press('x'), press('x'), press('n')
    press('too short'), press(Keys.ENTER)
    opened_row(bench, 5)
    bench.find_element('id', 'note').click()
    press('why?', Keys.ENTER)
    assert css(bench, '#decisions')[0].text == '2 to drop, 1 to keep, 2 notes'
    bench.find_element('id', 'download').click()
    until(bench, 'true')
    end = time.time()+20
    while not (tmp_path/'drop.txt').exists() and time.time() < end: time.sleep(.05)
    lines = (tmp_path/'drop.txt').read_text().splitlines()
    assert [o for o in lines if not o.startswith('#')] == ['a b.jsonl:2', 'a b.jsonl:4']
    assert lines[1:] == ['a b.jsonl:2', '# keep a b.jsonl:3', '# a b.jsonl:4: too short', 'a b.jsonl:4', '# a b.jsonl:6: why?']
    assert choose(bench, decided='drop')[1] == [1, 3] and choose(bench, decided='noted')[1] == [3, 5]
    enter(bench, made_bench.path)   # they outlive the page
    assert css(bench, '#decisions')[0].text == '2 to drop, 1 to keep, 2 notes'

def test_what_is_trained(bench, made_bench):
    bench.execute_script("tab('trained')")
    page = css(bench, '#trained')[0]
    assert '100.0%' in page.text and 'c.jsonl' in page.text and 'held.jsonl' not in page.text
    for how, at in (('first', 0), ('last', -1)):
        bench.execute_script("tab('trained')")
        button = css(bench, f'#trained [data-filter={how}]')[0]
        token = int(button.get_attribute('data-value'))
        rows = [made_bench.batch.row(i) for i in range(len(made_bench.rows))]
        want = [i for i, r in enumerate(rows) if r.ids[r.labels != -100][at] == token]
        button.click()
        shows(bench, len(want))
        assert bench.execute_script('return rows') == want

def test_tokens_are_coloured_by_loss(bench, made_bench):
    opened_row(bench, 10)
    plain = [look(bench, o)['ground'] for o in css(bench, '#shown .sg-tok')]
    for how, same in (('tuned', 2), ('change', 2), ('base', 1)):
        bench.execute_script(f"const c = document.getElementById('colour'); c.value = '{how}'; c.dispatchEvent(new Event('change'))")
        tokens = css(bench, '#shown .sg-tok')
        colours = [look(bench, o)['ground'] for o in tokens]
        assert colours != plain and len({*colours[1::2]}) == 1 and len({*colours}) >= same
    assert 'loss base 5.00, loss tuned 0.50' in tokens[1].get_attribute('title') and 'tuned' not in tokens[0].get_attribute('title')
    assert choose(bench, sort='loss')[0] == len(made_bench.rows)

@pytest.fixture(scope='module')
def trained_page(tmp_path_factory):
    "A project that was trained a little, and its page with losses, as the commands write it"
    d = tmp_path_factory.mktemp('trained')
    def row(i, answer): return dict(segments=[dict(text=f'Question: what is {i}?\nAnswer:', label=False), dict(text=f' {answer}.<|im_end|>', label=True)])
    (d/'a.jsonl').write_text(''.join(json.dumps(row(i, 'A colour'))+'\n' for i in ('red', 'blue', 'green', 'grey')))
    (d/'b.jsonl').write_text(json.dumps(row('oak', 'A tree'))+'\n')
    (d/'c.yml').write_text('base_model: bundled:tiny\nadapter: lora\nlora_target_linear: true\nlearning_rate: 0.02\nmax_steps: 8\nwarmup_steps: 0\nmicro_batch_size: 4\n'
                           'output_dir: out\ndatasets: [{path: a.jsonl}]\ntest_datasets: [{path: b.jsonl}]\n')
    for args in (['train', 'c.yml'], ['inspect', 'c.yml', '--html', 'r.html', '--loss']):
        r = subprocess.run([sys.executable, '-m', 'segtune', *args], cwd=d, capture_output=True, text=True, env={**os.environ, 'HF_HUB_OFFLINE': '1'})
        assert r.returncode == 0, r.stderr
    return d/'r.html'

def test_a_trained_project_colours_its_tokens_by_loss_of_base_and_tuned(driver, trained_page):
    errors(driver)
    enter(driver, trained_page)
    assert driver.execute_script('return meta.losses') == ['base', 'tuned'] and driver.execute_script('return N') == 5
    opened_row(driver, 0)
    tokens = driver.execute_script("return [0, 1].map(m => Array.from({length: 60}, (_, k) => lossAt(0, m, k)).filter(v => v !== null))")
    assert len(tokens[0]) == len(tokens[1]) > 2 and sum(tokens[1]) < sum(tokens[0])
    masked = css(driver, '#shown .sg-tok')[0]
    assert 'loss' not in masked.get_attribute('title')
    before = [look(driver, o)['ground'] for o in css(driver, '#shown .sg-tok')]
    driver.execute_script("const c = document.getElementById('colour'); c.value = 'tuned'; c.dispatchEvent(new Event('change'))")
    assert [look(driver, o)['ground'] for o in css(driver, '#shown .sg-tok')] != before
    assert errors(driver) == []

def test_headings_are_in_order(bench):
    levels = bench.execute_script("return [...document.querySelectorAll('h1,h2,h3,h4')].map(e => +e.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1 and all(b-a <= 1 for a, b in zip(levels, levels[1:]))

def test_on_a_phone_a_tapped_row_is_seen(driver, made_bench):
    driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', dict(width=390, height=844, deviceScaleFactor=1, mobile=True))
    try:
        enter(driver, made_bench.path, size=(500, 900))
        assert driver.execute_script('return document.documentElement.scrollWidth') <= 390
        driver.execute_script("document.getElementById('row-2').click()")
        top, bottom = driver.execute_script("const r = document.querySelector('#shown .sg-flow').getBoundingClientRect(); return [r.top, r.bottom]")
        assert 0 <= top < 700 and bottom > top
        assert driver.execute_script('return document.documentElement.scrollWidth') <= 390
        css(driver, '.back')[0].click()
        assert driver.execute_script("return document.getElementById('row-2').getBoundingClientRect().height") > 0
        assert errors(driver) == []
    finally: driver.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})

# every visible piece of text, its colour, and the grounds that lie under it, the nearest first
TEXTS = """
const out = [], seen = e => { const r = e.getBoundingClientRect(); return r.width > 1 && r.height > 1 && getComputedStyle(e).visibility === 'visible'; };
const one = (e, style, text) => {
  const grounds = [];
  if (style !== getComputedStyle(e)) grounds.push(style.backgroundColor);
  for (let p = e; p; p = p.parentElement) { const s = getComputedStyle(p); grounds.push(s.backgroundColor); if (s.opacity !== '1') grounds.push('opacity'); }
  out.push([text.slice(0, 40), e.tagName + '.' + (e.getAttribute('class') || ''), e instanceof SVGElement ? style.fill : style.color, grounds]);
};
for (const e of document.querySelectorAll('body *')) {
  if (/^(SCRIPT|STYLE|NOSCRIPT|OPTION|TITLE)$/i.test(e.tagName)) continue;
  const own = [...e.childNodes].filter(o => o.nodeType === 3 && o.data.trim()).map(o => o.data.trim()).join(' ');
  if (own && seen(e) && getComputedStyle(e).fontSize !== '0px') one(e, getComputedStyle(e), own);
  if (e.dataset && e.dataset.m && e.parentElement && seen(e.parentElement)) one(e, getComputedStyle(e, '::before'), e.dataset.m);
}
return out;
"""

def faint(page):
    "Texts whose contrast against what lies under them is below 4.5 to 1"
    out = []
    for text, where, ink, grounds in page.execute_script(TEXTS):
        assert 'opacity' not in grounds, (text, where)
        ground = (1., 1., 1.)
        for g in reversed(grounds):
            color, alpha = rgba(g)
            ground = [alpha*c+(1-alpha)*u for c, u in zip(color, ground)]
        color, alpha = rgba(ink)
        ratio = contrast([alpha*c+(1-alpha)*u for c, u in zip(color, ground)], ground)
        if ratio < 4.5: out.append((round(ratio, 2), text, where))
    return out

@pytest.mark.parametrize('width', [1280, 390])
@pytest.mark.parametrize('theme', ['light', 'dark'])
def test_every_text_has_contrast(driver, made_bench, theme, width):
    if width == 390: driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', dict(width=390, height=844, deviceScaleFactor=1, mobile=True))
    try:
        enter(driver, made_bench.path, '#row=1', theme)
        driver.execute_script("decide(1, 'drop'); notes.set(1, 'because'); decide(2, 'keep'); show(1)")
        for name in ('overview', 'findings', 'trained', 'rows'):
            driver.execute_script("tab(arguments[0]); document.querySelectorAll('details').forEach(e => { e.open = true; })", name)
            assert faint(driver) == []
        if width == 390: driver.execute_script('readOnly(true)')
        for query, table, row in (('same', False, 5), ('', True, 1), ('', False, 2)):
            driver.execute_script("document.getElementById('query').value = arguments[0]; table = arguments[1]; show(arguments[2])", query, table, row)
            assert faint(driver) == []
        assert driver.execute_script('return document.documentElement.scrollWidth') <= width
        assert errors(driver) == []
    finally: driver.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})

def test_an_added_space_looks_like_nothing_in_a_text(bench, made_bench):
    "Its sign stands in a box of its own colour, and is no part of the text."
    opened_row(bench, 2)
    signs = bench.execute_script("return [...document.querySelectorAll('#shown .sg-added')].map(e => [e.textContent, getComputedStyle(e, '::before').backgroundColor])")
    assert signs and {t for t, _ in signs} == {''}
    grounds = bench.execute_script("return [...document.querySelectorAll('#shown .sg-tok, #shown .sg-mark')].map(e => getComputedStyle(e).backgroundColor)")
    assert {g for _, g in signs}.isdisjoint(grounds)


# ---- a project's report

def read_page(path):
    "The tables of a page; its lists of rows: of each rule, of held-out rows, and the groups"
    meta = json.loads(re.search(r'id="meta">(.*?)</script>', path.read_text(encoding='utf-8'), re.S)[1])
    ints = read_varints(zlib.decompress(base64.b64decode(meta['lists'])))
    def one(): return list(accumulate(ints.pop(0) for _ in range(ints.pop(0))))
    hits = {r['id']: one() for r in meta['rules']}
    held = one()
    return meta, hits, held, [one() for _ in range(ints.pop(0))], [one() for _ in range(ints.pop(0))]

@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    def rows(numbers, answer=' It is {} indeed.</s>'): return [dict(segments=[dict(label=False, text=f'<s>Q: what is {i}?\nA:'), dict(label=True, text=answer.format(i))]) for i in numbers]
    data = [*rows(range(30)), dict(segments=[]), *rows(range(5)), *rows(range(40, 1500), ' {}')]
    (tmp_path/'qa.jsonl').write_text('\n'.join(map(json.dumps, data)))
    (tmp_path/'held.jsonl').write_text('\n'.join(map(json.dumps, rows([3, 900, 2000]))))
    config = dict(base_model='bundled:mistral-v0.1', adapter='lora', datasets=[dict(path='qa.jsonl', type='segments')])
    def opened(**more):
        from segtune.project import Project
        (tmp_path/'config.yml').write_text(json.dumps({**config, **more}))
        return Project.open('config.yml')
    return opened

def test_a_project_reports_all_of_its_rows(project, tmp_path):
    "Every hit, more than a thousand of one rule, against lint of each row alone; and the held-out file, marked, with its own text."
    p = project(test_datasets=[dict(path='held.jsonl', type='segments')])
    meta, hits, held, same, _ = read_page(p.report(tmp_path/'r.html'))
    assert (meta['rows'], meta['n_train'], held) == (1498, 1495, [1495, 1496, 1497])
    assert len(hits['no-eos']) == 1460 and hits['duplicate'] == list(range(30, 35)) and hits['train-eval-overlap'] == [3, 33]
    for i in (0, 3, 20, 34, 35, 800, 1494):
        alone = {o.rule for o in p.findings(p.rows_at([i])[0])}
        assert alone == {k for k, o in hits.items() if i in o and k not in ('duplicate', 'train-eval-overlap', 'eval-prompt-overlap', 'trained-share', 'near-duplicate', 'conflicting-answers')}
    assert [3, 33, 1495] in same and meta['sources'] == ['qa.jsonl', 'held.jsonl'] and meta['exact'] == {}

def test_rows_that_are_drawn_are_marked(project, tmp_path):
    p = project(val_set_size=10)
    meta, _, held, _, _ = read_page(p.report(tmp_path/'r.html'))
    assert meta['rows'] == meta['n_train'] == 1495 and len(held) == 10

def test_of_many_rows_the_first_are_shown(project, tmp_path):
    "What is said of the others stays true, and names no row of the page."
    p = project(test_datasets=[dict(path='held.jsonl', type='segments')])
    path = p.report(tmp_path/'r.html', 32)
    meta, hits, held, _, _ = read_page(path)
    assert (meta['rows'], meta['n_train'], held) == (35, 32, [32, 33, 34])
    assert hits['duplicate'] == [30, 31] and 'no-eos' in hits and hits['no-eos'] == []
    assert all(f[0] < 32 for f in meta['found'] if meta['rules'][f[1]]['id'] != 'near-duplicate')
    assert '1,460 rows more: dropped, or not in this report' in path.read_text(encoding='utf-8')

def prepared_ids(p):
    from datasets import load_from_disk
    return load_from_disk(str(p.prepared.path))['input_ids'][:]

def test_what_is_dropped_in_the_report_is_not_prepared(driver, project, tmp_path):
    "From the report of a project to `preprocess --drop` with the file it gave: those rows are gone, counted, and no others"
    from selenium.webdriver import ActionChains, Keys
    from typer.testing import CliRunner

    from segtune.cli import app
    p = project()
    page = p.report(tmp_path/'r.html')
    before = prepared_ids(p)
    driver.execute_cdp_cmd('Browser.setDownloadBehavior', {'behavior': 'allow', 'downloadPath': str(tmp_path/'got')})
    enter(driver, page)
    driver.execute_script('localStorage.clear(); decisions.clear(); notes.clear(); remember()')
    def press(*keys): ActionChains(driver).send_keys(*keys).perform()
    for row, key in ((3, 'x'), (40, 'k'), (1400, 'x')):
        opened_row(driver, row)
        driver.execute_script("document.getElementById('list').focus()")
        press(key)
    opened_row(driver, 7)
    driver.execute_script("document.getElementById('list').focus()")
    press('n'), press('odd, but kept', Keys.ENTER)
    driver.find_element('id', 'download').click()
    end = time.time()+20
    while not (tmp_path/'got/drop.txt').exists() and time.time() < end: time.sleep(.05)
    said = CliRunner().invoke(app, ['preprocess', 'config.yml', '--drop', 'got/drop.txt'])
    assert said.exit_code == 0, said.output
    lines = [int(o.split(':')[1]) for o in (tmp_path/'got/drop.txt').read_text().splitlines() if o.startswith('qa.jsonl:')]
    assert f'qa.jsonl: 2 rows dropped, as {tmp_path}/got/drop.txt says: {lines[0]}, {lines[1]}' in said.output
    after = prepared_ids(project(drop='got/drop.txt'))
    assert len(before) == 1495 and after == [o for i, o in enumerate(before) if i not in (3, 1400)]

@pytest.mark.slow
def test_fifty_thousand_rows(driver, tmp_path):
    "Opened, searched, counted; and small."
    tok, rng, n = make_tokenizer('mistral'), random.Random(2), 50_000
    rows = [[Segment(f'<s>Question {i}: {" ".join(rng.choice(words) for _ in range(40))}\nA:', False), Segment(f' {" ".join(rng.choice(words) for _ in range(20))}</s>', True)] for i in range(n)]
    hits = {'odd': np.flatnonzero(np.arange(n) % 3 == 0), 'rare': [49_999]}
    findings = [Found('odd', 'warning', 0, 0, 'odd', 'Nothing.'), Found('rare', 'note', 49_999, 0, 'rare', 'Nothing.')]
    path = write_report(tmp_path/'big.html', Encoder(tok).encode(rows, spans=True), tok, findings, hits=hits, near=False)
    assert path.stat().st_size < 10e6
    enter(driver, path)
    assert count(driver) == n
    assert choose(driver, rule='none')[0] == n-len({*hits['odd'].tolist(), 49_999})
    assert choose(driver, rule='', query='question 49999:') == (1, [49_999])
    assert errors(driver) == []
