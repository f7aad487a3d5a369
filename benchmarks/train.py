"""What a training step costs, by each rung and by TRL: CPU seconds on one thread, and peak memory, for the same rows.

    python benchmarks/train.py                      every case, every way
    python benchmarks/train.py --cases batch        one case
    python benchmarks/train.py --write              the table goes into benchmarks/RESULTS.md

The model is a Llama of 8 layers and width 256 with a vocabulary of 32,000, random weights and a LoRA of rank 8 on every linear
layer. Each way runs in a process of its own: one step to warm up, then two that are timed, of which the faster counts (other
work on the machine only ever adds to a time). Memory is the peak during these steps above what the process held before them.
Ways of TRL are measured where TRL is installed; a way that would need more than 10 GB is left out.
"pack, PyTorch's kernel" is `pack` with one call of PyTorch's attention kernel per row, which is what packing usually means; our own
`pack` attends by matrix products.
"""
import argparse
import json
import subprocess
import sys
import time
import warnings
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

import numpy as np

VOCABULARY = 32_000
KERNEL = "pack, PyTorch's kernel"
OURS = ["plain", "pad", KERNEL, "pack", "share"]
TRL = ["trl default", "trl one row at a time", "trl packed"]


def labelled(ids, trained): return dict(input_ids=ids, labels=[-100] * (len(ids) - trained) + ids[len(ids) - trained:])


def rows(case):
    "The rows of a case"
    rng = np.random.default_rng(0)
    def some(n): return rng.integers(5, VOCABULARY, n).tolist()
    if case == "batch": return [labelled(some(n), n // 5) for n in rng.integers(128, 513, 8)]
    if case == "nothing shared": return [labelled(some(n), n // 5) for n in rng.integers(200, 300, 8)]
    if case == "questions":
        document = some(1000)
        return [labelled(document + some(60), 20) for _ in range(10)]
    if case == "system prompt":
        prompt = some(300)
        return [labelled(prompt + some(60), 20) for _ in range(64)]
    turns = some(1040)
    return [labelled(turns[:130 * (i + 1)], 40) for i in range(8)]


CASES = {"batch": "8 rows of 128-512 tokens, 80% masked", "nothing shared": "8 rows of 200-300 tokens with nothing in common",
         "questions": "10 questions to one document of 1,000 tokens", "dialogue": "a dialogue of 8 turns as 8 rows",
         "system prompt": "64 short rows after a system prompt of 300 tokens"}


TOO_LARGE = [("system prompt", "plain"), ("system prompt", "trl default")]   # the logits of 64 padded rows, several times over


def make_model():
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.manual_seed(0)
    lm = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, hidden_size=256, intermediate_size=688, num_hidden_layers=8,
                                      num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=4096))
    model = get_peft_model(lm, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, p in model.named_parameters():
        if "lora_B" in name: torch.nn.init.normal_(p, std=.02)
    return model.train()


def our_step(model, way, data):
    "A function that makes one step, and its loss"
    import torch

    from segtune.training.batches import Collator
    from segtune.training.pieces import kernel_only
    from segtune.training.proof import choose_step
    from segtune.training.step import StepCollator
    rung, attending = ("pack", kernel_only) if way == KERNEL else (way, nullcontext)
    step, _ = choose_step(model, step=rung)
    parts = [Collator()(data)] if step is None else StepCollator(rung)(data)["parts"]
    n = None if step is None else torch.tensor(sum(o != -100 for r in data for o in r["labels"][1:]))
    def run():
        loss = 0.0
        for p in parts:
            with attending(): part = model(**p, **({} if n is None else dict(num_items_in_batch=n))).loss
            part.backward()
            loss += part.item()
        return loss
    return run


def trl_step(model, way, data):
    "The same by TRL: its collator and its loss, without the optimizer"
    import tempfile

    import datasets
    from trl import SFTConfig, SFTTrainer
    alone = way == "trl one row at a time"
    packed = way == "trl packed"
    config = dict(output_dir=tempfile.mkdtemp(), per_device_train_batch_size=1 if alone else len(data), max_steps=1,
                  gradient_accumulation_steps=len(data) if alone else 1, max_length=4096, report_to="none", use_cpu=True,
                  bf16=False, fp16=False, gradient_checkpointing=False, disable_tqdm=True, shuffle_dataset=False,
                  packing=packed, dataset_kwargs=dict(skip_prepare_dataset=not packed))
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    tok = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "b": 1}, "a")), eos_token="b", pad_token="b")
    known = SFTConfig.__dataclass_fields__
    args = SFTConfig(**{k: v for k, v in config.items() if k in known})
    trainer = SFTTrainer(model=model, args=args, train_dataset=datasets.Dataset.from_list(data), processing_class=tok)
    batches = list(trainer.get_train_dataloader())
    n = sum((b["labels"][..., 1:] != -100).sum() for b in batches)
    def run(): return sum(trainer.training_step(trainer.model, dict(b), num_items_in_batch=n).item() for b in batches)
    return run


def peak(reset=False):
    "Most memory held since the last reset, and memory held now, in bytes"
    if reset: Path("/proc/self/clear_refs").write_text("5")
    found = {o.split(":")[0]: int(o.split()[1]) * 1024 for o in Path("/proc/self/status").read_text().splitlines() if o.startswith("Vm")}
    return found["VmHWM"], found["VmRSS"]


def measure(case, way, steps=2):
    "Runs in a process of its own"
    import torch
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    model, data = make_model(), rows(case)
    run = (our_step if way in OURS else trl_step)(model, way, data)
    _, held = peak(reset=True)
    run()
    seconds = []
    for _ in range(steps):
        for p in model.parameters(): p.grad = None
        start = time.process_time()
        loss = run()
        seconds.append(time.process_time() - start)
    print(json.dumps(dict(case=case, way=way, seconds=min(seconds), peak=(peak()[0] - held) / 1e9, loss=loss)))


def in_process(case, way):
    import os
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    res = subprocess.run([sys.executable, __file__, "--one", case, way], capture_output=True, text=True, env=env)
    if res.returncode: return dict(case=case, way=way, error=(res.stderr.strip().splitlines() or ["no message"])[-1][:120])
    return json.loads(res.stdout.splitlines()[-1])


def table(found):
    "The figures as Markdown, one table a case"
    for case in dict.fromkeys(o["case"] for o in found):
        those = {o["way"]: o for o in found if o["case"] == case}
        data, best = rows(case), those.get("share", {}).get("seconds")
        from segtune.training.trie import batch_cost
        cost = batch_cost([(r["input_ids"], r["labels"]) for r in data])
        yield f"\n**{CASES[case]}** ({cost.tokens:,} tokens, {cost.unique:,} of them unique, {cost.trained:,} trained)\n"
        if KERNEL in those: yield f"`{KERNEL}` is `pack` with one call of the attention kernel per row, as packing is usually done.\n"
        yield "| way | CPU s a step | against `share` | peak GB | loss |\n|---|---|---|---|---|"
        for way, o in those.items():
            if "error" in o: yield f"| {way} | {o['error'].replace('|', '/')} | | | |"
            else: yield f"| {way} | {o['seconds']:.2f} | {ratio(o['seconds'], best)} | {o['peak']:.2f} | {o['loss']:.6f} |"


def ratio(seconds, best): return f"{seconds / best:.1f}" if best else ""


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    p.add_argument("--ways", nargs="*", default=OURS + (TRL if find_spec("trl") else []))
    p.add_argument("--write", action="store_true", help="put the table into benchmarks/RESULTS.md")
    p.add_argument("--read", help="a file of figures, one JSON object a line, as --one prints them")
    p.add_argument("--one", nargs=2, metavar=("CASE", "WAY"), help="measure in this process and print JSON")
    a = p.parse_args()
    if a.one: return measure(*a.one)
    import torch
    import transformers
    found = [json.loads(o) for o in Path(a.read).read_text().splitlines()] if a.read else []
    for case, way in [] if a.read else [(c, w) for c in a.cases for w in a.ways if (c, w) not in TOO_LARGE]:
        found.append(in_process(case, way))
        print(*(f"{v:.3f}" if isinstance(v, float) else v for v in found[-1].values()), flush=True)
    from importlib.metadata import version
    trl = f", trl {version('trl')}" if find_spec("trl") else "; TRL was not installed"
    made = f"2 cores, CPU only, {time.strftime('%Y-%m-%d')}. One thread; fp32."
    head = f"torch {torch.__version__}, transformers {transformers.__version__}{trl}; {made}\n"
    text = "\n".join([head, *table(found)])
    print(text)
    if a.write:
        from model_types import write
        write("What a training step costs", text)


if __name__ == "__main__": main()
