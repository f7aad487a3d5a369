"""Every error message of the package, read from its source: no list is kept by hand.

A message is what stands as the first argument where a `SegtuneError` or a subclass of it is made. Variables are followed
to what they hold, and the parameters of a function to its calls; what only a run can tell becomes a name in ⟨brackets⟩.
"""
import ast
import re
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "segtune"
ROOTS = {"SegtuneError", "_NotAllowed"}     # the second is what JSON allows and segtune does not
# names of one letter, and what they stand for in most of the package
SHORT = dict(k="key", v="value", n="number", i="number", e="reason", o="value", p="path", s="value", t="text", m="number",
             c="character", d="value", f="file", w="word", x="value", a="value", b="value", r="row", j="number", l="line")
CHECKS = ("declare", "config", "axolotl_keys", "yaml_file", "project")     # modules that collect sentences about a config
LEFT_OUT = ("_warnings",)       # what is allowed
MOST = 12       # alternatives of one message


class Message(NamedTuple):
    "One message, and where the package makes it"
    module: str     # Such as `training/run`
    function: str   # The function or class around it
    kind: str       # The class of the error
    text: str       # With names in ⟨brackets⟩, parts that may be absent in [square ones], and ‹one / another›
    field: str      # The config key or field that it names, if that is fixed
    at: str         # The option or file it names, if that is fixed


def classes(trees):
    "The names of the package's own errors, subclasses found by reading"
    known, size = set(ROOTS), 0
    while size != len(known):
        size = len(known)
        for tree in trees.values():
            for o in ast.walk(tree):
                if isinstance(o, ast.ClassDef) and any(getattr(b, "id", "") in known for b in o.bases): known.add(o.name)
    return known

def called(node):
    "The last name of what a call calls"
    return getattr(node.func, "id", None) or getattr(node.func, "attr", None)

def placeholder(node):
    "The name in brackets for a value that only a run knows"
    if isinstance(node, ast.Call):
        if called(node) == "len": return "⟨number⟩"
        inner = [*node.args, *[o.value for o in node.keywords]]
        if called(node) == "join" and inner: return placeholder(inner[0])
        if isinstance(node.func, ast.Attribute) and not inner: return placeholder(node.func.value)
        return placeholder(inner[0]) if inner else f"⟨{(called(node) or 'value').strip('_')}⟩"
    if isinstance(node, (ast.GeneratorExp, ast.ListComp)): return placeholder(node.generators[0].iter)
    if isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Constant): return placeholder(node.value)
    if isinstance(node, ast.Subscript) and isinstance(node.slice.value, str): return f"⟨{node.slice.value}⟩"
    if isinstance(node, (ast.Subscript, ast.Starred)): return placeholder(node.value)
    if isinstance(node, ast.Attribute):
        plain = node.attr in ("__name__", "name", "stem", "text", "value")
        return placeholder(node.value) if plain and not isinstance(node.value, ast.Constant) else f"⟨{node.attr.strip('_')}⟩"
    if isinstance(node, ast.Name): return f"⟨{SHORT.get(node.id, node.id.strip('_')).replace('_', ' ')}⟩"
    if isinstance(node, ast.BinOp): return placeholder(node.left)
    if isinstance(node, ast.BoolOp): return placeholder(node.values[0])
    if isinstance(node, ast.IfExp): return placeholder(node.body)
    return "⟨value⟩"

def words(text):
    "What is said in any case: without names in brackets and parts that may be absent"
    return re.sub(r"⟨[^⟩]*⟩|\[[^\]]*\]|[‹›]", " ", text)

def is_spoken(text): return len([o for o in words(text).split() if re.search(r"[A-Za-z]{2}", o)]) > 1


class Reader:
    "Follows the expressions of one package"
    def __init__(self, package=PACKAGE):
        paths = sorted(o for o in package.rglob("*.py") if o.name[0] != "_" or o.name == "__init__.py")
        self.trees = {o.relative_to(package).with_suffix("").as_posix(): ast.parse(o.read_text(encoding="utf-8")) for o in paths}
        self.errors = classes(self.trees)
        self.parents = {c: o for tree in self.trees.values() for o in ast.walk(tree) for c in ast.iter_child_nodes(o)}

    @cached_property
    def functions(self):
        "Every function by its name"
        found = {}
        for tree in self.trees.values():
            for o in ast.walk(tree):
                if isinstance(o, (ast.FunctionDef, ast.Lambda)): found.setdefault(getattr(o, "name", ""), []).append(o)
        return found

    @cached_property
    def calls(self):
        "Every call by the name of what it calls"
        found = {}
        for tree in self.trees.values():
            for o in ast.walk(tree):
                if isinstance(o, ast.Call): found.setdefault(called(o), []).append(o)
        return found

    def around(self, node):
        "The functions and classes a node stands in, the nearest first, and its module last"
        while node := self.parents.get(node):
            if isinstance(node, (ast.FunctionDef, ast.Lambda, ast.ClassDef, ast.Module)): yield node

    def module(self, node): return next(o for o in self.around(node) if isinstance(o, ast.Module))

    def decides(self, assign, node):
        "Is this assignment run whenever `node` is?"
        block = next(b for f in ("body", "orelse", "finalbody") if assign in (b := getattr(self.parents[assign], f, None) or []))
        above = node
        while above is not None and above not in block: above = self.parents.get(above)
        return above is not None

    def last(self, assigns, node):
        "Of the assignments to a name those that may be the last before a node"
        before = sorted((o for o in assigns if o.lineno <= node.lineno and o not in self.above(node)), key=lambda o: -o.lineno)
        for n, o in enumerate(before):
            if self.decides(o, node): return before[:n + 1]
        return before

    def above(self, node):
        while node := self.parents.get(node): yield node

    def assigned(self, name, node):
        "The expressions that a name may stand for, from the nearest scope that binds it; or its parameter's function"
        for scope in self.around(node):
            if isinstance(scope, ast.ClassDef): continue
            assigns = [o for o in ast.walk(scope) if isinstance(o, ast.Assign) and any(bound(t, o.value, name) for t in o.targets)]
            if isinstance(scope, ast.Module): assigns = [o for o in assigns if self.parents[o] is scope]
            else: assigns = self.last(assigns, node)
            if assigns: return [v for o in assigns for t in o.targets for v in bound(t, o.value, name)], None
            if not isinstance(scope, ast.Module) and any(a.arg == name for a in arguments(scope)): return [], scope
        return [], None

    def passed(self, function, name):
        "The arguments that the calls of a function give for one of its parameters"
        names = [a.arg for a in arguments(function)]
        if names[:1] in (["self"], ["cls"]): names = names[1:]
        at = names.index(name) if name in names else -1
        public = function.name[0] != "_" and isinstance(self.parents[function], ast.Module) if names else False
        for call in self.calls.get(getattr(function, "name", ""), []):
            if not public and self.module(call) is not self.module(function): continue
            given = [o.value for o in call.keywords if o.arg == name]
            if given or 0 <= at < len(call.args): yield (given or call.args[at:])[0]

    def returned(self, call):
        "The expressions that a function of the package may return"
        found = self.functions.get(called(call), [])
        found = [o for o in found if self.module(o) is self.module(call)] or [o for o in found if o.name[0] != "_"]
        if len(found) != 1 or isinstance(found[0], ast.Lambda) or not isinstance(call.func, ast.Name): return []
        returns = [o.value for o in ast.walk(found[0]) if isinstance(o, ast.Return) and o.value is not None]
        return [o for o in returns if isinstance(o, (ast.Constant, ast.JoinedStr, ast.IfExp, ast.BinOp))]

    def whole(self, node, depth=0):
        "The texts that an expression may be"
        if depth > 6: return [placeholder(node)]
        again = [node]
        if isinstance(node, ast.IfExp): again = [node.body, node.orelse]
        elif isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or): again = node.values
        elif isinstance(node, ast.Name):
            again, function = self.assigned(node.id, node)
            if function: again = list(self.passed(function, node.id))
        elif isinstance(node, ast.Call):
            returned = self.returned(node)
            again = returned or ([node.func.value] if called(node) in ("strip", "rstrip", "removesuffix") else [node])
        elif isinstance(node, ast.Subscript) and (table := self.table(node.value)): again = table
        elif isinstance(node, ast.Tuple): again = node.elts[:1]
        if again and again != [node]: return list(dict.fromkeys(t for o in again for t in self.whole(o, depth + 1)))[:MOST]
        return self.parts(node, depth + 1)

    def table(self, node):
        "The values of a dict that is written out"
        if isinstance(node, ast.Name): node = next(iter(self.assigned(node.id, node)[0]), node)
        if isinstance(node, ast.Dict): return node.values
        if isinstance(node, ast.Call) and called(node) == "dict" and not node.args: return [o.value for o in node.keywords]
        return []

    def parts(self, node, depth):
        "The texts of an expression made of pieces"
        if isinstance(node, ast.Constant): return [node.value if isinstance(node.value, str) else str(node.value)]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult): return [f"[{self.piece(node.left, depth)}]"]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return [a + b for a, b in product(self.whole(node.left, depth), self.whole(node.right, depth))][:MOST]
        if isinstance(node, ast.JoinedStr): return ["".join(self.piece(o, depth) for o in node.values)]
        if isinstance(node, ast.Call) and called(node) == "format" and isinstance(node.func, ast.Attribute):
            given = iter(node.args)
            def fill(m): return self.piece(next(given), depth) if not m[1] else f"⟨{m[1]}⟩"
            return [re.sub(r"\{(\w*)[^}]*\}", fill, o) for o in self.whole(node.func.value, depth)]
        return [placeholder(node)]

    def piece(self, node, depth):
        "One text for a piece of a message"
        if depth > 6: return placeholder(node)
        if isinstance(node, ast.FormattedValue): node = node.value
        if isinstance(node, ast.IfExp):
            a, b = self.piece(node.body, depth + 1), self.piece(node.orelse, depth + 1)
            if not a or not b: return f"[{a or b}]"
            return f"{a}/{b}" if len(a) + len(b) < 40 else a
        if isinstance(node, ast.Name):
            values, function = self.assigned(node.id, node)
            if function: values = [o for o in self.passed(function, node.id)]
            return self.either([o for v in values[:5] for o in self.whole(v, depth + 2)], node)
        if isinstance(node, ast.Subscript) and (table := self.table(node.value)):
            return self.either([o for v in table for o in self.whole(v, depth + 2)], node)
        if isinstance(node, ast.BinOp) and not any(isinstance(o, (ast.JoinedStr, ast.Constant)) and not isinstance(getattr(o, "value", ""), (int, float))
                                                   for o in ast.walk(node)): return placeholder(node.left)
        if isinstance(node, (ast.Constant, ast.JoinedStr, ast.BinOp)): return "".join(self.parts(node, depth + 1)[:1])
        returns = self.returned(node) if isinstance(node, ast.Call) else []
        return self.either([o for v in returns for o in self.whole(v, depth + 2)], node)

    def either(self, found, node):
        "What one of a few sentences says; a name in brackets if there are more"
        each = list(dict.fromkeys(o for o in found if o.strip() and o != "None"))
        if not any(map(is_spoken, each)) or len(each) > 3 or sum(map(len, each)) > 200: return placeholder(node)
        if len(each) == 1: return f"[{each[0]}]" if "" in found else each[0]
        lead = " " if all(o[0] == " " for o in each) else ""
        return lead + "‹" + " / ".join(re.sub("[‹›]", "", o).strip() for o in each) + "›"

    def messages(self):
        "Every message of the package, module by module"
        for module, tree in self.trees.items():
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and called(node) in self.errors and node.args:
                    yield from self.read(module, node)
            if module in CHECKS: yield from self.sentences(module, tree)

    def sentences(self, module, tree):
        "What the checks of a config say: they collect sentences, and all are told in one error"
        for node in ast.walk(tree):
            if not isinstance(node, (ast.Constant, ast.JoinedStr)) or isinstance(self.parents[node], (ast.JoinedStr, ast.Expr)): continue
            around = [o for o in self.around(node) if hasattr(o, "name")]
            if not around or around[-1].name in LEFT_OUT or any(called(o) in self.errors for o in self.above(node) if isinstance(o, ast.Call)): continue
            text = self.parts(node, 0)[0]
            if is_spoken(text) and re.search(r"[a-z⟩]\.\]?$", text) and not text[0].isupper():
                yield Message(module, around[-1].name, "ConfigError", re.sub(r"\s+", " ", text).strip(), "", "")

    def read(self, module, call):
        around = [o for o in self.around(call) if hasattr(o, "name")]
        if around and isinstance(around[-1], ast.ClassDef) and around[-1].name in self.errors: return
        fixed = {o.arg: o.value.value for o in call.keywords if isinstance(o.value, ast.Constant)}
        where = next((o.name for o in reversed(around) if o.name[0] != "_"), around[-1].name if around else "")
        for text in self.whole(call.args[0]):
            text = re.sub(r"\s+", " ", text).strip()
            yield Message(module, where, called(call), text, fixed.get("field") or "", fixed.get("source") or "")


def arguments(function):
    a = function.args
    return [*a.posonlyargs, *a.args, *a.kwonlyargs]

def bound(target, value, name):
    "What an assignment gives to a name"
    if isinstance(target, ast.Name) and target.id == name: return [value]
    if not (isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts)): return []
    return [o for t, v in zip(target.elts, value.elts) for o in bound(t, v, name)]

def read_messages(package=PACKAGE):
    "Every message of the package once, module by module"
    found = {}
    for o in Reader(package).messages():
        if is_spoken(o.text): found.setdefault((o.module, o.text), o)
    return list(found.values())


if __name__ == "__main__":
    for o in read_messages(): print(f"{o.module}\t{o.function}\t{o.kind}\t{o.field}\t{o.text}")
