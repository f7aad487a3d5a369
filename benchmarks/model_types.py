"""Which rung every causal model type of the installed transformers takes, built small, and whether that is right.

    python benchmarks/model_types.py                  all types, as a table
    python benchmarks/model_types.py llama mamba      only these
    python benchmarks/model_types.py --write          the table goes into benchmarks/RESULTS.md

Each type is built with random weights from its own configuration, made small. The rung is chosen in float32 as `segtune train`
chooses it; then rows that share beginnings go through the rung and through the plain model once more, in float64 where the
model can, and the loss and every gradient are compared. A type that cannot be made small by the few rules here is listed too.
"""
import argparse
import multiprocessing
import re
import time
import warnings
from pathlib import Path

import numpy as np

VOCABULARY = 96
SMALL = dict(
    hidden_size=32, d_model=32, n_embd=32, embed_dim=32, word_embed_proj_dim=32, embedding_size=32,
    num_hidden_layers=2, n_layer=2, num_layers=2, n_layers=2, num_attention_heads=4, n_head=4, n_heads=4,
    num_heads=4, num_key_value_heads=2, multi_query=False, intermediate_size=48, ffn_dim=48, d_ff=48, n_inner=48,
    dim_ff=48, head_dim=8, d_kv=8, ffn_hidden_size=48, kv_channels=8, max_position_embeddings=256, n_positions=256,
    max_seq_len=256, num_experts=4, num_local_experts=4, n_routed_experts=4, moe_num_experts=4,
    num_experts_per_tok=2, moe_topk=2, moe_k=2, top_k_experts=2, experts_per_token=2, moe_intermediate_size=16,
    shared_expert_intermediate_size=16, moe_shared_expert_intermediate_size=16, n_shared_experts=1, n_group=1,
    topk_group=1, first_k_dense_replace=1, q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8,
    qk_head_dim=16, v_head_dim=8, rotary_dim=8, state_size=4, ssm_state_size=4, mamba_d_state=4, mamba_n_heads=8,
    mamba_num_heads=8, mamba_d_head=8, mamba_head_dim=8, mamba_d_ssm=64, mamba_n_groups=1, n_groups=1,
    time_step_rank=4, conv_kernel=3, lru_width=32, attention_hidden_size=32, expert_ffn_hidden_size=16,
    linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=8, linear_value_head_dim=8,
    global_head_dim=8, num_global_key_value_heads=2, decoder_layers=2, encoder_layers=2, decoder_attention_heads=4,
    encoder_attention_heads=4, decoder_ffn_dim=48, encoder_ffn_dim=48, index_n_heads=2, index_head_dim=8,
    vocab_size=VOCABULARY, vocab_size_per_layer_input=VOCABULARY, hidden_size_per_layer_input=8, sliding_window=8,
    attention_window=8, window_size=8, bos_token_id=0, eos_token_id=1, pad_token_id=2, decoder_start_token_id=0,
    sep_token_id=1, is_decoder=True, add_cross_attention=False, use_cache=False, num_nextn_predict_layers=0,
)

# tried one after the other until a type runs: keys that are given another value, or None for the type's own
VARIANTS = [
    {},
    dict(head_dim=None),
    dict(num_key_value_heads=4),
    dict(head_dim=None, num_key_value_heads=4),
    dict(qk_head_dim=None, head_dim=None),
    dict(head_dim=None, qk_head_dim=None, num_key_value_heads=4),
    dict(head_dim=16, qk_head_dim=None, num_key_value_heads=4),
    dict(v_head_dim=None, qk_rope_head_dim=None, qk_nope_head_dim=None, head_dim=None, num_key_value_heads=4),
    dict(num_hidden_layers=4, num_layers=4),
    dict(hidden_size=64, n_embd=64, d_model=64, head_dim=16, rotary_dim=16),
    dict(hidden_size=64, mamba_n_heads=16, mamba_num_heads=16, head_dim=16),
    dict(mamba_n_heads=None, mamba_num_heads=None, mamba_d_head=None, mamba_head_dim=None)]


ROPE = dict(rope_type="default", rope_theta=10000.0)

# what a type's default configuration leaves out, or demands beside the rules, and what the type is about
OWN = dict(
    lfm2=dict(layer_types=["conv", "full_attention"]), lfm2_moe=dict(layer_types=["conv", "full_attention"]),
    gpt_neo=dict(attention_types=[[["global", "local"], 1]]), ministral=dict(head_dim=8), hunyuan_v1_dense=dict(head_dim=8),
    hunyuan_v1_moe=dict(head_dim=8), nemotron=dict(num_key_value_heads=2, head_dim=8), xmod=dict(default_language="en_XX"),
    reformer=dict(axial_pos_embds=False), zaya=dict(num_experts_per_tok=1),
    gemma3n_text=dict(layer_types=["sliding_attention", "full_attention"] * 2, num_hidden_layers=4, num_kv_shared_layers=2),
    deepseek_v2=dict(num_key_value_heads=4, num_experts_per_tok=2, n_group=1, topk_group=1),
    dots1=dict(n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2, first_k_dense_replace=1),
    cohere_compass_text=dict(layer_types=["sliding_attention", "full_attention"],
                             rope_parameters=dict(full_attention=ROPE, sliding_attention=ROPE)),
    dots3_note_text=dict(num_key_value_heads=4, head_dim=16, moe_shared_expert_intermediate_size=16, swa_head_dim=16,
                         swa_num_attention_heads=4, swa_num_key_value_heads=4, swa_q_lora_rank=16, swa_kv_lora_rank=16,
                         swa_qk_nope_head_dim=8, swa_v_head_dim=8),
    dots3_note_vision_encoder=dict(adapter_in_dim=32, adapter_out_dim=32),
    dots3_note_audio_encoder=dict(adapter_input_size=32, adapter_out_dim=32),
    blt=dict(encoder_hash_byte_group_vocab=50, encoder_config=dict(hidden_size_global=32), decoder_config=dict(hidden_size_global=32)),
    prophetnet=dict(num_hidden_layers=None, num_encoder_layers=2, num_decoder_layers=2), xlnet=dict(max_position_embeddings=None),
    zamba=dict(attention_hidden_size=64, attention_head_dim=16, layers_block_type=["linear_attention", "hybrid"] * 2,
               num_hidden_layers=4),
    dbrx=dict(attn_config=dict(rope_theta=10000.0, kv_n_heads=2, clip_qkv=8.0),
              ffn_config=dict(hidden_size=32, ffn_hidden_size=48, moe_num_experts=4, moe_top_k=2)),
    zamba2=dict(attention_hidden_size=64, attention_head_dim=16, mamba_expand=2, n_mamba_heads=8, mamba_headdim=8, kv_channels=8,
                num_key_value_heads=4, layers_block_type=["linear_attention", "hybrid"], num_mem_blocks=1),
    qwen4_exp_text=dict(indexer_n_heads=2, indexer_kv_heads=1, indexer_head_dim=8, indexer_budget=16, indexer_compress_ratio=4,
                        hc_lowrank=8, ngram_vocab_size_base=64, split_ngram_parts=1))


def shrunk(config, variant):
    "The same kind of configuration, small"
    small = {k: v for k, v in {**SMALL, **variant}.items() if v is not None}
    config.allow_global_per_layer_attribute_access = True
    own = {k: v for k, v in small.items() if getattr(config, k, None) is not None}
    own |= {k: SMALL[k] for k in ("bos_token_id", "eos_token_id", "pad_token_id") if hasattr(config, k)}
    for k, v in config.to_dict().items():
        if isinstance(v, float) and re.search("drop|pdrop", k): own[k] = 0.0
        if k in ("layer_types", "mlp_layer_types", "block_types", "layers_block_type") and isinstance(v, list):
            kinds = list(dict.fromkeys(v))
            own[k] = (kinds * 2)[:own.get("num_hidden_layers", 2)]
    own |= OWN.get(config.model_type, {})
    own = {k: v for k, v in own.items() if v is not None}
    for k in config.sub_configs:
        sub = getattr(config, k, None)
        if sub is not None: own[k] = {**shrunk(sub, variant).to_dict(), **own.get(k, {})}
    for _ in range(6):
        try: return type(config)(**own)
        except AttributeError as e:   # a value that follows from others
            key = re.search(r"property '(\w+)'", str(e))
            if not key or key[1] not in own: raise
            del own[key[1]]
    return type(config)(**own)


def build(kind):
    "A random small model of a type that runs the plain step"
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    wrong = None
    for variant in VARIANTS:
        try:
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(shrunk(AutoConfig.for_model(kind), variant)).float()
            if sum(p.numel() for p in model.parameters()) > 2e7: raise ValueError("stays large")
            ids = torch.tensor([[5, 6, 7, 8, 9]])
            model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss.backward()
            model.zero_grad()
            return model
        except Exception as e: wrong = wrong or e
    raise wrong


def rows():
    "Rows that share a beginning of two depths, and rows that do not"
    g = np.random.default_rng(0)
    stem = g.integers(5, VOCABULARY, 20).tolist()
    out = []
    for start, n, k in ((stem, 6, 4), (stem, 9, 9), (stem[:12], 7, 2), ([], 17, 8), ([], 5, 5)):
        ids = start + g.integers(5, VOCABULARY, n).tolist()
        out.append(dict(input_ids=ids, labels=[-100] * (len(ids) - k) + ids[len(ids) - k:]))
    return out


def check(model, rung):
    "Largest error of loss and gradients against the plain model, over other rows than those of the proof"
    import torch
    from torch.nn.functional import cross_entropy

    from segtune.training.proof import choose_step, gradient_error
    from segtune.training.step import StepCollator
    model.eval()
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    def grads(loss):
        found = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
        return {n: torch.zeros(()) if g is None else g for (n, _), g in zip(named, found)}
    n = max(len(r["input_ids"]) for r in rows())
    def stacked(f, fill): return torch.tensor([f(r) + [fill] * (n - len(r["input_ids"])) for r in rows()])
    ids, labels = (stacked(lambda r, k=k: r[k], fill) for k, fill in (("input_ids", 2), ("labels", -100)))
    mask = stacked(lambda r: [1] * len(r["input_ids"]), 0)
    logits = model(input_ids=ids, attention_mask=mask).logits
    plain = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
    expected = grads(plain)
    step, _ = choose_step(model, step=rung)
    batch = StepCollator(rung, 2, min_shared=4)(rows())
    loss = sum(model(**p, num_items_in_batch=len(batch["shift_labels"])).loss for p in batch["parts"])
    found = grads(loss)
    step.close()
    return max(abs(loss.item() - plain.item()) / plain.item(), gradient_error(found, expected))


def verdict(kind):
    "One row of the table"
    import torch
    from transformers.utils import logging

    from segtune.training.proof import choose_step
    warnings.simplefilter("ignore")
    logging.set_verbosity(50)
    torch.set_num_threads(1)
    try: model = build(kind)
    except BaseException as e: return dict(kind=kind, rung="not built", why=said(e))
    step, proof = choose_step(model)
    out = dict(kind=kind, rung=proof.rung, loss=proof.loss_error, grad=proof.gradient_error,
               why=proof.reasons[-1][1] if proof.reasons else "", seconds=proof.seconds)
    if step is None: return out
    step.close()
    for precision in (torch.float64, torch.float32):
        if precision == torch.float64 and hasattr(model, "set_experts_implementation"): model.set_experts_implementation("eager")
        try: out |= dict(error=check(model.to(precision), proof.rung), precision=str(precision).split(".")[1])
        except Exception as e: out["unchecked"] = said(e)
        if out.get("error", float("nan")) == out.get("error", float("nan")): break
    return out


def said(e): return f"{type(e).__name__}: {next(iter(str(e).splitlines()), '')}"[:110]


def in_process(kind, seconds=180):
    "A type that crashes or hangs ends only its own process"
    ask, answer = multiprocessing.Pipe(duplex=False)
    p = multiprocessing.Process(target=lambda: answer.send(verdict(kind)))
    p.start()
    answer.close()   # so that the end of the process is seen
    try: out = ask.recv() if ask.poll(seconds) else dict(kind=kind, rung="not built", why=f"runs longer than {seconds} s")
    except EOFError: out = dict(kind=kind, rung="not built", why="crashes")
    p.kill()
    p.join()
    return out


def table(found):
    "The rows as Markdown"
    order = ["share", "pack", "pad", "plain", "not built"]
    yield ", ".join(f"{sum(o['rung'] == r for o in found)} {r}" for r in order) + f" of {len(found)}.\n"
    yield "| type | rung | proof: loss | proof: gradients | checked | error | why not the rung above |\n|---|---|---|---|---|---|---|"
    for o in sorted(found, key=lambda o: (order.index(o["rung"]), o["kind"])):
        numbers = [f"{o[k]:.0e}" if k in o else "" for k in ("loss", "grad", "error")]
        cells = [o["kind"], o["rung"], *numbers[:2], o.get("precision", "") if numbers[2] else o.get("unchecked", ""), numbers[2], o["why"]]
        yield f"| {' | '.join(c.replace('|', '/') for c in cells)} |"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("types", nargs="*")
    p.add_argument("--write", action="store_true", help="put the table into benchmarks/RESULTS.md")
    a = p.parse_args()
    import torch
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    import segtune.training.proof  # noqa: F401  loaded once, before the processes fork
    found, start = [], time.time()
    for kind in a.types or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        found.append(in_process(kind))
        print(*(f"{v:.0e}" if isinstance(v, float) else v for v in found[-1].values()), flush=True)
    head = f"torch {torch.__version__}, transformers {transformers.__version__}, 2 cores, CPU only, {time.strftime('%Y-%m-%d')}, {time.time() - start:.0f} s.\n"
    text = "\n".join([head, *table(found)])
    print(text)
    if a.write: write("The rung of every model type", text)


def write(title, text):
    "Replace a section of RESULTS.md"
    path = Path(__file__).parent / "RESULTS.md"
    old = path.read_text(encoding="utf-8") if path.exists() else "# Results\n\nFigures made by the programs in this folder.\n"
    parts = [o for o in re.split(r"(?m)^(?=## )", old) if not o.startswith(f"## {title}\n")]
    path.write_text("".join(o.rstrip("\n") + "\n\n" for o in [*parts, f"## {title}\n\n{text}\n"]).rstrip("\n") + "\n", encoding="utf-8")


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    main()
