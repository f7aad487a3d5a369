"""Build the docs site, or README.md from nbs/index.ipynb.

    python tools/docs.py site [--out DIR] [--engine auto|quarto|smalldocs]
    python tools/docs.py readme [--check]
    python tools/docs.py picture [--check]     the coloured row of the home page, nbs/images/row.svg

Notebooks are processed by nbdev into a temporary folder and rendered there from the top-level _quarto.yml,
with `quarto render` when Quarto is installed, else with smalldocs. No cell is run: the pages show the stored
outputs, and each exported function is documented from the package.
"""
import argparse
import difflib
import html
import inspect
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path

import error_page
import home_row
import live_report
import playground
import yaml
from execnb.nbio import mk_cell, read_nb, write_nb
from execnb.shell import CaptureShell
from nbdev.config import get_config
from nbdev.doclinks import NbdevLookup, nbglob
from nbdev.process import Processor
from nbdev.processors import FilterDefaults

ROOT = Path(__file__).resolve().parent.parent
NUMBER = re.compile(r"\b\d+[a-z0-9]*_(\w+)\.ipynb")          # 02_encode.ipynb becomes the page encode
ASSETS = {".css", ".png", ".svg", ".jpg", ".md"}
REMOTE = re.compile(r"""<(?:link(?![^>]*rel=["']?(?:canonical|alternate|next|prev))|script|img|iframe|source|video|audio)\b[^>]*?"""
                    r"""\b(?:src|href)=["'](?:https?:)?//[^"']+["'][^>]*>""")
BROKEN = re.compile(r"warning: (\S+): broken link (\S+)")
MATH = re.compile(r'<span class="math (inline|display)">\\[(\[](.*?)\\[)\]]</span>', re.DOTALL)
KATEX = re.compile(r'<(?:link|script)\b[^>]*\bkatex[^>]*>(?:</script>)?\s*')
# what Quarto adds to a page with an HTML output: require.js and jQuery from a CDN, and the line that joins the two
SCRIPTS = re.compile(r"""<script\b[^>]*\bsrc=["'](?:https?:)?//[^"']+["'][^>]*>\s*</script>\s*"""
                     r"""|<script\b[^>]*>\s*define\('jquery',[^<]*</script>\s*""")
# keys that Quarto reads and smalldocs does not need
REMOTE_STYLE = re.compile(r"""@import\s+(?:url\(\s*["']?(?:https?:)?//[^)]*\)|["'](?:https?:)?//[^"']*["'])[^;]*;""")  # the theme's web font
UNREAD = re.compile(r"format\.html\.(respect-user-color-scheme|html-math-method) is|execute\.enabled is|output-file is not read")


def page_name(name):
    "`02_encode.ipynb` is published as `encode`, the name nbdev's own links use"
    return NUMBER.sub(r"\1.ipynb", name)

def only_imports(src):
    lines = [o for o in src.splitlines() if o.strip() and not o.startswith("#|")]
    return all(re.match(r"\s*(from|import|\)|[\w, ]+\)?$)", o) for o in lines)

class show_source(Processor):
    "Show the source of exported cells after their documentation; import cells and hidden ones stay out"
    def begin(self):
        for cell in self.nb.cells:
            dirs = cell.directives_ if cell.cell_type == "code" else {}
            if "export" in dirs and "hide" not in dirs and not only_imports(cell.source): dirs["exports"] = dirs.pop("export")

def fold_source(cell):
    "Fold what nbdev would leave open"
    if cell.cell_type == "code" and "exports" in cell.directives_:
        cell.source = f'#| code-fold: true\n#| code-summary: "Source"\n{cell.source}'

SIGNATURE = re.compile(r"```python\n(?:def|class) .*?\n```", re.DOTALL)

def command_help(o):
    "What `segtune NAME --help` prints, if `o` is the function of a command"
    from segtune.cli import app
    if not any(o is c.callback for c in app.registered_commands): return None
    from typer.testing import CliRunner
    return CliRunner().invoke(app, [o.__name__, "--help"], prog_name="segtune", terminal_width=80).output.strip()

def own_options(o):
    "The options that a group declares itself, as a table; None for anything else"
    from pydantic import BaseModel

    from segtune.declare import options_table
    if not (isinstance(o, type) and issubclass(o, BaseModel)): return None
    plain = [f"{k}: {v.annotation}" for k, v in o.model_fields.items() if not v.json_schema_extra]
    if plain: return ""
    return options_table(o, leave_out={*o.model_fields} - {*vars(o).get("__annotations__", ())}) if o.model_fields else ""

def own_fields(o):
    "The fields of a named tuple as its class declares them, with their comments; None for anything else"
    if not (isinstance(o, type) and issubclass(o, tuple) and hasattr(o, "_fields")): return None
    lines = inspect.getsource(o).splitlines()
    fields = [line for name in o._fields for line in lines if re.match(rf"    {name}\s*:", line)]
    return "\n".join([f"class {o.__name__}({o.__orig_bases__[0].__name__})", *fields]) if fields else None

def inherited_init(o):
    "The head of a class that takes the arguments of the class it is made from; None for anything else"
    from pydantic import BaseModel
    if not isinstance(o, type) or issubclass(o, BaseModel) or "__init__" in vars(o) or "__new__" in vars(o): return None
    bases = ", ".join("namedtuple" if b.__name__ == o.__name__ else b.__name__ for b in o.__bases__ if b is not object)
    return f"class {o.__name__}({bases})" if bases else f"class {o.__name__}"

def function_of(o):
    "The function that was written, under its decorators; None where there is none"
    for name in ("fget", "func", "__func__"): o = getattr(o, name, None) or o
    o = inspect.unwrap(o) if callable(o) else None
    return o if inspect.isfunction(o) else None

def named(space, name):
    "What a dotted name stands for, a property as such"
    first, *rest = name.split(".")
    o = space.get(first)
    for part in rest: o = inspect.getattr_static(o, part, None)
    return o

def option_parameters(o):
    "The parameters that a function has from a group of options, and not from its own head"
    written = function_of(o)
    if not written or not callable(o) or isinstance(o, type): return []
    code = written.__code__
    own = code.co_varnames[:code.co_argcount + code.co_kwonlyargcount]
    return [p for p in inspect.signature(o).parameters.values() if p.kind == p.KEYWORD_ONLY and p.name not in own]

def default_text(p):
    return "" if p.default in (None, p.empty) else f"{p.default!r}"

OPTION = re.compile(r"^- `(\w+)`: (.*)$", re.MULTILINE)

def short_options(markdown, o):
    "A head that says `**options`, and the options below it, each with its default"
    from nbdev.showdoc import show_doc
    options = {p.name: p for p in option_parameters(o)}
    if not options: return markdown
    whole = inspect.signature(o)
    kept = [p for p in whole.parameters.values() if p.name not in options]
    if all(p.kind != p.VAR_KEYWORD for p in kept): kept.append(inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD))
    o.__signature__ = whole.replace(parameters=kept)
    try: head = SIGNATURE.search(show_doc(o)._repr_markdown_())[0]
    finally: o.__signature__ = whole
    text = SIGNATURE.sub(lambda m: head, markdown, count=1)
    said = {k: f" (default `{default_text(p)}`)" if default_text(p) else "" for k, p in options.items()}
    if "\nOptions:\n" in text: return OPTION.sub(lambda m: f"- `{m[1]}`: {m[2]}{said.get(m[1], '')}", text)
    cfg = get_config()
    keys = ", ".join(f"`{k}={default_text(p)}`" if default_text(p) else f"`{k}`" for k, p in options.items())
    page = f"{cfg.doc_host}{cfg.doc_baseurl}/guides/config_keys.html"
    return f"{text}\n\nOptions, explained in [Config keys]({page}): {keys}\n"

def with_line(markdown, o):
    "The link to the source leads to the line"
    written = o if isinstance(o, type) else function_of(o)
    if "#LNone" not in markdown or written is None: return markdown.replace("#LNone", "")
    return markdown.replace("#LNone", f"#L{inspect.getsourcelines(written)[1]}")

UNSAID = re.compile(r"^\*Call self as a function\.\*$", re.MULTILINE)

def plain_doc(markdown, o):
    """Documentation whose signature says something: a command's is its help, that of options their table,
    that of a named tuple its fields, and a class is called one."""
    markdown = UNSAID.sub("", with_line(markdown, o))
    if fields := own_fields(o): return SIGNATURE.sub(lambda m: f"```python\n{fields}\n```", markdown, count=1)
    if text := command_help(o): return SIGNATURE.sub(lambda m: f"```text\n{text}\n```", markdown, count=1)
    if (table := own_options(o)) is not None:
        above = ", ".join(b.__name__ for b in o.__bases__)
        head = SIGNATURE.sub(lambda m: f"```python\nclass {o.__name__}({above})\n```", markdown, count=1)
        return f"{head}\n\n{table}\n" if table.count("\n") > 1 else head
    if head := inherited_init(o): return SIGNATURE.sub(lambda m: f"```python\n{head}\n```", markdown, count=1)
    if isinstance(o, type): return markdown.replace(f"```python\ndef {o.__name__}(", f"```python\nclass {o.__name__}(", 1)
    return short_options(markdown, o)

class document(Processor):
    "Run the `show_doc` cells against the exported module, and no other cell"
    def begin(self):
        if not self.nb.module_: return
        self.shell = CaptureShell()
        names = "globals().update({k: o for k, o in vars(module).items() if k[:2] != '__'})"
        self.shell.run_cell(f"from nbdev.showdoc import show_doc\nimport {self.nb.module_} as module\n{names}")

    def cell(self, cell):
        if cell.cell_type != "code" or not re.search(r"^show_doc\(", cell.source, re.MULTILINE): return
        if re.search(r"^show_doc\(__", cell.source, re.MULTILINE):      # a module's own __getattr__ has no page of its own
            cell.source = ""
            return
        self.shell.cell(cell)
        if self.shell.exc: raise RuntimeError(f"{self.nb.module_}: {cell.source} failed. Run nbdev_export first.") from self.shell.exc
        name = re.search(r"^show_doc\(\s*([\w.]+)", cell.source, re.MULTILINE)
        o = named(self.shell.user_ns, name[1]) if name else None
        for out in cell.outputs:
            data = out.get("data", {})
            if o is None or "text/markdown" not in data: continue
            data["text/markdown"] = plain_doc("".join(data["text/markdown"]), o).splitlines(True)
            if "text/plain" in data: data["text/plain"] = [name[1]]

class source_last(Processor):
    "The source of an exported cell follows the documentation of everything in it"
    def begin(self):
        cells, rest = [], list(self.nb.cells)
        while rest:
            cell = rest.pop(0)
            if cell.cell_type == "code" and "exports" in cell.directives_:
                docs = list(takewhile(lambda o: getattr(o, "has_sd", False), rest))
                rest = rest[len(docs):]
                cells += reversed(docs)       # nbdev puts the last name first
            cells.append(cell)
        self.nb.cells = cells

LINKED = re.compile(r"\[`([^`\]]+)`\]\(")     # a name that is a link already

def linkify(text, names):
    "Names in backticks become links, but for those that are links already"
    text = LINKED.sub(lambda m: f"[<code>{html.escape(m[1]).replace('--', '-<!-- -->-')}</code>](", text)
    return names.linkify(text)

def add_links(cell):
    "Names in backticks link to their documentation, in prose and documentation, not in code"
    names = NbdevLookup()
    if cell.cell_type == "markdown": cell.source = linkify(cell.source, names)
    for out in cell.get("outputs", []):
        data = out.get("data", {})
        if "text/markdown" in data: data["text/markdown"] = linkify("".join(data["text/markdown"]), names).splitlines(True)

class PageFilters(FilterDefaults):
    def base_procs(self):
        own = {"add_fold": fold_source, "add_links": add_links, "exec_show_docs": document, "mv_exports": source_last}
        return [show_source, *(own.get(o.__name__, o) for o in super().base_procs())]


def split_title(cells):
    "nbdev makes the cell of the title front matter and drops the rest of it: give the rest a cell of its own"
    for i, cell in enumerate(cells):
        m = re.match(r"#\s[^\n]*\n*((?:>\s[^\n]*\n?)*)", cell.source) if cell.cell_type == "markdown" else None
        if not m: continue
        rest = cell.source[m.end():].strip("\n")
        quote = " ".join(o.removeprefix(">").strip() for o in m[1].splitlines())     # front matter has one line of it
        cell.source = cell.source[:m.start(1)] + (f"> {quote}" if quote else "")
        return cells[:i + 1] + ([mk_cell(rest, "markdown")] if rest else []) + cells[i + 1:]
    return cells

def shell_listing(src):
    "The commands of a `%%bash` cell, or of one whose lines all begin with `!`"
    if m := re.match(r"%%(?:bash|sh|script \w+)[^\n]*\n", src): return src[m.end():]
    if src.startswith("!") and all(o.startswith("!") for o in src.splitlines()): return re.sub(r"(?m)^!", "", src)

def show_shell(cells):
    "A cell of shell commands reads as a shell listing with its output"
    for cell in cells:
        commands = shell_listing(cell.source.strip()) if cell.cell_type == "code" else None
        if commands:
            yield mk_cell(f"```bash\n{commands}\n```", "markdown")
            cell.source = ""
        yield cell

ALT = re.compile(r"^#\|\s*fig-alt:\s*(.+)$", re.MULTILINE)

def describe_pictures(cells):
    "A stored SVG says in words what it shows, from its cell's `fig-alt`"
    for cell in cells:
        alt = ALT.search(cell.source) if cell.cell_type == "code" else None
        if not alt: continue
        label = html.escape(alt[1].strip().strip("\"'"))
        for out in cell.get("outputs", []):
            data = out.get("data", {})
            if "image/svg+xml" not in data: continue
            svg = "".join(data["image/svg+xml"]).replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
            data["image/svg+xml"] = svg.splitlines(True)

def process(src, dst):
    "Write the docs version of one notebook"
    nb = read_nb(src)
    first = next((o.source for o in nb.cells if o.cell_type == "code"), "")
    exported = re.match(r"#\|\s*default_exp\s+(\S+)", first)
    nb.module_ = f"{get_config().lib_path.name}.{exported[1]}" if exported else None
    nb.cells = list(show_shell(error_page.fill(split_title(nb.cells))))
    describe_pictures(nb.cells)
    for i, cell in enumerate(nb.cells): cell.idx_ = i
    PageFilters()(nb)
    dst.parent.mkdir(parents=True, exist_ok=True)
    write_nb(nb, dst)

def relink(path, folder, base):
    "Links to the published site and to numbered notebooks become links inside this site"
    up = "../" * len(path.relative_to(folder).parent.parts)
    txt = path.read_text(encoding="utf-8")
    txt = re.sub(re.escape(base) + r"/*([\w/.-]*\.html)", rf"{up}\1", txt)
    path.write_text(NUMBER.sub(r"\1.ipynb", txt), encoding="utf-8")

def stage(cfg, folder):
    "Every notebook, processed, with _quarto.yml and the files beside the notebooks"
    os.environ["IN_TEST"] = "1"
    base = f"{cfg.doc_host}{cfg.doc_baseurl}"
    for src in nbglob(cfg.nbs_path, as_path=True):
        dst = folder / page_name(str(src.relative_to(cfg.nbs_path)))
        process(src, dst)
        relink(dst, folder, base)
    for src in cfg.nbs_path.rglob("*"):
        name = src.relative_to(cfg.nbs_path)
        if src.suffix in ASSETS and src.is_file() and not any(o[0] in "._" for o in name.parts):
            dst = folder / name
            dst.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(src, dst)
    config = (cfg.config_path / "_quarto.yml").read_text(encoding="utf-8")
    (folder / "_quarto.yml").write_text(NUMBER.sub(r"\1.ipynb", config), encoding="utf-8")

def mathml(m):
    "A formula as MathML"
    from latex2mathml.converter import convert
    return convert(html.unescape(m[2]), display="block" if m[1] == "display" else "inline")

def offline(page):
    "A page without scripts from the network: formulas become MathML; returns what it would still load from there"
    txt = page.read_text(encoding="utf-8")
    new = KATEX.sub("", MATH.sub(mathml, txt)) if MATH.search(txt) else txt
    new = SCRIPTS.sub("", new)
    if new != txt: page.write_text(new, encoding="utf-8")
    return [f"{page.name}: {o}" for o in REMOTE.findall(new)]

KEY = re.compile(r"(<td[^>]*>\s*<code>)(\w+)(?=</code>\s*</td>)")
FRAME = re.compile(r'<table border="1" class="dataframe">.*?</table>', re.DOTALL)
LONG_WORD = re.compile(r"(?<=[\s>])[^\s<>]{20,}(?=[\s<])")
INSIDE = re.compile(r"(\\n|&gt;|[./])(?=[^\s.,'\"])")
OPTIONS = re.compile(r'<table class="([^"]*)">(\s*<thead>(?:(?!</thead>).)*same as in axolotl\?.*?</table>)', re.DOTALL)
NAME = re.compile(r"<code>\w+</code>")

def break_long(m):
    "A data frame whose long words, such as a conversation without spaces, may go on in the next line"
    return LONG_WORD.sub(lambda word: INSIDE.sub(r"\1<wbr>", word[0]), m[0])

def option_table(m):
    "A table of options, known by its class; every name in it can be broken"
    return f'<table class="{m[1]} options">' + NAME.sub(lambda name: re.sub("_(?!<wbr>)", "_<wbr>", name[0]), m[2])

def breakable(out):
    "Names in the cells of a table may go on in the next line after an underscore; all tables of options have the same columns"
    for page in out.rglob("*.html"):
        txt = page.read_text(encoding="utf-8")
        new = KEY.sub(lambda m: m[1] + m[2].replace("_", "_<wbr>"), txt)
        new = OPTIONS.sub(option_table, FRAME.sub(break_long, new))
        if new != txt: page.write_text(new, encoding="utf-8")

def order_headings(out):
    "Names that are documented before a page's first section are sections of their own"
    for page in out.rglob("*.html"):
        txt = page.read_text(encoding="utf-8")
        start = txt.find("</h1>", max(txt.find("<main"), 0))
        end = txt.find("<h2", start)
        early = txt[start:end if end > 0 else len(txt)]
        new = re.sub(r"(</?h)3(?=[\s>])", r"\g<1>2", early)
        if start > 0 and new != early: page.write_text(txt.replace(early, new, 1), encoding="utf-8")

def symbols(cfg):
    "Every anchor that nbdev's links may name, without the room: `encoder.html#encoder.encode`"
    index = {}
    exec((cfg.lib_path / "_modidx.py").read_text(encoding="utf-8"), index)
    return {Path(anchor).name for names in index["d"]["syms"].values() for anchor, _ in names.values()}

GENERATED = {"report.html"}     # pages that are written after the notebooks are rendered

def settle(link, page, ids, anchors):
    "One link to a documented name: as it is, or to the name's class, or to the page"
    path, name = link[1], link[2]
    known = ids.get((page.parent / path).resolve() if path else page, set())
    if name in known or f"{Path(path or page).name}#{name}" not in anchors: return link[0]
    parent = name.split(".")[0]
    return f'href="{path}#{parent}"' if parent in known else f'href="{path or page.name}"'

def settle_anchors(out, anchors):
    "Names that have no heading of their own link to the nearest place that has one"
    ids = {o: set(re.findall(r'\bid="([^"]+)"', o.read_text(encoding="utf-8"))) for o in out.resolve().rglob("*.html")}
    for page in ids:
        txt = page.read_text(encoding="utf-8")
        new = re.sub(r'href="([\w./-]*)#([\w.]+)"', partial(settle, page=page, ids=ids, anchors=anchors), txt)
        page.write_text(new, encoding="utf-8")

def render(folder, engine):
    "The rendered site's folder"
    out = folder / yaml.safe_load((folder / "_quarto.yml").read_text())["project"]["output-dir"]
    cmd = ["quarto", "render", "--no-cache"] if engine == "quarto" else [sys.executable, "-m", "smalldocs.cli", "render"]
    res = subprocess.run(cmd, cwd=folder, text=True, capture_output=True)
    notes = [o for o in (res.stdout + res.stderr).splitlines() if o.strip() and not UNREAD.search(o)]
    broken = dict.fromkeys(m[2] for o in notes if (m := BROKEN.match(o)) and Path(m[2]).name not in GENERATED)
    pages = {href: [m[1] for o in notes if (m := BROKEN.match(o)) and m[2] == href] for href in broken}
    problems = [f"{href}: no such page, yet linked from {o[0]}{f' and {len(o) - 1} more' if len(o) > 1 else ''}" for href, o in pages.items()]
    print("\n".join(o for o in notes if not BROKEN.match(o)))
    if res.returncode: sys.exit(f"{engine} failed with exit code {res.returncode}")
    for page in out.rglob("*.html"): problems += offline(page)
    for sheet in out.rglob("*.css"): sheet.write_text(REMOTE_STYLE.sub("", sheet.read_text(encoding="utf-8")), encoding="utf-8")
    if problems: sys.exit("the site has broken links, or pages that load from the network:\n" + "\n".join(problems))
    return out

def add_playground(cfg, out):
    "The playground's scripts and vocabularies, beside the pages"
    folder = out / "playground"
    playground.write(folder)
    for src in (cfg.nbs_path / "playground").glob("*.js"): shutil.copy2(src, folder / src.name)
    page = out / "guides/playground.html"
    scripts = "".join(f'<script defer src="../playground/{o}.js"></script>\n' for o in ("encoder", "playground"))
    page.write_text(page.read_text(encoding="utf-8").replace("</head>", scripts + "</head>", 1), encoding="utf-8")

HERO = re.compile(r'(?:<p>\s*)?(?:<figure[^>]*>\s*)?(?:<p>\s*)?<img\b[^>]*src="(?:\./)?images/row\.svg"[^>]*/?>'
                  r'(?:\s*</p>)?(?:\s*<figcaption>.*?</figcaption>)?(?:\s*</figure>)?(?:\s*</p>)?', re.DOTALL)

def add_home_row(out):
    "The picture of the home page becomes the row itself, under each boundary"
    page = out / "index.html"
    txt, n = HERO.subn(lambda m: home_row.html(ROW), page.read_text(encoding="utf-8"), count=1)
    if n != 1: sys.exit("index.html: the picture images/row.svg was not found.")
    page.write_text(txt, encoding="utf-8")

HEAD = """<link rel="icon" href="{up}images/favicon.svg" type="image/svg+xml">
<meta property="og:title" content="{title}">
<meta property="og:description" content="{says}">
<meta property="og:image" content="{base}/images/card.png">
<meta name="twitter:card" content="summary_large_image">
"""

def add_head(cfg, out):
    "What a browser's tab and a shared link show"
    shutil.copytree(cfg.nbs_path / "images", out / "images", dirs_exist_ok=True)
    for page in out.rglob("*.html"):
        txt = page.read_text(encoding="utf-8")
        title = re.search(r"<title>(.*?)</title>", txt, re.DOTALL)
        up = "../" * (len(page.relative_to(out).parts) - 1)
        if 'rel="icon"' in txt: continue        # a page that brings its own head, and lets nothing else in
        head = HEAD.format(up=up, title=title[1].strip() if title else "segtune", says=html.escape(cfg.description),
                           base=f"{cfg.doc_host}{cfg.doc_baseurl}")
        page.write_text(txt.replace("</head>", head + "</head>", 1), encoding="utf-8")

def site(cfg, out, engine):
    if engine == "auto": engine = "quarto" if shutil.which("quarto") else "smalldocs"
    if engine == "smalldocs" and not find_spec("smalldocs"): sys.exit("The site needs Quarto on PATH, or smalldocs, which needs Python 3.11 or newer.")
    with tempfile.TemporaryDirectory() as tmp:
        stage(cfg, Path(tmp))
        built = render(Path(tmp), engine)
        settle_anchors(built, symbols(cfg))
        breakable(built)
        order_headings(built)
        add_playground(cfg, built)
        add_home_row(built)
        live_report.write(cfg.nbs_path, built / "report.html")
        add_head(cfg, built)
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(built, out)
    print(f"{engine}: wrote {len(list(out.rglob('*.html')))} pages to {out}")


def front_matter2heading(txt):
    "nbdev turns the title and its quoted line into front matter; turn them back"
    if not txt.startswith("---\n"): return txt
    head, body = txt[4:].split("\n---", 1)
    fm = yaml.safe_load(head)
    quote = f"> {fm['description']}\n\n" if fm.get("description") else ""
    return f"# {fm['title']}\n\n{quote}{body.lstrip()}"

ROW = [("<s>Q: Capital of France?\nA:", False), (" Paris</s>", True)]      # what the home page shows
PICTURE = Path("images/row.svg")
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"

def svg_token(token, x, wide):
    "One token with its label and id below; ink and ground are its own, so that it reads on light and dark pages"
    ground, ink, line = ("#bfe8d4", "#0b3d27", "#17925b") if token.trained else ("#e3e6ea", "#39424b", "#8a8f98")
    text, middle = html.escape(token.text), f'x="{x + wide / 2:g}" text-anchor="middle"'
    weight = 600 if token.trained else 400
    yield f'<rect x="{x:g}" y="8" width="{wide:g}" height="30" rx="4" fill="{ground}"/>'
    yield f'<rect x="{x:g}" y="36" width="{wide:g}" height="3" fill="{line}"/>'
    yield f'<text {middle} y="28" font-size="15" fill="{ink}" font-weight="{weight}">{text}</text>'
    for y, n in ((58, token.label), (76, token.id)):
        yield f'<text {middle} y="{y}" font-size="11.5" fill="{line}">{n}</text>'

def row_picture(tokens, says):
    "A row of viewed tokens as SVG: text, label and id of each, trained ones green"
    heads = ((28, "token"), (58, "label"), (76, "id"))
    x, parts = 62, [f'<text x="4" y="{y}" font-size="11.5" fill="#8a8f98">{o}</text>' for y, o in heads]
    for token in tokens:
        wide = max(14 + 9.1 * len(token.text), 10 + 7 * max(len(str(token.label)), len(str(token.id))))
        parts += svg_token(token, x, wide)
        x += wide + 4
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {x:g} 86" width="{x:g}" role="img" font-family="{MONO}">'
    return "\n".join([head, f"<title>{html.escape(says)}</title>", *parts, "</svg>", ""])

def home_picture():
    "The picture of the home page, made from the view"
    import segtune as st
    view = st.show(ROW, "bundled:mistral-v0.1")
    says = "One row, token by token: the prompt is masked with label -100, the answer and its EOS token are trained"
    return row_picture(view.tokens, says)

def picture(cfg, check):
    dst, svg = cfg.nbs_path / PICTURE, home_picture()
    if check and dst.read_text(encoding="utf-8") == svg: return print(f"{PICTURE} equals the view")
    if check: sys.exit(f"{PICTURE} is not what the view gives. Run: python tools/docs.py picture")
    dst.parent.mkdir(exist_ok=True)
    dst.write_text(svg, encoding="utf-8")

def absolute_pictures(cfg, txt):
    "Pictures of README.md are fetched from the repository, so that every page that shows it finds them"
    raw = cfg.git_url.replace("https://github.com", "https://raw.githubusercontent.com")
    return re.sub(r"!\[([^\]]*)\]\((?!https?:)([\w/.-]+)\)", rf"![\1]({raw}/{cfg.branch}/{cfg.nbs_path.name}/\2)", txt)

def absolute_links(cfg, txt):
    "Links of README.md lead to the published site, so that they hold wherever it is shown"
    def link(m):
        page = page_name(f"{m[1]}.ipynb").removesuffix(".ipynb")
        return f"]({cfg.doc_host}{cfg.doc_baseurl}/{page}.html{m[2] or ''})"
    return re.sub(r"\]\((?!https?:|/|#)([\w/]+)\.(?:ipynb|html)(#[\w.-]+)?\)", link, txt)

def readme_text(cfg):
    import nbformat
    from nbconvert import MarkdownExporter
    from traitlets.config import Config
    conf = Config()
    conf.TemplateExporter.exclude_input_prompt = True
    conf.NbConvertBase.display_data_priority = ["text/markdown", "image/png", "text/plain"]
    with tempfile.TemporaryDirectory() as tmp:
        nb = Path(tmp) / cfg.readme_nb
        process(cfg.nbs_path / cfg.readme_nb, nb)
        page = nbformat.read(nb, 4)
        page.metadata["language_info"] = {"name": "python"}
        txt, _ = MarkdownExporter(config=conf).from_notebook_node(page)
    txt = txt.replace("```python\n\n```\n", "")
    txt = absolute_pictures(cfg, absolute_links(cfg, front_matter2heading(txt.strip())))
    txt = re.sub(r"\n{3,}", "\n\n", "\n".join(o.rstrip() for o in txt.splitlines()))
    return txt.strip() + "\n"

def readme(cfg, check):
    dst, txt = cfg.config_path / "README.md", readme_text(cfg)
    if not check: return dst.write_text(txt, encoding="utf-8")
    old = dst.read_text(encoding="utf-8") if dst.exists() else ""
    if old == txt: return print("README.md equals nbs/index.ipynb")
    print("".join(difflib.unified_diff(old.splitlines(True), txt.splitlines(True), "README.md", "nbs/index.ipynb")))
    sys.exit("README.md is not what nbs/index.ipynb gives. Run: make readme")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["site", "readme", "picture"])
    p.add_argument("--check", action="store_true", help="readme, picture: compare, write nothing")
    p.add_argument("--out", type=Path, help="site: folder to write (default: doc_path in settings.ini)")
    p.add_argument("--engine", default="auto", choices=["auto", "quarto", "smalldocs"])
    a = p.parse_args()
    out = a.out and a.out.resolve()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    cfg = get_config()
    if a.what == "site": site(cfg, out or cfg.doc_path, a.engine)
    else: {"readme": readme, "picture": picture}[a.what](cfg, a.check)


if __name__ == "__main__": main()
