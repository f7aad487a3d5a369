"Notebooks as readers meet them: pictures are stored and say what they show, outputs name no machine, code is short."
import ast
import json
import re
from pathlib import Path

import pytest
import yaml

nbs = Path(__file__).parent.parent/'nbs'
notebooks = sorted(o.relative_to(nbs).as_posix() for o in nbs.rglob('*.ipynb') if '.ipynb_checkpoints' not in o.parts)

def cells(name): return [c for c in json.loads((nbs/name).read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code']


def source(cell): return ''.join(cell['source'])


def has(cell, *directives): return bool(re.search(rf'^#\|\s*(?:{"|".join(directives)})\b', source(cell), re.M))


def texts(cell):
    "What a cell's outputs say, by kind"
    for o in cell['outputs']:
        if o['output_type'] == 'stream': yield o['name'], ''.join(o['text'])
        if o['output_type'] == 'error': yield 'stderr', '\n'.join(o['traceback'])
        for kind, data in o.get('data', {}).items(): yield kind, ''.join(data) if isinstance(data, (str, list)) else json.dumps(data)


def calls(tree):
    "The calls of a cell that are in no function or class of its own"
    todo = list(ast.iter_child_nodes(tree))
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)): continue
        if isinstance(node, ast.Call): yield node
        todo += ast.iter_child_nodes(node)


def draws(code):
    "Does this code make a picture?"
    if code.lstrip().startswith('%%'): return False
    code = re.sub(r'^(\s*)[!%].*', r'\1pass', code, flags=re.M)
    for call in calls(ast.parse(code)):
        f = call.func
        if isinstance(f, ast.Name) and re.match(r'(?:plot_|draw_)\w+$|picture$', f.id): return True
        if isinstance(f, ast.Attribute):
            if re.match(r'(?:plot_|draw_)\w+$', f.attr): return True
            owner = f.value.id if isinstance(f.value, ast.Name) else ''
            if owner in ('ax', 'axes', 'plt') and not re.match(r'get|close$|style$', f.attr): return True
    return False


@pytest.mark.parametrize('code,wanted', [
    ('plot_lengths(df)', True), ('def f(): plot_lengths(df)', False), ('ax.bar(1, 2)', True), ('ax.get_xlabel()', False), ('plt.show()', True),
    ('if x:\n    picture(a)', True), ('from a import plot_x', False), ('%%bash\nplot_x()', False), ('plt.close()', False), ('x = st.plot_rows(a)', True)])
def test_what_draws(code, wanted): assert draws(code) == wanted


def without_picture(cell):
    kinds = {k for k, _ in texts(cell)}
    if not kinds & {'image/svg+xml', 'image/png', 'image/jpeg'}: return 'no stored picture'
    if not re.search(r'^#\|\s*fig-alt:\s*\S', source(cell), re.M): return 'no fig-alt'


@pytest.mark.parametrize('name', notebooks)
def test_pictures_are_stored_and_described(name):
    drawing = [c for c in cells(name) if not has(c, 'hide', r'export\w*', 'include: false', 'eval: false', 'slow') and draws(source(c))]
    assert [(c['id'], o) for c in drawing if (o := without_picture(c))] == []


@pytest.mark.parametrize('name', notebooks)
def test_what_is_said_of_a_picture_is_yaml(name):
    "Quarto and smalldocs read it so: a colon within it, and the cell loses its fold and its alt text."
    lines = [o for c in cells(name) for o in re.findall(r'^#\|\s*(fig-alt:.*)$', source(c), re.M)]
    for line in lines: assert list(yaml.safe_load(line)) == ['fig-alt'], line


@pytest.mark.parametrize('name', notebooks)
def test_outputs_tell_nothing_of_the_machine(name):
    "No place in its file system, nothing that was written to standard error, no warning of Python's."
    wrong = []
    for c in cells(name):
        for kind, text in texts(c):
            if kind == 'stderr': wrong.append((c['id'], 'stderr', text[:80]))
            found = re.search(r'(?:(?<![\w./~-])|file://)/(?:tmp|work|root|home)(?:/[\w.-]+)|\b[A-Z]\w*Warning:', '' if kind.startswith('image/png') else text)
            if found: wrong.append((c['id'], kind, text[max(0, found.start()-20):found.end()+40]))
    assert wrong == []


@pytest.mark.parametrize('name', notebooks)
def test_code_is_short(name):
    "Lines of at most 120 characters; exported cells of at most 30 lines."
    wrong = []
    for c in cells(name):
        lines = [o for o in source(c).splitlines() if not o.startswith('#|')]
        wrong += [(c['id'], o[:60]) for o in lines if len(o) > 120]
        if has(c, r'export\w*') and len(lines) > 30: wrong.append((c['id'], len(lines)))
    assert wrong == []


@pytest.mark.parametrize('name', notebooks)
def test_a_notebook_exports_no_more_than_can_be_read_in_one_go(name):
    "About 300 lines; what grows beyond it is two notebooks."
    lines = [o for c in cells(name) if has(c, r'export\w*') for o in source(c).splitlines() if not o.startswith('#|')]
    assert len(lines) <= 330


def test_the_package_keeps_to_120_columns():
    "All but what nbdev writes at a module's head, and its index"
    package = nbs.parent/'segtune'
    long = []
    for path in package.rglob('*.py'):
        if path.name == '_modidx.py': continue
        lines = path.read_text(encoding='utf-8').splitlines()
        end = next((i for i, o in enumerate(lines) if o.startswith('# %% ') and 'auto' not in o), 0)
        long += [(path.name, i, len(o)) for i, o in enumerate(lines, 1) if len(o) > 120 and (i > end or i == 1)]
    assert long == []
