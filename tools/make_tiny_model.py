"""Make segtune/assets/tiny: a Llama of a million parameters that has read some Python, for tests and examples.

    pip install --no-deps chatterbot-corpus==1.3.3
    python tools/make_tiny_model.py [--out segtune/assets/tiny] [--steps 1400]

Two idle CPU cores need three to four minutes. It reads the functions of the standard library of the Python that runs it,
without the modules that segtune.data.stdlib holds out, and a few hundred English dialogues. Everything is seeded: the same
Python, torch and processor give the same file.
"""
import argparse
import ast
import json
import math
import random
import sys
import textwrap
import time
import warnings
from importlib.util import find_spec
from pathlib import Path

import torch
import yaml
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from segtune.data.stdlib import is_held_out, stdlib_files

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TOPICS = "tech_support coding computers conversations greetings food trivia science history".split()
CONTEXT = 512
CHATML = ("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")


# ---- text

def functions(max_chars=1500):
    "The library's functions as they stand, docstrings included; none from a held-out module, none twice"
    seen = set()
    for module, path in stdlib_files():
        if is_held_out(module): continue
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse("\n".join(lines))
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef): continue
            text = textwrap.dedent("\n".join(lines[node.lineno - 1:node.end_lineno])).rstrip()
            if 40 < len(text) <= max_chars and text not in seen and not any(o in text for o in SPECIAL):
                seen.add(text)
                yield text + "\n"

def dialogues():
    "English dialogues, the two speakers in turn"
    spec = find_spec("chatterbot_corpus")
    if not spec: sys.exit("make_tiny_model.py needs the dialogues: pip install --no-deps chatterbot-corpus==1.3.3")
    folder = Path(spec.submodule_search_locations[0]) / "data" / "english"
    for topic in TOPICS:
        for turns in yaml.safe_load((folder / f"{topic}.yml").read_text(encoding="utf-8"))["conversations"]:
            if all(isinstance(o, str) for o in turns):
                yield "".join(f"<|im_start|>{'assistant' if i % 2 else 'user'}\n{o.strip()}<|im_end|>\n" for i, o in enumerate(turns))


# ---- tokenizer

def train_tokenizer(texts):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tok.decoder = decoders.ByteLevel()
    special = [AddedToken(o, special=True, normalized=False) for o in SPECIAL]
    trainer = trainers.BpeTrainer(vocab_size=2048, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tok.train_from_iterator(texts, trainer)
    return tok

TOKENIZER_CONFIG = dict(
    tokenizer_class="PreTrainedTokenizerFast", bos_token=None, eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token=None,
    model_max_length=CONTEXT, clean_up_tokenization_spaces=False, model_input_names=["input_ids", "attention_mask"], chat_template=CHATML)


# ---- model

def new_model():
    from transformers import LlamaConfig, LlamaForCausalLM
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=2048, hidden_size=128, intermediate_size=352, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=CONTEXT, tie_word_embeddings=True, bos_token_id=None, eos_token_id=2, pad_token_id=0))

def stream(tok, documents, rng):
    "All documents in random order as one long list of ids, each ended by <|endoftext|>"
    documents = list(documents)
    rng.shuffle(documents)
    return torch.tensor([i for e in tok.encode_batch([o + SPECIAL[0] for o in documents]) for i in e.ids])

def windows(ids, n_steps, rows, length):
    "Batches of neighbouring tokens; every token once before any is seen again"
    starts = []
    while len(starts) < n_steps * rows:
        first = torch.randint(0, length, ()).item()
        new = torch.arange(first, len(ids) - length, length)
        starts += new[torch.randperm(len(new))].tolist()
    for i in range(n_steps): yield torch.stack([ids[o:o + length] for o in starts[i * rows:(i + 1) * rows]])

def rate(step, n_steps, top, warmup=30):
    if step < warmup: return top * (step + 1) / warmup
    return top * (0.02 + 0.98 * (1 + math.cos(math.pi * (step - warmup) / (n_steps - warmup))) / 2)

def train(model, ids, held, n_steps, rows=8, length=256, top=3e-3):
    decayed = [o for o in model.parameters() if o.ndim > 1]
    plain = [o for o in model.parameters() if o.ndim == 1]
    opt = torch.optim.AdamW([dict(params=decayed, weight_decay=0.1), dict(params=plain, weight_decay=0.0)], betas=(0.9, 0.95))
    start = time.time()
    for step, batch in enumerate(windows(ids, n_steps, rows, length)):
        for g in opt.param_groups: g["lr"] = rate(step, n_steps, top)
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad()
        if step % 100 == 0 or step == n_steps - 1:
            print(f"step {step:4} loss {loss.item():.3f} held out {evaluate(model, held):.3f} {time.time() - start:4.0f} s", flush=True)

@torch.no_grad()
def evaluate(model, ids, length=256):
    batch = ids[:len(ids) // length * length].view(-1, length)[:32]
    return model(input_ids=batch, labels=batch).loss.item()


# ---- files

README = """# A tiny model

A Llama with {params:,} parameters (4 layers of width 128, a vocabulary of 2,048, {context} tokens of context) and its
byte-level tokenizer. It is here so that tests and examples can fine-tune, in seconds and on a CPU, a model that has
learned *something*. It writes text that looks like Python and English. It knows nothing, and no answer of it is to be
believed.

- **Text.** {n_functions:,} functions of the standard library of Python {python}, up to 1,500 characters each, docstrings
  included, and {n_dialogues:,} short English dialogues from chatterbot-corpus 1.3.3. The modules in
  `segtune.data.stdlib.held_out_modules` were left out, so the rows that `segtune.data.stdlib` holds out are new to it.
- **Training.** {steps:,} steps of 8 x 256 tokens ({tokens:.1f} million tokens of text, {passes:.1f} times over), three to
  four minutes on two idle CPU cores. Loss on the 2% of the functions kept back: {loss:.2f} nats per token.
- **Files.** The weights are stored as float16; `config.json` says float32, which is what they are for.
- **Licences.** The standard library is Copyright (c) Python Software Foundation and licensed under the PSF License
  Version 2. chatterbot-corpus is by Gunther Cox and contributors, BSD License. The weights and the tokenizer are derived
  from these texts and are offered under the licence of segtune.
- **Made by** `tools/make_tiny_model.py`, with a fixed seed.
"""

def save(model, tok, out, facts):
    out.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    for name, changes in {"config.json": dict(dtype="float32"), "generation_config.json": dict(eos_token_id=2, pad_token_id=0)}.items():
        content = {k: v for k, v in (json.loads((out / name).read_text()) | changes).items() if k != "transformers_version"}
        (out / name).write_text(json.dumps(content, indent=2) + "\n")
    tok.save(str(out / "tokenizer.json"))
    (out / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG, indent=2) + "\n")
    (out / "README.md").write_text(README.format(params=model.num_parameters(), context=CONTEXT, python=sys.version.split()[0], **facts))

def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--out", type=Path, default=ROOT / "segtune" / "assets" / "tiny")
    p.add_argument("--steps", type=int, default=1400)
    args = p.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    rng = random.Random(0)

    code, talk = list(functions()), list(dialogues())
    tok = train_tokenizer([*code, *talk])
    rng.shuffle(code)
    kept_back = code[:len(code) // 50]
    ids, held = stream(tok, [*code[len(kept_back):], *talk * 2], rng), stream(tok, kept_back, rng)
    print(f"{len(code)} functions, {len(talk)} dialogues, {len(ids)} tokens, {sum(map(len, code + talk)) / (len(ids) + len(held)):.2f} characters a token")

    model = new_model()
    train(model, ids, held, args.steps)
    model.eval()
    save(model, tok, args.out, dict(n_functions=len(code), n_dialogues=len(talk), steps=args.steps, tokens=len(ids) / 1e6, loss=evaluate(model, held),
                                    passes=args.steps * 8 * 256 / len(ids)))


if __name__ == "__main__": main()
