"The docs tool: a page needs no network, whichever program rendered it."
import inspect
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
docs = pytest.importorskip("docs", exc_type=ImportError)

# what Quarto writes into the head of a page that has an HTML output
QUARTO = """<head>
<script src="site_libs/quarto-nav/quarto-nav.js"></script>
<script src="https://cdn.example/require.js/2.3.6/require.min.js" integrity="sha384-x" crossorigin="anonymous"></script>
<script src="https://cdn.example/jquery/3.5.1/jquery.min.js" data-relocate-top="true" crossorigin="anonymous"></script>
<script type="application/javascript">define('jquery', [],function() {return window.jQuery;})</script>
<script>window.own = 1</script>
</head>"""


def test_scripts_that_a_page_would_load_from_the_network_go_and_all_others_stay(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(QUARTO, encoding="utf-8")
    assert docs.offline(page) == []
    kept = page.read_text(encoding="utf-8")
    assert "cdn.example" not in kept and "define(" not in kept
    assert "quarto-nav.js" in kept and "window.own = 1" in kept

def test_anything_else_from_the_network_is_named(tmp_path):
    page = tmp_path / "page.html"
    page.write_text('<img src="https://cdn.example/a.png">', encoding="utf-8")
    [found] = docs.offline(page)
    assert found.startswith("page.html: ") and "cdn.example/a.png" in found

def test_formulas_become_mathml_and_the_maths_script_goes(tmp_path):
    page = tmp_path / "page.html"
    script = '<script src="https://cdn.example/katex.js" class="katex"></script>'
    page.write_text(script + r'<span class="math inline">\(a+b\)</span>', encoding="utf-8")
    assert docs.offline(page) == []
    kept = page.read_text(encoding="utf-8")
    assert "<math" in kept and "katex" not in kept

def test_a_picture_says_in_words_what_it_shows():
    from execnb.nbio import mk_cell
    cell = mk_cell("#| fig-alt: 'Rows by length: most have < 100 tokens'\nplot()")
    cell.outputs = [{"output_type": "display_data", "data": {"image/svg+xml": ["<svg width='1'>\n", "</svg>"]}}]
    docs.describe_pictures([cell])
    svg = "".join(cell.outputs[0]["data"]["image/svg+xml"])
    assert svg.startswith('<svg role="img" aria-label="Rows by length: most have &lt; 100 tokens" width=')

def test_a_name_that_is_a_link_already_is_linked_once():
    class Names:
        def linkify(self, text): return text.replace("`f`", "[`f`](page.html#f)")
    made = docs.linkify("[`f`](own.ipynb) and `f`", Names())
    assert made == "[<code>f</code>](own.ipynb) and [`f`](page.html#f)"
    assert docs.linkify("[`a --drop b`](own.ipynb)", Names()) == "[<code>a -<!-- -->-drop b</code>](own.ipynb)"   # no dash is made of it

def shown(o):
    from nbdev.showdoc import show_doc
    return docs.plain_doc(show_doc(o)._repr_markdown_(), o)

def test_a_command_is_documented_by_its_help():
    from segtune import data_commands
    text = shown(data_commands.lint)
    assert "Annotated" not in text and "def lint" not in text
    assert "Usage: segtune lint [OPTIONS] CONFIG" in text and "--strict" in text and "segtune lint config.yml --strict" in text

def test_options_are_documented_by_their_table():
    from segtune.config import Config
    from segtune.options import RowOptions
    text = shown(RowOptions)
    assert "data:Any" not in text and "class RowOptions(" in text and "| `on_bad` |" in text and "| `seed` |" not in text
    assert "| `on_lint` |" in shown(Config) and "| `learning_rate` |" not in shown(Config)

def test_a_named_tuple_is_documented_by_its_fields():
    from segtune.encoded import EncodedRow
    from segtune.laws import Finding
    text = shown(Finding)
    assert "args" not in text and "class Finding(NamedTuple)\n    rule:str # " in text and "fix:" in text
    assert "args" not in shown(EncodedRow) and "ids:" in shown(EncodedRow)

def test_a_class_with_the_arguments_of_another_library_names_it():
    from segtune.console import Command
    from segtune.segments import DataError, SegtuneError
    assert "context_settings" not in shown(Command) and "class Command(" in shown(Command)
    assert docs.inherited_init(SegtuneError) is None
    assert docs.inherited_init(DataError) == "class DataError(SegtuneError)" and "message:" not in shown(DataError)

def test_a_class_is_called_one():
    from segtune.encoder import Encoder
    from segtune.pieces import Boundary
    assert "class Encoder(\n" in shown(Encoder) and "boundary" in shown(Encoder)
    assert "```python\nclass Boundary\n```" in shown(Boundary)

def test_options_stand_below_the_head_with_their_defaults():
    from segtune.face import prepare
    from segtune.training.vocabulary import resize_vocabulary
    text = shown(resize_vocabulary)
    assert "    rows:int=0, # At least so many rows\n    **options\n" in text and "_32x:bool" not in text
    assert "a multiple of 32? (default `False`)" in text
    assert "Annotated" not in shown(prepare) and "`seed=42`" in shown(prepare) and "`boundary`," in shown(prepare)
    assert "seed" in inspect.signature(prepare).parameters      # a notebook still completes it

def test_the_source_is_linked_at_its_line():
    from segtune.lint import texts
    from segtune.segments import printable
    lines = (ROOT / "segtune/segments.py").read_text(encoding="utf-8").splitlines()
    at = int(re.search(r"segments\.py#L(\d+)", shown(printable))[1])
    assert lines[at-1].startswith("def printable(")
    segments = docs.named({"LintBatch": texts.LintBatch}, "LintBatch.segments")
    assert "texts.py#L" in shown(segments) and "None" not in shown(segments).splitlines()[2]

def test_a_missing_sentence_is_not_made_up():
    def f(x): pass
    assert "Call self" not in docs.plain_doc("*Call self as a function.*", f)

def test_a_description_may_have_two_lines():
    from execnb.nbio import mk_cell
    cells = docs.split_title([mk_cell("# Cache\n\n> What is kept,\n> or not at all.\n\nMore.", "markdown")])
    assert [o.source for o in cells] == ["# Cache\n\n> What is kept, or not at all.", "More."]


def test_a_name_in_a_table_can_be_broken_after_an_underscore(tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<td><code>val_set_size</code></td><td>text of <code>val_set_size</code></td>", encoding="utf-8")
    docs.breakable(tmp_path)
    assert page.read_text(encoding="utf-8") == "<td><code>val_<wbr>set_<wbr>size</code></td><td>text of <code>val_set_size</code></td>"


def test_a_long_word_in_a_data_frame_can_be_broken(tmp_path):
    page, frame = tmp_path / "page.html", '<table border="1" class="dataframe"><tr><td>{}</td><td>short_name</td></tr></table>'
    page.write_text(frame.format(r"\nParis&lt;|im_end|&gt;\n&lt;|im_start|&gt;user"), encoding="utf-8")
    docs.breakable(tmp_path)
    text = page.read_text(encoding="utf-8")
    assert text == frame.format(r"\n<wbr>Paris&lt;|im_end|&gt;<wbr>\n<wbr>&lt;|im_start|&gt;<wbr>user")

def test_tables_of_options_are_known_by_a_class(tmp_path):
    page, head = tmp_path / "page.html", '<table class="{}">\n<thead><tr><th>key</th><th>{}</th></tr></thead><td>as <code>a_b</code></td></table>'
    page.write_text(head.format("table", "same as in axolotl?") + head.format("table", "why"), encoding="utf-8")
    docs.breakable(tmp_path)
    options = head.format("table options", "same as in axolotl?").replace("a_b", "a_<wbr>b")
    assert page.read_text(encoding="utf-8") == options + head.format("table", "why")


def test_no_rank_of_headings_is_skipped(tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<main><h1>A</h1><h3 id='f'>f</h3><p>x</p><h2>B</h2><h3>g</h3></main>", encoding="utf-8")
    docs.order_headings(tmp_path)
    assert page.read_text(encoding="utf-8") == "<main><h1>A</h1><h2 id='f'>f</h2><p>x</p><h2>B</h2><h3>g</h3></main>"


# ---- the page of error messages

error_page = pytest.importorskip("error_page", exc_type=ImportError)
messages = pytest.importorskip("messages", exc_type=ImportError)
provoke = pytest.importorskip("provoke", exc_type=ImportError)

PACKAGE = """
class SegtuneError(ValueError): pass
class OwnError(SegtuneError): pass
_hint = dict(a='Write a.', b='Write b.')

def _near(name): return f' Did you mean {name}?' if name else ''
def _refuse(why): raise OwnError(f'{why}. Remove it.', field='key')

def check(x, n):
    "Checks."
    if x: raise OwnError(f'expected {n} rows, got {len(x)}.{_near(x)}', source='--set')
    if n: _refuse('is no number')
    message = 'there is nothing here' if n else 'there is too much here'
    if x==3: raise SegtuneError(message)
    message = 'the last is what counts'
    raise OwnError(message)
"""

def test_messages_are_read_from_the_source(tmp_path):
    "Literals, variables, parameters of helpers, alternatives; of a variable only what it may hold there"
    (tmp_path / "room").mkdir()
    (tmp_path / "room/own.py").write_text(PACKAGE)
    found = {o.text: (o.module, o.kind, o.field, o.at) for o in messages.read_messages(tmp_path)}
    assert found == {
        "expected ⟨number⟩ rows, got ⟨number⟩.[ Did you mean ⟨name⟩?]": ("room/own", "OwnError", "", "--set"),
        "is no number. Remove it.": ("room/own", "OwnError", "key", ""),
        "there is nothing here": ("room/own", "SegtuneError", "", ""), "there is too much here": ("room/own", "SegtuneError", "", ""),
        "the last is what counts": ("room/own", "OwnError", "", "")}

def test_every_message_has_an_address_and_says_what_to_do():
    names = [name for name, _ in error_page.entries()]
    assert len(names) == len(set(names)) > 350
    assert [m for _, m in error_page.entries() if not error_page.fix_of(m)] == []
    texts = [m.text for _, m in error_page.entries()]
    assert [o for o in error_page.FIXES if not any(t.startswith(o) for t in texts)] == []

def test_the_page_is_made_of_every_message():
    from execnb.nbio import read_nb
    notebook = read_nb(Path(__file__).parent.parent / "nbs/guides/errors.ipynb")
    assert [c.source for c in notebook.cells].count(error_page.MARKER) == 1
    modules = {m.module for _, m in error_page.entries()}
    assert modules <= set(error_page.notebooks()) and {o.split("/")[0] if "/" in o else "" for o in modules} == set(error_page.ROOMS)

QUICK = [o for o in provoke.CASES if o.command.split()[0] not in ("train", "evaluate", "generate", "merge")]

def provoked(case):
    said, modules = provoke.told(case)
    return said, dict(error_page.entries())[error_page.match(said, modules)]

@pytest.mark.parametrize("at", range(0, len(QUICK), 4))
def test_what_is_printed_is_on_the_page(at):
    said, m = provoked(QUICK[at])
    assert error_page.pattern(m.text).search(said) and "None" not in said

@pytest.mark.slow
def test_every_example_is_on_the_page():
    found = error_page.examples()
    assert len(found) > 50 and all(said for _, said in found.values())
    assert not [said for _, said in found.values() if re.search(r"/(tmp|home|work|root)/", error_page.short(said))]
