"The docs tool: a page needs no network, whichever program rendered it."
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
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

def test_other_documentation_stays_as_it_is():
    from nbdev.showdoc import show_doc

    from segtune.encoder import Encoder
    assert shown(Encoder) == show_doc(Encoder)._repr_markdown_() and "boundary" in shown(Encoder)
