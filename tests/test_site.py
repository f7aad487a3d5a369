"""The docs site, as a reader meets it: every page reachable, in a browser, without the network.

The site is the folder named by SEGTUNE_SITE, else it is built into a temporary folder.
"""
import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
FLAGS = """--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1300,1200""".split()


# ---- the sidebar

def listed():
    "Every notebook that _quarto.yml puts in the sidebar, in its order"
    def walk(entries):
        for o in entries:
            if isinstance(o, str): yield o
            else: yield from walk(o["contents"])
    return list(walk(yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))["website"]["sidebar"]["contents"]))

def in_folder():
    "Every notebook there is, apart from hidden ones"
    paths = [o.relative_to(ROOT / "nbs") for o in (ROOT / "nbs").rglob("*.ipynb")]
    return {o.as_posix() for o in paths if not any(part[0] in "._" for part in o.parts)}

def page_name(nb): return re.sub(r"(^|/)\d+[a-z0-9]*_", r"\1", nb).replace(".ipynb", ".html")

def test_the_sidebar_lists_every_notebook_once():
    missing, extra = in_folder() - set(listed()), set(listed()) - in_folder()
    assert not missing and not extra, f"_quarto.yml: add {sorted(missing)} to the sidebar, take {sorted(extra)} out"
    assert len(listed()) == len(set(listed()))

def test_the_api_is_in_reading_order():
    api = [o for o in listed() if o[0].isdigit()]
    assert api == sorted(api)

def test_the_notebooks_share_the_one_quarto_config():
    link = ROOT / "nbs/_quarto.yml"
    assert link.is_symlink() and link.resolve() == ROOT / "_quarto.yml"


# ---- the pages as files

@pytest.fixture(scope="session")
def site(tmp_path_factory):
    if os.environ.get("SEGTUNE_SITE"): return Path(os.environ["SEGTUNE_SITE"])
    out = tmp_path_factory.mktemp("site")
    res = subprocess.run([sys.executable, "tools/docs.py", "site", "--out", str(out)], cwd=ROOT, capture_output=True, text=True)
    assert res.returncode == 0, res.stdout + res.stderr
    return out

class Page(HTMLParser):
    "What a page links to, loads, and can be linked at"
    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loads = set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        if a.get("id"): self.ids.add(a["id"])
        if tag == "a" and a.get("href"): self.links.append(a["href"])
        elif tag == "link" and a.get("rel") not in ("next", "prev", "canonical", "alternate"): self.loads.append(a.get("href"))
        elif a.get("src"): self.loads.append(a["src"])

@pytest.fixture(scope="session")
def pages(site): return {o.relative_to(site).as_posix(): Page(o) for o in site.rglob("*.html") if "site_libs" not in o.parts}

def test_every_notebook_has_its_page(pages): assert {page_name(o) for o in listed()} <= set(pages)

def test_nothing_is_loaded_from_elsewhere(pages):
    remote = {n: [o for o in p.loads if urlsplit(o).netloc] for n, p in pages.items()}
    assert not any(remote.values()), remote

def lost(site, pages, name):
    "The links of a page that lead nowhere"
    for href in pages[name].links:
        to = urlsplit(href)
        if to.scheme or to.netloc: continue
        path = (site / name).parent / unquote(to.path) if to.path else site / name
        target = path.resolve().relative_to(site.resolve()).as_posix()
        if not path.exists(): yield href
        elif to.fragment and target in pages and unquote(to.fragment) not in pages[target].ids: yield href

def test_no_link_is_lost(site, pages):
    broken = {n: sorted(set(lost(site, pages, n))) for n in pages if n != "report.html"}   # its fragments are filters
    assert not any(broken.values()), {n: o for n, o in broken.items() if o}


def test_headings_are_in_order(site, pages):
    "One of the first rank, and none skipped on the way down"
    for name in pages:
        if name == "report.html": continue     # tests/test_report.py reads its headings
        text = (site / name).read_text(encoding="utf-8")
        ranks = [int(o) for o in re.findall(r"<h([1-6])[\s>]", text[text.index("<main"):])]
        assert ranks[0] == 1 and ranks.count(1) == 1 and all(b - a <= 1 for a, b in zip(ranks, ranks[1:])), (name, ranks)

def test_documentation_says_something(site, pages):
    "No stand-in for a sentence, no head that shows how arguments are checked, and links to the source that lead to the line"
    empty = ("Call self as a function", "*args, **kwargs\n)", "FieldInfo(", "typing.Annotated", "#LNone")
    said = {n: [o for o in empty if o in (site / n).read_text(encoding="utf-8")] for n in pages}
    assert not any(said.values()), {n: o for n, o in said.items() if o}

def test_the_page_of_errors_holds_every_message(site, pages):
    sys.path.insert(0, str(ROOT / "tools"))
    import error_page
    found = {name for name, _ in error_page.entries()}
    assert found <= pages["guides/errors.html"].ids
    assert (site / "guides/errors.html").read_text(encoding="utf-8").count("<details><summary>Example</summary>") > 50


# ---- the pages in a browser

def binary(): return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

def unavailable():
    "Why no browser can be driven here, or nothing"
    missing = ["chromium"] * (not binary()) + ["chromedriver"] * (not shutil.which("chromedriver"))
    return f"{' and '.join(missing)} not found. On Debian: apt-get install chromium chromium-driver" if missing else ""

def chromium(profile):
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service
    options = ChromeOptions()
    options.binary_location = binary()
    for flag in [*FLAGS, f"--user-data-dir={profile}"]: options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return Chrome(options=options, service=Service(shutil.which("chromedriver")))

@pytest.fixture(scope="session")
def browser():
    why = unavailable()
    if why and os.environ.get("CI") == "true": pytest.fail(why)
    if why: pytest.skip(why)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        driver = chromium(profile)
        driver.set_page_load_timeout(60)
        yield driver
        driver.quit()

class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args): pass
    def do_GET(self):
        if self.path != "/favicon.ico": return super().do_GET()   # browsers ask for it unbidden
        self.send_response(204)
        self.end_headers()

@pytest.fixture(scope="session")
def home(site):
    "The site's address, served on this machine only"
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()

def requested(browser):
    "Every address the browser asked for since the last call"
    events = [json.loads(o["message"])["message"] for o in browser.get_log("performance")]
    urls = [o["params"]["request"]["url"] for o in events if o["method"] == "Network.requestWillBeSent"]
    return [o for o in urls if not o.startswith(("data:", "blob:", "chrome:"))]   # chrome: is the browser's own first tab

def visit(browser, url):
    "Open a page: no console error, and no request to another host"
    browser.get(url)
    check_quiet(browser, url)

def check_quiet(browser, url):
    asked = requested(browser)
    assert asked, "the browser's log holds no request at all"
    assert {urlsplit(o).hostname for o in asked} == {"127.0.0.1"}, asked
    errors = [o["message"] for o in browser.get_log("browser") if o["level"] in ("SEVERE", "ERROR")]
    assert not errors, f"{url}: {errors}"

# smooth scrolling would let the click land before the element has come to rest
CENTRE = "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})"

def css(browser, selector): return browser.find_elements("css selector", selector)

def token_tables(browser):
    "The tables on this page that begin with token, label and id"
    heads = [[o.text for o in t.find_elements("css selector", "thead th") if o.text] for t in css(browser, "main table")]
    return [o for o in heads if o[:3] == ["token", "label", "id"]]

def test_the_checks_can_fail(browser, site, home):
    page = site / "console-check.html"
    page.write_text("<script>console.error('seen')</script><img src='http://localhost.invalid/x.png'>")
    try:
        with pytest.raises(AssertionError): visit(browser, f"{home}/{page.name}")
    finally: page.unlink()
    requested(browser), browser.get_log("browser")

def test_a_reader_follows_a_link_from_home(browser, home):
    from selenium.webdriver.support.ui import WebDriverWait
    visit(browser, f"{home}/index.html")
    assert "segtune" in browser.title
    pages = re.compile(re.escape(home) + r"/(?!index\.html)([a-z]+/)?\w+\.html")
    links = [o for o in css(browser, "main a[href]") if pages.match(o.get_attribute("href"))]
    assert links, "the home page links to no other page of the site"
    target = links[0].get_attribute("href").split("#")[0]
    browser.execute_script(CENTRE, links[0])
    links[0].click()
    there = "return location.href.split('#')[0] === arguments[0] && document.readyState === 'complete'"
    WebDriverWait(browser, 20).until(lambda o: o.execute_script(there, target))
    check_quiet(browser, target)
    assert css(browser, "main h1")[0].text

@pytest.mark.parametrize("page", ["guides/input_output.html", "look/view.html"])
def test_a_page_shows_the_token_table(browser, home, page):
    visit(browser, f"{home}/{page}")
    assert css(browser, "main h1")[0].text
    assert token_tables(browser), f"{page} shows no table headed token, label, id"

def test_an_api_page_documents_and_shows_source(browser, home):
    visit(browser, f"{home}/encoder.html")
    assert css(browser, "main h3#encoder"), "encoder.html documents no Encoder"
    fold = css(browser, "main details.code-fold")[0]
    source = fold.find_element("css selector", "pre")
    assert not source.is_displayed()
    browser.execute_script(CENTRE, fold)
    fold.find_element("css selector", "summary").click()
    assert source.is_displayed() and re.search(r"def |class ", source.text)

# the beginning of each listing or output of which a part lies past the right edge
CUT = """return [...document.querySelectorAll('main pre, main svg, main img')].filter(o => o.offsetParent !== null || o.tagName === 'svg')
  .filter(o => o.tagName === 'PRE' ? o.scrollWidth > o.clientWidth + 1 : o.getBoundingClientRect().right > innerWidth + 1)
  .map(o => (o.innerText || o.outerHTML).slice(0, 60))"""

# the beginning of each table that can only be read whole by scrolling sideways
SCROLLED = """return [...document.querySelectorAll('main table')].filter(o => o.offsetParent !== null)
  .filter(o => { for (let e = o; e.tagName !== 'MAIN'; e = e.parentElement)
    if (e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX !== 'visible') return true })
  .map(o => o.innerText.slice(0, 60))"""

def resize(browser, width):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

# ---- contrast: every text that is seen against what lies behind it

CONTRAST = """
  const parse = c => { const m = c.match(/[\\d.]+/g).map(Number), k = c.startsWith('color(') ? 255 : 1;
    return [k * m[0], k * m[1], k * m[2], m.length > 3 ? m[3] : 1] };
  const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
  const light = c => { const f = c.slice(0, 3).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * f[0] + .7152 * f[1] + .0722 * f[2] };
  const ground = o => { const found = []; for (let e = o; e; e = e.parentElement) found.push(parse(getComputedStyle(e).backgroundColor));
    return found.reverse().reduce((below, c) => over(c, below), [255, 255, 255, 1]) };
  const out = new Map(), walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const o = walk.currentNode.parentElement, text = walk.currentNode.textContent.trim();
    if (!text || o.closest('svg, script, style, noscript, [hidden], [aria-hidden=true], math') || !o.checkVisibility({opacityProperty: true})) continue;
    const style = getComputedStyle(o);
    let alpha = 1;
    for (let e = o; e; e = e.parentElement) alpha *= Number(getComputedStyle(e).opacity);
    const below = ground(o), ink = parse(style.color);
    ink[3] *= alpha;
    const a = light(over(ink, below)), b = light(below), ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) out.set(`${o.tagName}.${o.className}`, `${ratio.toFixed(2)} ${text.slice(0, 30)}`);
  }
  return [...out].slice(0, 20)"""

def prefer(browser, scheme):
    "What the system asks for: light or dark, and nothing that glides"
    features = [{"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": "reduce"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features if scheme else []})

def faults(browser, page, width):
    "What is wrong with an opened page at a width: it scrolls sideways, something is cut, a text is faint"
    resize(browser, width)
    browser.execute_script("document.querySelectorAll('main details').forEach(o => { o.open = true; })")
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    if wide > width + 1: yield f"{wide} pixels wide on a screen of {width}"
    for o in browser.execute_script(CUT): yield f"cut at {width}: {o}"
    for o in browser.execute_script(SCROLLED) if width > 700 else (): yield f"a table is cut at {width}: {o}"
    for o in browser.execute_script(CONTRAST): yield f"faint at {width}: {o}"

@pytest.mark.parametrize("page", [*(page_name(o) for o in listed()), "report.html"])
def test_a_page_is_quiet_and_fits_and_can_be_read(browser, home, page):
    "Light and dark, on a phone and on a desk: nothing is cut, and every text has a contrast of 4.5 or more"
    try:
        for scheme in ("light", "dark"):
            prefer(browser, scheme)
            resize(browser, 390)
            visit(browser, f"{home}/{page}")
            if "playground" in page: wait(browser, "return document.querySelectorAll('#playground-tokens .row-token').length > 0")
            paper, ink = luminances(browser)
            assert (paper < ink) == (scheme == "dark")
            assert [f"{scheme}: {o}" for width in (360, 390, 1280) for o in faults(browser, page, width)] == []
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        prefer(browser, None)

@pytest.mark.parametrize("page, rows", [("guides/soft_prompts.html", "main table.dataframe"), ("guides/gallery.html", "main .seg-view table"), ("face.html", "main .seg-view table")])
def test_a_table_that_nearly_fits_on_a_phone_fits(browser, home, page, rows):
    "nobody looks for a last column a few pixels past the edge; wide tables scroll in their own box"
    try:
        resize(browser, 390)
        visit(browser, f"{home}/{page}")
        for width in (390, 360):
            resize(browser, width)
            browser.execute_script("document.querySelectorAll('main details').forEach(o => { o.open = true; })")
            assert css(browser, rows) and browser.execute_script(SCROLLED.replace("main table", rows)) == []
    finally: browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

def luminances(browser):
    "Of the page's ground and of its text, as sums of their colours"
    colours = [re.findall(r"\d+", browser.execute_script(f"return getComputedStyle(document.body).{o}")) for o in ("backgroundColor", "color")]
    return [sum(map(int, o[:3])) for o in colours]


# ---- the row of the home page, and the playground

def wait(browser, said, *args):
    from selenium.webdriver.support.ui import WebDriverWait
    return WebDriverWait(browser, 30).until(lambda o: o.execute_script(said, *args))

def boxes(browser, under):
    "`(text, label, id)` of every token that is shown"
    said = """return [...document.querySelectorAll(arguments[0] + ' .row-token')].filter(o => o.offsetParent !== null)
      .map(o => [...o.children].map(c => c.textContent))"""
    return [(text, int(label), int(i)) for text, label, i in browser.execute_script(said, under)]

def choose(browser, name, value):
    browser.execute_script(CENTRE, css(browser, f"[name={name}][value='{value}']")[0])
    browser.execute_script("arguments[0].click()", css(browser, f"[name={name}][value='{value}']")[0])

def python_tokens(row, boundary, tokenizer="bundled:mistral-v0.1"):
    import segtune as st
    return [(t.label, t.id) for t in st.show(row, tokenizer, boundary=boundary).tokens]

HOME_ROW = [("<s>Q: Capital of France?\nA:", False), (" Paris</s>", True)]
MOVED_ROW = [("<s>Q: Capital of France?\nA: ", False), ("Paris</s>", True)]

def test_the_home_page_shows_its_row_under_each_boundary(browser, home):
    visit(browser, f"{home}/index.html")
    assert css(browser, ".home-row")[0].rect["y"] < 400, "the row is above the fold"
    for place, row in enumerate((HOME_ROW, MOVED_ROW)):
        for boundary in ("split", "whole", "axolotl"):
            choose(browser, "place", place)
            choose(browser, "boundary", boundary)
            assert [o[1:] for o in boxes(browser, ".home-row")] == python_tokens(row, boundary), (boundary, place)
    assert css(browser, ".home-row [data-row='axolotl 0'] .row-added") and css(browser, ".home-row [data-row='whole 1'] .is-crossing")

def playground(browser, home):
    visit(browser, f"{home}/guides/playground.html")
    wait(browser, "return document.querySelectorAll('#playground-tokens .row-token').length > 0")

def type_text(browser, text):
    said = """const o = document.getElementById('playground-text'); o.value = arguments[0]; o.dispatchEvent(new Event('input'))"""
    browser.execute_script(said, text)

def shown_row(browser):
    segments = json.loads(css(browser, "#playground-jsonl")[0].text)["segments"]
    return [(o["text"], o["label"]) for o in segments]

def test_the_playground_follows_what_is_typed(browser, home):
    playground(browser, home)
    for name in ("mistral-v0.1", "gpt2"):
        choose(browser, "vocabulary", name)
        wait(browser, "return !document.getElementById('playground-count').textContent.includes('reading')")
        for boundary in ("split", "whole", "axolotl"):
            choose(browser, "boundary", boundary)
            type_text(browser, "Say 東京 😀\n\nto me")
            assert shown_row(browser) == [("Say 東京 😀\n\nto me", False)]
            assert [o[1:] for o in boxes(browser, "#playground")] == python_tokens(shown_row(browser), boundary, f"bundled:{name}")
    check_quiet_log(browser)

def check_quiet_log(browser):
    errors = [o["message"] for o in browser.get_log("browser") if o["level"] in ("SEVERE", "ERROR")]
    assert not errors, errors

def test_the_playground_trains_and_masks_a_selection(browser, home):
    playground(browser, home)
    type_text(browser, "one two three")
    select = "const o = document.getElementById('playground-text'); o.focus(); o.setSelectionRange(arguments[0], arguments[1])"
    browser.execute_script(select, 3, 7)
    css(browser, "#playground .buttons button")[0].click()
    assert shown_row(browser) == [("one", False), (" two", True), (" three", False)]
    browser.execute_script(select, 0, 7)
    css(browser, "#playground .buttons button")[1].click()
    assert shown_row(browser) == [("one two three", False)]

def test_an_edge_moves_by_key_and_by_drag(browser, home):
    from selenium.webdriver import ActionChains
    playground(browser, home)
    assert shown_row(browser) == HOME_ROW
    edge = css(browser, "#playground .row-edge")[0]
    edge.send_keys("\ue014")    # the right arrow
    assert shown_row(browser) == MOVED_ROW
    browser.execute_script(CENTRE, css(browser, "#playground-runs")[0])
    edge = css(browser, "#playground .row-edge")[0]
    ActionChains(browser).drag_and_drop_by_offset(edge, 45, 0).perform()
    (masked, _), (trained, _) = shown_row(browser)
    assert masked + trained == "".join(o[0] for o in HOME_ROW) and len(trained) < len("Paris</s>")

def test_the_laws_on_the_page_are_the_laws(browser, home):
    playground(browser, home)
    choose(browser, "boundary", "axolotl")
    broken = [o.text.split()[0] for o in css(browser, "#playground-laws .law-broken")]
    assert broken == ["text"]
    choose(browser, "boundary", "split")
    assert not css(browser, "#playground-laws .law-broken") and len(css(browser, "#playground-laws .law-holds")) == 3

def test_the_jsonl_is_copied(browser, home):
    playground(browser, home)
    browser.execute_script("Object.defineProperty(navigator, 'clipboard', {value: {writeText: async o => { window.copied = o; }}})")
    css(browser, "#playground-copy")[0].click()
    wait(browser, "return window.copied")
    assert json.loads(browser.execute_script("return window.copied")) == json.loads(css(browser, "#playground-jsonl")[0].text)

PARTS = [" ", "  ", "\n", "\t", "<s>", "</s>", "<unk>", "<|endoftext|>", "</", "s>", "<", " Paris", "Q: ", "don't", "we'll", "東京", "한국어", "ж",
         "😀", "👍🏽", "é", "e\u0301", "▁", "x" * 9, "12345", " 1 2", "…", "\u3000", "\ufeff", "\x85", "\xa0", "\x00", "ﷺ", "ǅ", "Ⅷ", "²", "_", "-->"]

def random_rows(n, seed=0):
    "Rows of one to four parts: hostile pieces, printable ASCII and any character of Unicode"
    import random
    rng = random.Random(seed)
    def character(): return chr(rng.choice([rng.randrange(32, 127), rng.randrange(0xd800), rng.randrange(0xe000, 0x110000)]))
    def piece(): return rng.choice(PARTS) if rng.random() < .6 else "".join(character() for _ in range(rng.randrange(1, 9)))
    def part(): return "".join(piece() for _ in range(rng.randrange(0, 5)))
    rows = [[(part(), rng.random() < .5) for _ in range(rng.randrange(1, 5))] for _ in range(n)]
    return [r for r in rows if any(t for t, _ in r)]

def python_rows(rows, name, boundary):
    "`[ids, labels, [text law, label law, prompt law]]` of every row"
    import segtune as st
    from segtune.encoder import Encoder
    from segtune.laws import label_law, prompt_law, text_law
    from segtune.segments import Segment
    encoder = Encoder(st.load_tokenizer(f"bundled:{name}"), boundary)
    batch = encoder.encode([[Segment(*o) for o in r] for r in rows], spans=True)
    broken = [{f.row for f in law(encoder, batch)} for law in (text_law, label_law, prompt_law)]
    found = map(batch.row, range(len(rows)))
    return [[o.ids.tolist(), o.labels.tolist(), [i not in b for b in broken]] for i, o in enumerate(found)]

ENCODE = """const [name, boundary, rows] = arguments, S = window.segtune;
  const tok = (window.kept ??= {})[name] ??= S.tokenizer(window.segtuneVocabularies[name]);
  return rows.map(r => {
    const row = r.map(([text, label]) => ({text, label})), tokens = S.encode(tok, row, boundary), l = S.laws(tok, row, tokens);
    return [tokens.map(t => t.id), tokens.map(t => t.label), [l.text, l.label, l.prompt]];
  })"""

def test_the_playground_encodes_as_python_does(browser, home):
    rows = random_rows(10_000)
    playground(browser, home)
    choose(browser, "vocabulary", "gpt2")
    wait(browser, "return Boolean(window.segtuneVocabularies.gpt2)")
    for name in ("mistral-v0.1", "gpt2"):
        for boundary in ("split", "whole", "axolotl"):
            want, got = python_rows(rows, name, boundary), browser.execute_script(ENCODE, name, boundary, rows)
            wrong = [(r, w, g) for r, w, g in zip(rows, want, got) if w != g]
            assert len(got) == len(rows) and not wrong, (name, boundary, len(wrong), wrong[:2])

def test_every_page_has_an_icon_and_a_picture_for_links(site):
    for name in map(page_name, listed()):
        text = (site / name).read_text(encoding="utf-8")
        icon = re.search(r'<link rel="icon" href="([^"]+)"', text)
        assert icon and ((site / name).parent / icon[1]).resolve().is_file(), name
        assert re.search(r'<meta property="og:image" content="https://[^"]+/images/card.png">', text), name
    assert (site / "images/card.png").is_file()

FOUND = """return [...document.querySelectorAll('.search-result')].filter(o => o.offsetParent !== null)
  .map(o => [new URL(o.href).pathname.slice(1), o.innerText])"""

@pytest.mark.parametrize("word, pages", [
    ("loss mask", ["guides/glossary.html"]), ("truncation", ["guides/glossary.html"]),
    ("learning rate", ["guides/glossary.html", "guides/lora.html"]), ("overfitting", ["guides/glossary.html", "guides/lora.html"]),
    ("pad token", ["guides/glossary.html"]), ("chat template", ["guides/glossary.html", "axolotl/chat_template.html", "formats/chat.html"]),
    ("packing", ["guides/glossary.html"]), ("resume", ["guides/glossary.html"])])
def test_search_finds_the_page_that_explains_a_word_first(browser, home, word, pages):
    visit(browser, f"{home}/index.html")
    box = next(o for o in css(browser, ".smalldocs-search input, #quarto-search input") if o.is_displayed())
    box.click()
    box.send_keys(word)
    found = wait(browser, FOUND)
    assert found[0][0] in pages, found[:4]
