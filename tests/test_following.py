"A function of the user's: whatever it is made of is edited, and its rows are made anew, in the same process too."
import os
import subprocess
import sys

import pytest
from test_manifest import entry, make, text

from segtune.data.lineage import read_rows
from segtune.formats.following import function_identity
from segtune.project import Project

CLEAN = "def clean(row): return [(row['q'], False), (row['a']+end(), True)]\n"
END = "def end(): return '.'\n"
# what: files, the format's type, the file that is edited ('.' becomes '!'), and what is said of it
EDITS = {
    'a package': ({'fm/__init__.py': '', 'fm/core.py': 'from .words import end\n'+CLEAN, 'fm/words.py': END}, 'fm.core.clean', 'fm/words.py', 'fm/words.py: end() changed'),
    'a relative import from further up': ({'fm/__init__.py': '', 'fm/a/__init__.py': '', 'fm/a/core.py': 'from ..b.words import end\n'+CLEAN, 'fm/b/__init__.py': '', 'fm/b/words.py': END}, 'fm.a.core.clean', 'fm/b/words.py', 'fm/b/words.py: end() changed'),
    'a constant of the package': ({'fm/__init__.py': "END = '.'\n", 'fm/core.py': 'import fm\ndef end(): return fm.END\n'+CLEAN}, 'fm.core.clean', 'fm/__init__.py', 'fm/__init__.py: END changed'),
    'the package of a module that is imported': ({'fm/__init__.py': "END = '.'\n", 'fm/words.py': '', 'mine.py': 'import fm.words\ndef end(): return fm.END\n'+CLEAN}, 'mine.clean', 'fm/__init__.py', 'fm/__init__.py: END changed'),
    'a package that changes its module': ({'fm/__init__.py': "from . import words\nwords.END = '.'\n", 'fm/words.py': "END = ''\n", 'mine.py': 'from fm.words import END\ndef end(): return END\n'+CLEAN}, 'mine.clean', 'fm/__init__.py', 'fm/__init__.py: words changed'),
    'two modules of one name': ({'fm/__init__.py': '', 'fm/a/__init__.py': '', 'fm/b/__init__.py': '', 'fm/a/words.py': END, 'fm/b/words.py': END.replace('.', ''), 'mine.py': 'from fm.a import words as a\nfrom fm.b import words as b\ndef end(): return a.end()+b.end()\n'+CLEAN}, 'mine.clean', 'fm/a/words.py', 'fm/a/words.py: end() changed'),
    'import_module': ({'mine.py': "import importlib\nend = importlib.import_module('later').end\n"+CLEAN, 'later.py': END}, 'mine.clean', 'later.py', 'later.py: end() changed'),
    'import_module from the package': ({'fm/__init__.py': '', 'fm/core.py': "import importlib\nend = importlib.import_module('.words', __package__).end\n"+CLEAN, 'fm/words.py': END}, 'fm.core.clean', 'fm/words.py', 'fm/words.py: end() changed'),
    '__import__': ({'mine.py': "end = __import__('later').end\n"+CLEAN, 'later.py': END}, 'mine.clean', 'later.py', 'later.py: end() changed'),
    'a program that is run': ({'mine.py': "import runpy\nend = runpy.run_path('later.py')['end']\n"+CLEAN, 'later.py': END}, 'mine.clean', 'later.py', 'later.py changed'),
    'import *': ({'mine.py': 'from later import *\n'+CLEAN, 'later.py': END}, 'mine.clean', 'later.py', 'later.py: end() changed'),
    'an import in a function': ({'mine.py': 'def end():\n    from later import end\n    return end()\n'+CLEAN, 'later.py': END}, 'mine.clean', 'later.py', 'later.py: end() changed'),
    'a base class': ({'mine.py': "from bases import Base\nclass Clean(Base):\n    def __call__(self, row): return [(row['q'], False), (row['a']+self.end(), True)]\nclean = Clean()\n", 'bases.py': "class Base:\n    def end(self): return '.'\n"}, 'mine.clean', 'bases.py', 'bases.py: Base changed'),
    "a dataclass's default": ({'mine.py': 'from options import Options\ndef end(): return Options().end\n'+CLEAN, 'options.py': "from dataclasses import dataclass, field\n@dataclass\nclass Options: end: str = field(default='.')\n"}, 'mine.clean', 'options.py', 'options.py: Options changed'),
    'a decorator': ({'mine.py': "from deco import ends\n@ends\ndef clean(row): return [(row['q'], False), (row['a'], True)]\n", 'deco.py': "def ends(f): return lambda row: [f(row)[0], (f(row)[1][0]+'.', True)]\n"}, 'mine.clean', 'deco.py', 'deco.py: ends() changed'),
    'a partial': ({'mine.py': "from functools import partial\nfrom later import f\nclean = partial(f, end='.')\n", 'later.py': "def f(row, end): return [(row['q'], False), (row['a']+end, True)]\n"}, 'mine.clean', 'mine.py', 'mine.py: clean changed'),
    'a constant with a type': ({'mine.py': "END: str = '.'\ndef end(): return END\n"+CLEAN}, 'mine.clean', 'mine.py', 'mine.py: END changed'),
    'a constant that grows': ({'mine.py': "END = ''\nEND += '.'\ndef end(): return END\n"+CLEAN}, 'mine.clean', 'mine.py', 'mine.py: END changed'),
    'two constants at once': ({'mine.py': "N, END = 1, '.'\ndef end(): return END\n"+CLEAN}, 'mine.clean', 'mine.py', 'mine.py: END changed'),
    'a file of the package': ({'fm/__init__.py': '', 'fm/core.py': "from pathlib import Path\nEND = (Path(__file__).parent/'end.txt').read_text()\ndef end(): return END\n"+CLEAN, 'fm/end.txt': '.'}, 'fm.core.clean', 'fm/end.txt', 'end.txt changed'),
    'the second of two files': ({'mine.py': "from pathlib import Path\nhere = Path(__file__).parent\nA = (here/'a.txt').read_text()\nEND = (here/'words'/'end.txt').read_text()\ndef end(): return END\n"+CLEAN, 'a.txt': '', 'words/end.txt': '.'}, 'mine.clean', 'words/end.txt', 'end.txt changed'),
    'a file that is read for each row': ({'mine.py': "def end(): return open('end.txt').read()\n"+CLEAN, 'end.txt': '.'}, 'mine.clean', 'end.txt', 'end.txt changed'),
    'a module named like one of Python': ({'statistics.py': '', 'mine.py': 'from colorsys_words import end\n'+CLEAN, 'colorsys_words.py': END}, 'mine.clean', 'colorsys_words.py', 'colorsys_words.py: end() changed'),
}


def project(d, files, type):
    d = make(d)
    for name, code in files.items():
        (d/name).parent.mkdir(parents=True, exist_ok=True)
        (d/name).write_text(code)
    entry(1, type=type)(d)
    return d


def prepared(d):
    os.chdir(d)
    p = Project.open('config.yml')
    return p.prepared.from_cache, p.prepared.why, p.tokenizer.decode(read_rows(p.prepared.path, [11])[0][0])


@pytest.fixture(autouse=True)
def come_back(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'dont_write_bytecode', False) # compiled modules are kept, as they are by default


@pytest.mark.parametrize('what', list(EDITS))
def test_an_edit_is_named_and_heeded_in_the_same_process(tmp_path, what):
    files, type, edited, said = EDITS[what]
    d = project(tmp_path/'project', files, type)
    assert prepared(d) == (False, None, '5?5.')
    text(edited, '.', '!')(d) if edited.endswith('.txt') else text(edited, "'.'", "'!'")(d)
    found, why, row = prepared(d)
    assert not found and said in why and row == '5?5!', (why, row)
    assert prepared(d)[0]


def test_a_module_that_became_a_package_is_loaded_from_there(tmp_path):
    d = project(tmp_path/'project', {'mine.py': 'from later import end\n'+CLEAN, 'later.py': END}, 'mine.clean')
    prepared(d)
    (d/'later.py').unlink(), (d/'later').mkdir()
    (d/'later/__init__.py').write_text(END.replace('.', '!'))
    assert prepared(d)[::2] == (False, '5?5!')


def test_two_projects_have_packages_of_one_name(tmp_path):
    for name, end in dict(a='.', b='!').items():
        files = {'fm/__init__.py': '', 'fm/core.py': 'from .words import end\n'+CLEAN, 'fm/words.py': END.replace('.', end)}
        assert prepared(project(tmp_path/name, files, 'fm.core.clean'))[2] == f'5?5{end}'


def test_a_function_that_is_handed_over_keeps_its_own_rows_after_its_file_was_edited(tmp_path, monkeypatch):
    "what runs is the code that was loaded, so the rows belong to that code"
    (tmp_path/'handed.py').write_text(END+CLEAN)
    monkeypatch.syspath_prepend(tmp_path)
    from handed import clean
    before = function_identity(clean)
    (tmp_path/'handed.py').write_text(END.replace('.', '!')+CLEAN)
    assert function_identity(clean) == before


def identity(code):
    held = dict(__name__='a_notebook')
    exec(code, held)
    return function_identity(held['f'])


ROW = "def f(row): return [(use(row), True)]\n"
# a function of a notebook, and what is edited there
VALUES = {
    'a class': ('class Use:\n    def __call__(self, row): return row["q"]\nuse = Use()\n'+ROW, 'row["q"]', 'row["a"]'),
    'a class that is called': ('class Use(str):\n    def __new__(cls, row): return row["q"]\ndef use(row): return Use(row)\n'+ROW, 'row["q"]', 'row["a"]'),
    'a base class': ('class Base:\n    def __call__(self, row): return row["q"]\nclass Use(Base): pass\nuse = Use()\n'+ROW, 'row["q"]', 'row["a"]'),
    'a static method': ('class C:\n    @staticmethod\n    def use(row): return row["q"]\ndef use(row): return C.use(row)\n'+ROW, 'row["q"]', 'row["a"]'),
    'a property': ('class C:\n    @property\n    def end(self): return "."\nc = C()\ndef use(row): return row["q"]+c.end\n'+ROW, '"."', '"!"'),
    "a class's constant": ('class C: end = "."\ndef use(row): return row["q"]+C.end\n'+ROW, '"."', '"!"'),
    "a dataclass's default": ('from dataclasses import dataclass\n@dataclass\nclass C: end: str = "."\ndef use(row): return row["q"]+C().end\n'+ROW, '"."', '"!"'),
    'slots': ('class C:\n    __slots__ = ("end",)\nc = C()\nc.end = "."\ndef use(row): return row["q"]+c.end\n'+ROW, '= "."', '= "!"'),
    'an itemgetter': ('from operator import itemgetter\nuse = itemgetter("q")\n'+ROW, '("q")', '("a")'),
    'a method of str': ('trim = str.strip\ndef use(row): return trim(row["q"])\n'+ROW, 'str.strip', 'str.lower'),
    "a string's method": ('glue = ".".join\ndef use(row): return glue(row)\n'+ROW, '"."', '"!"'),
    'a function of Python': ('measure = max\ndef use(row): return measure(row)\n'+ROW, 'max', 'min'),
    'the end of a long pattern': ('import re\np = re.compile("'+'a'*300+'b")\ndef use(row): return p.sub("", row["q"])\n'+ROW, 'b"', 'c"'),
    "a pattern's flags": ('import re\np = re.compile("a", re.I)\ndef use(row): return p.sub("", row["q"])\n'+ROW, 're.I)', 're.M)'),
    'the order of a table': ('names = dict(q=1, a=2)\ndef use(row): return "".join(row[k] for k in names)\n'+ROW, 'q=1, a=2', 'a=2, q=1'),
    'a date': ('import datetime\nday = datetime.date(2024, 1, 1)\ndef use(row): return f"{day}"\n'+ROW, '2024', '2025'),
    'which of two equal lists': ('from functools import partial\nA, B = ["x"], ["x"]\ndef g(row, a, b, c): a.append(1); return [(str([a, b, c]), True)]\nf = partial(g, a=A, b=B, c=A)\n', 'c=A', 'c=B'),
    'the shape of an array': ('import numpy as np\na = np.arange(4).reshape(2, 2)\ndef use(row): return str(a)\n'+ROW, '2, 2', '1, 4'),
    'the type of an array': ('import numpy as np\na = np.zeros(4, "int32")\ndef use(row): return str(a)\n'+ROW, 'int32', 'float32'),
    'what a try covers': ('def use(row):\n    try:\n        a = row["q"]\n    except KeyError: return ""\n    b = row["a"]\n    return a+b\n'+ROW, '    except KeyError: return ""\n    b = row["a"]\n', '        b = row["a"]\n    except KeyError: return ""\n'),
    'an enumeration': ('from enum import Enum\nclass E(Enum): END = "."\ndef use(row): return row["q"]+E.END.value\n'+ROW, '"."', '"!"'),
    'a cached function': ('from functools import lru_cache\n@lru_cache\ndef end(): return "."\ndef use(row): return row["q"]+end()\n'+ROW, '"."', '"!"'),
}


@pytest.mark.parametrize('what', list(VALUES))
def test_what_a_function_of_a_notebook_holds_is_part_of_it(what):
    code, old, new = VALUES[what]
    assert old in code and identity(code) == identity(code)
    assert identity(code) != identity(code.replace(old, new))


@pytest.mark.parametrize('held, edit', [
    ("END = '.'\n", "END = '!'\n"), ("import sys\nEND = sys.argv[1]\n", "END = '!'\n"), ("END = dict(a='.')\n", "END['a'] = '!'\n"),
    ("class C: pass\nEND = C()\nEND.end = '.'\n", "END.end = '!'\n"), ("import pandas as pd\nEND = pd.DataFrame(dict(a=['.']))\n", "END.loc[0, 'a'] = '!'\n"),
    ("import numpy as np\nEND = np.array(['.', None], dtype=object)\n", "END[0] = '!'\n"), ("import other\nEND = 1\n", "import other; other.words = '!'\n"),
    ("END = '.'\ndef end(): return '.'\n", "def end(): return '!'\n"), ("import datetime\nEND = datetime.date(2024, 1, 1)\n", "END = datetime.date(2025, 1, 1)\n"),
])
def test_what_a_module_holds_when_it_runs_is_part_of_its_function(tmp_path, monkeypatch, held, edit):
    "put there by the command line, or by a notebook"
    name = f'holding_{abs(hash((held, edit)))}'
    (tmp_path/f'{name}.py').write_text(held+"def f(row): return [(f'{END}{other.words if \"other\" in globals() else 0}{end() if \"end\" in globals() else 0}', True)]\n")
    (tmp_path/'other.py').write_text("words = '.'\n")
    monkeypatch.syspath_prepend(tmp_path), monkeypatch.setattr(sys, 'argv', ['program', '.'])
    module = __import__(name)
    before = function_identity(module.f)
    assert function_identity(module.f) == before and not before[1]
    exec(compile(edit, module.__file__, 'exec'), vars(module))
    assert function_identity(module.f) != before
    sys.modules.pop('other', None)


def test_what_a_library_keeps_decides_nothing(tmp_path, monkeypatch):
    (tmp_path/'logging_format.py').write_text("import logging, threading\nlog, lock = logging.getLogger('x'), threading.Lock()\ndef f(row):\n    with lock: log.debug('x')\n    return [(row['q'], True)]\n")
    monkeypatch.syspath_prepend(tmp_path)
    import logging

    from logging_format import f
    before = function_identity(f)
    logging.getLogger('x.y').addHandler(logging.NullHandler())
    assert function_identity(f) == before and not before[1]


@pytest.mark.parametrize('here', ['Path(__file__).parent', 'os.path.dirname(__file__)', 'Path(__file__).parent.parent', 'dict(a=[__file__])', '{os.path.abspath(__file__)}'])
def test_a_project_that_was_moved_keeps_its_rows(tmp_path, here):
    "though its modules know where they are"
    import shutil
    code = f"import os\nfrom pathlib import Path\nHERE = {here}\ndef end(): return '.'*len([HERE, __file__])\n"+CLEAN
    prepared(project(tmp_path/'here', {'mine.py': code}, 'mine.clean'))
    shutil.copytree(tmp_path/'here', tmp_path/'deeper/there')
    assert prepared(tmp_path/'deeper/there')[:2] == (True, None)


def test_what_a_closure_holds_of_a_library_is_followed(tmp_path, monkeypatch):
    (tmp_path/'closing.py').write_text("from fractions import Fraction\ndef make(held):\n    def f(row): return [(str(held), True)]\n    return f\n")
    monkeypatch.syspath_prepend(tmp_path)
    from collections import Counter
    from fractions import Fraction

    from closing import make
    for a, b in ((Fraction(1, 2), Fraction(1, 3)), (Counter('a'), Counter('b'))):
        assert function_identity(make(a)) == function_identity(make(a)) != function_identity(make(b))


def test_two_lambdas_of_one_line_are_two_functions(tmp_path, monkeypatch):
    (tmp_path/'two_lambdas.py').write_text("one, other = lambda row: [(row['q'], True)], lambda row: [(row['a'], True)]\n")
    monkeypatch.syspath_prepend(tmp_path)
    from two_lambdas import one, other
    assert function_identity(one) != function_identity(other)


def test_a_global_that_changed_is_named(tmp_path):
    d = project(tmp_path/'project', {'mine.py': "END = '.'\ndef end(): return END\n"+CLEAN}, 'mine.clean')
    prepared(d)
    sys.modules['mine'].END = '!'
    assert prepared(d) == (False, ['END changed'], '5?5!')


@pytest.mark.parametrize('code, said', [
    ("import importlib\nend = importlib.import_module('la'+'ter').end\n", 'mine.py:2 uses import_module'),
    ("from datetime import date\ndef end(): return str(date.today())\n", 'mine.py:2 uses today'),
    ("names = open('names.txt').read()\ndef end(): return open('elsewhere/words.txt').read()\n", 'mine.py:2 uses open'),
    ("names = open('names.txt').read()\ndef end(): return open(f'{names}.txt').read()\n", 'mine.py:2 uses open'),
    ("import os\nnames = open('names.txt').read()\ndef end(): return os.environ['END']\n", 'mine.py:3 uses environ'),
    ("def end(): return eval('1')\n", 'mine.py:1 uses eval'),
])
def test_what_cannot_be_followed_is_said(tmp_path, code, said):
    d = project(tmp_path/'project', {'mine.py': code+CLEAN, 'later.py': END}, 'mine.clean')
    os.chdir(d)
    notes = ' '.join(Project.open('config.yml').sources[1].format.notes)
    assert said in notes and 'Give `version:`' in notes


@pytest.mark.parametrize('code', [
    "names = open('names.txt').read()\nagain = open('names.txt').read()\ndef end(): return names\n",
    "from pathlib import Path\nhere = Path(__file__).parent/'names.txt'\nnames = here.read_text()\ndef end(): return names\n",
    "today = 'Monday'\ndef end(): return today\n",
    "def note(o): open('log.txt', 'a').write(o)\ndef end(): return ''\n",
])
def test_what_is_followed_is_not_complained_of(tmp_path, code):
    d = project(tmp_path/'project', {'mine.py': code+CLEAN}, 'mine.clean')
    os.chdir(d)
    assert not Project.open('config.yml').sources[1].format.notes


@pytest.mark.parametrize('name', ['version', 'key'])
def test_a_state_that_cannot_be_followed_is_named_by_hand(tmp_path, name):
    d = project(tmp_path/'project', {'mine.py': "import os\ndef end(): return os.environ.get('END', '.')\n"+CLEAN}, 'mine.clean')
    prepared(d)
    entry(1, **{name: 2})(d)
    assert prepared(d)[:2] == (False, [f'own.jsonl: {name} none -> 2'])
    assert not Project.open('config.yml').sources[1].format.notes
    entry(1, **{name: 3})(d)
    assert prepared(d)[:2] == (False, [f'own.jsonl: {name} 2 -> 3'])


def test_the_identity_is_the_same_in_every_process():
    "of classes, tables, sets and functions of a notebook"
    code = VALUES['a class'][0]+'words = {"a", "b", "c"}\nfrom enum import Enum\nclass E(Enum): A = 1\ndef g(row): return [(str((words, E.A, use)), True)]\nf = g\n'
    program = f'from segtune.formats.following import function_identity; held = dict(__name__="a_notebook"); exec({code!r}, held); print(function_identity(held["f"])[0]["code"])'
    ran = {subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True, env={**os.environ, 'PYTHONHASHSEED': s}).stdout for s in '12'}
    assert ran == {identity(code)[0]['code']+'\n'}
