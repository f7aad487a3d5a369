"""The page of error messages: made from the package's source and from errors that are provoked while it is made."""
import html
import json
import re
from functools import cache

from execnb.nbio import mk_cell
from fastcore.basics import AttrDict
from messages import CHECKS, ROOT, read_messages, words
from provoke import CASES, told

MARKER = "<!-- every message -->"

# what to do where a message does not say it itself: its beginning, and the fix
FIXES = {
    "the EOS token ⟨eos⟩ is among": "Give train_on_eos and train_on_eot one value, or take the EOS token out of eot_tokens.",
    "expected one of ⟨ends⟩": "Give one of the values that are listed.",
    "the role ⟨odd⟩ is neither human nor gpt": "Use the type chat_template, which reads any role, or rename the role in the data.",
    "unknown conversation template": "Take the name that is suggested, or one of those listed.",
    "the role ⟨odd⟩ is neither ⟨names⟩": "Rename the role in the data, or leave the row out (on_bad: skip).",
    "the role ⟨role⟩ is neither system": "Rename the role in the data, or leave the row out (on_bad: skip).",
    "expected two turns or more": "Add the answer, or leave the row out (on_bad: skip).",
    "unknown key.": "Take the name that is suggested, or look it up among the config keys.",
    "unknown option": "Take the name that is suggested, or look it up among the config keys.",
    "is missing.": "Add the key. The config keys page says what it may hold.",
    "qlora needs load_in_4bit": "Set load_in_4bit: true, or adapter: lora.",
    "its rows have to be ejected too": "Eject both: the directory then holds a file for each, and the config names both.",
    "the file has no rows": "Look whether the file was written completely, and whether path names the right one.",
    "the dataset has no rows": "Look whether split, skip and shards leave any, and whether path names the right dataset.",
    "format ⟨file⟩ cannot be made": "Correct the option that is named; `segtune formats NAME` lists what the format takes.",
    "the row is nested too deeply": "Write it flatter: a row is an object of texts, numbers and short lists.",
    "there is no row": "Count rows from 0; `segtune inspect CONFIG` says how many there are.",
    "there is no token": "Count tokens from 0; the token table of the row has a line for each.",
    "cannot be read (⟨reason⟩)": "Open the file with the library that wrote it, write it again, or give another format of it.",
    "⟨msg⟩ Give one of them": "Name the split or the configuration you want, as the message lists them.",
    "invalid CSV": "Quote cells that hold a comma, a quote or a newline; most programs that write CSV do so by themselves.",
    "expected a new file whose name ends": "Give a new name that ends in .jsonl or .jsonl.gz.",
    "there is no such directory": "Make the directory, or choose another.",
    "the field ⟨name⟩ is missing": "Add the field, name another with the format's field options, or leave the row out (on_bad: skip).",
    "the function ⟨path⟩ raised": "Correct the function; its own traceback is printed below the message.",
    "⟨path⟩ needs the module": "Install the module in the environment that runs segtune.",
    "⟨module⟩ cannot be imported": "Correct the module; import it in Python to see the whole traceback.",
    "expected {\"begin_offset\"": "Write each range with these three keys.",
    "ranges of characters need": "Write the content as one string, or leave the ranges out.",
    "there is no message besides": "Add a message of the user and one of the assistant, or leave the row out (on_bad: skip).",
    "a placeholder inside another": "Write one placeholder at a time, such as {question}.",
    "needs `prompt` and `answer`": "Give both, for example prompt: \"Q: {question}\\nA:\" and answer: \" {answer}</s>\".",
    "unknown placeholder": "Take the name that is suggested, or one of those listed.",
    "the Jinja text": "Correct the template; render it with transformers' apply_chat_template to compare.",
    "line ⟨lineno⟩ of the Jinja text": "Correct the template at the line that is named.",
    "the chat template refuses": "Change the conversation as the template's own sentence says (often: roles must alternate), or use another template.",
    "chat_template: jinja needs": "Give chat_template_jinja: a Jinja text, or the name of a file beside the config.",
    "⟨text⟩ is neither Jinja text nor": "Correct the name of the file, or write the template itself in the config.",
    "⟨text⟩ is no token id": "Ids are whole numbers from 0. Tokenize the data again.",
    "⟨text⟩ is no id of this tokenizer": "Tokenize the data with the model's own tokenizer.",
    "⟨key⟩ is missing; the row has": "Give both input_ids and labels.",
    "expected name=value": "Write pairs such as betas=(0.9, 0.95),weight_decay=0.1, or a mapping.",
    "⟨key⟩ is missing, got": "Give every segment a text (a string) and a label (true or false, without quotes).",
    "expected ‹a string / true or false›": "Write the text in quotes, and true or false without.",
    "⟨path⟩ is not JSON": "Correct the file: one JSON object, keys in double quotes, no comma before a closing bracket.",
    "has an empty value between": "Remove one of the two commas.",
    "no such directory": "Check the path; it is looked up beside the config, then from the current directory.",
    "\"segments\" is missing": "Name the field segments, or give the dataset the type that its fields belong to (`segtune formats`).",
    "peft cannot make this adapter": "Change the key that is named; peft's own sentence stands in brackets.",
    "the training set has no rows": "Lower val_set_size, or check the data.",
    "⟨file⟩ holds no keys": "Name the directory that training wrote, or train that adapter again.",
    "⟨file⟩ cannot be read": "Name the directory that training wrote, or train that adapter again.",
    "there is no adapter in": "Name the directory that training wrote, the one with adapter_config.json in it.",
    "is ⟨adapter⟩, and the one in lora_model_dir": "Set adapter to the kind that lora_model_dir holds, or begin a new adapter without it.",
    "no row has a trained token": "Check the labels with `segtune inspect CONFIG`; set \"label\": true on what is to be learned.",
    "no held-out row has a trained token": "Check the labels of the held-out rows with `segtune inspect CONFIG`.",
    "cannot be written": "Free some space, look at the permissions, or choose another place.",
    "the model has no adapter that could": "Leave --compare-base out, or name the output_dir of a run with an adapter.",
    "the model has no list of layers": "Set lisa_layers_attribute to the place of the layers, such as model.layers.",
    "its adapter does not fit": "Name the base model that the adapter was trained on (base_model).",
    "the model has layers 0 to": "Name layers within that range.",
    "⟨pattern⟩ is no regular expression": "Correct the pattern, or give a list of names.",
    "holds no adapter to merge": "Name the output_dir of a run with adapter: lora. A whole model needs no merging.",
    "holds an adapter of type": "Use the adapter as it is: `segtune generate` loads it beside the base model.",
    "holds no weights of an adapter": "Name a finished run, or train again.",
    "random weights cannot be": "Remove reinit_weights, or load_in_4bit and load_in_8bit.",
    "⟨base model⟩ holds no model": "Give the directory of a model, with config.json and weights; a tokenizer alone cannot be trained.",
    "⟨base model⟩ cannot be loaded": "Install a transformers version that knows this kind of model, or use another.",
    "the config of a ⟨model_type⟩ model": "Take the name that is suggested, or look into the model's config.json.",
    "has more entries than datasets": "Give as many test_datasets as datasets, in the same order.",
    "cannot be resumed from": "Resume from an earlier checkpoint, or train again (--overwrite).",
    "⟨name⟩ cannot be made of these": "Give the arguments that the schedule takes, as in the example of the message.",
    "holds no ⟨state file⟩": "Begin a new soft prompt, or continue from a run that segtune trained.",
    "the model was trained on tasks": "Count tasks from 0, in the order of the datasets.",
    "holds a soft prompt of another shape": "Set num_virtual_tokens and the encoder's sizes as they were in that run.",
    "report_to: ⟨report_to⟩ cannot be used": "Install what it needs, log in, or leave report_to out: loss.csv is written in any case.",
    "the alias *⟨anchor⟩": "Write the value out where the alias stands.",
    "invalid YAML": "Correct the line that is named: brackets, quotes and indentation are the usual places.",
    "leads into ⟨value⟩": "Correct the key: keys within keys are written a.b=value.",
    "there is no entry": "Count entries from 0.",
    "is a number of ⟨number⟩ digits": "Write a shorter number, or put it in quotes if it is text.",
}
STEP = "Nothing has to be done: with step: auto a slower way is taken, which makes the same step. It stops a run only where `step:` asks for this way."
# errors that segtune catches itself, and acts on
KINDS = {"NotPackable": STEP, "NotPlain": STEP,
         "UnseenFile": "Nothing has to be done: the rows are read where the file is, and sent."}
ROOMS = {"": "Config, tokenizer, commands", "data": "Read and prepare data", "formats": "Formats", "axolotl": "axolotl's formats",
         "lint": "Lint", "look": "Look at rows", "training": "Train, generate, merge"}

def sentences(text):
    "A message in its sentences"
    return re.split(r"(?<=[.?\]])\s+(?=[A-Z⟨‹]|--)|(?=\[ ?[A-Z])", text)

def fix_of(m):
    "What to do about a message: its own words, else those kept here; None where nobody says"
    if m.kind in KINDS: return KINDS[m.kind]
    for start, fix in FIXES.items():
        if m.text.startswith(start): return fix
    said = [o.strip(" []‹›") for o in sentences(m.text)[1:] if o.strip(" []‹›")]
    if said: return re.sub(r"^Fix: (\w)", lambda o: o[1].upper(), " ".join(said))
    asked = re.search(r"expected ([^,]+(?:, [^,]+)*?)(?:, got|\.$)", m.text)
    if asked: return f"Give {asked[1]}."
    if m.kind == "DataError": return "Correct the place that is named, or leave the row out (on_bad: skip)."
    return f"Correct {m.field} in the config." if m.field and m.kind == "ConfigError" else None

def in_two(m):
    "What is wrong, and what to do; a message that says the second itself is cut there"
    fix, said = fix_of(m) or "", sentences(m.text)
    own = m.kind not in KINDS and len(said) > 1 and not any(map(m.text.startswith, FIXES))
    return said[0] if own else m.text, fix

def slug(text, n):
    "The first words of a message, for its address"
    return "-".join(re.findall(r"[a-z0-9]+", words(text).lower())[:n])

@cache
def entries():
    "Every message with its address"
    found, taken = [], set()
    for m in read_messages():
        base, n = m.module.replace("/", "-").replace("_", "-"), 6
        while (name := f"{base}-{slug(m.text, n)}") in taken and n < 14: n += 1
        while name in taken: name += "-2"
        taken.add(name)
        found.append((name, m))
    return found

def pattern(text):
    "What a message looks like when it is printed"
    out = ""
    for part in re.split(r"(‹[^›]*›|⟨[^⟩]*⟩|\[[^\]]*\])", text):
        out += ".*?" if part[:1] in ("⟨", "[", "‹") else re.escape(part)
    return re.compile(out, re.DOTALL)

def match(said, modules=()):
    "The message that was printed: of those that fit, one of the module that raised it, and the one that says most by itself"
    def far(m): return min((n for n, o in enumerate(modules[:2]) if o == m.module or o == "config" and m.module in CHECKS), default=99)
    fits = [(-far(m), len(words(m.text)), name) for name, m in entries() if pattern(m.text).search(said)]
    return max(fits)[2] if fits else None

@cache
def examples():
    "Address -> the case that provokes the message, and what is printed"
    found = {}
    for case in CASES:
        said, modules = told(case)
        name = match(said, modules)
        if name is None: raise RuntimeError(f"no message fits what {case.shown!r} is told: {said}")
        found.setdefault(name, (case, said))
    return found

@cache
def notebooks():
    "Module -> its notebook, title and quoted line"
    found = {}
    for path in (ROOT / "nbs").rglob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = ["".join(o["source"]) for o in cells[:3]]
        exported = next((m for o in text if (m := re.search(r"#\|\s*default_exp\s+(\S+)", o))), None)
        title = next((m for o in text if (m := re.match(r"#\s+(.+)\n+(?:>\s*(.+))?", o + "\n"))), None)
        if exported and title: found[exported[1].replace(".", "/")] = (path.relative_to(ROOT / "nbs").as_posix(), title[1], title[2] or "")
    return found

def shown(text):
    "A message or a fix as HTML"
    plain = re.sub("[‹›]", "", text).replace("[ ", " [")
    return re.sub(r"⟨([^⟩]*)⟩", r"<var>\1</var>", html.escape(plain, quote=False))

def key_meaning(field):
    "What a config key is for"
    from segtune.config import Config
    o = Config.model_fields.get(field)
    return f'<p class="message-key"><code>{field}</code> {shown(o.description)}</p>' if o is not None and o.description else ""

def example_html(name):
    if name not in examples(): return ""
    case, said = examples()[name]
    given = "" if case.shown.startswith("segtune ") else f"<pre>{html.escape(case.shown)}</pre>"
    out = f"<pre>$ segtune {html.escape(case.command)}\n{html.escape(short(said))}</pre>"
    return f"<details><summary>Example</summary>{given}{out}</details>"

def short(said, most=420):
    "A printed message without places of this machine, and cut where it only lists"
    said = re.sub(r"(?<![\w.])/(?:[\w.-]+/)+(?=[\w.-]+)", "", said)
    return said if len(said) <= most else said[:said.rindex(" ", 0, most)] + " …"

def message_html(name, m):
    link = f'<a class="message-link" href="#{name}" aria-label="Link to this message">#</a>'
    text, fix = in_two(m)
    said = f'<p class="message-said">{link} <code>{shown(text)}</code></p>'
    fix = f'<p><b>Fix:</b> {shown(fix)}</p>'
    return f'<div class="message" id="{name}">{said}{fix}{key_meaning(m.field)}{example_html(name)}</div>'

def html_cell(text):
    cell = mk_cell("#| echo: false\nmessages()", "code")
    cell.metadata = AttrDict()
    cell.outputs = [{"output_type": "display_data", "metadata": {}, "data": {"text/html": [text]}}]
    return cell

def cells():
    "The page's cells: a heading for each room, one for each module, its messages"
    for room, title in ROOMS.items():
        modules = dict.fromkeys(m.module for _, m in entries() if ("/" in m.module and m.module.split("/")[0]) == (room or False))
        yield mk_cell(f"## {title}", "markdown")
        for module in modules:
            path, name, says = notebooks()[module]
            yield mk_cell(f"### {name.replace('`', '')}\n\n{says} ([how it works](../{path}))", "markdown")
            yield html_cell("".join(message_html(n, m) for n, m in entries() if m.module == module))

def fill(page):
    "The cells of the page with the messages in place of the marker"
    for cell in page:
        if cell.source.strip() == MARKER: yield from cells()
        else: yield cell


if __name__ == "__main__":
    for _, m in entries():
        if fix_of(m) is None: print(m)
    used = {s for s in FIXES for _, m in entries() if m.text.startswith(s)}
    print("unused:", [o for o in FIXES if o not in used])
