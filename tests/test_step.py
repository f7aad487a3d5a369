"The cheap steps: every rung gives the plain loss and the plain gradients, and no rung is used that does not."
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segtune.segments import ConfigError
from segtune.training.trie import batch_cost, best_fit, cut_row, make_pack, make_packs, seen_until, visible

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
torch.set_num_threads(1)

from segtune.training import fused as fused_module
from segtune.training import loss, pieces
from segtune.training.attention import attend_chunks, attend_flex
from segtune.training.fused import FusedLora
from segtune.training.loss import chunked_loss, find_head
from segtune.training.pieces import AttentionCall, PackMask, attend_pieces, kernel_only
from segtune.training.proof import choose_step, gradient_error
from segtune.training.step import StepCollator, find_lm, remove_step, rungs

VOCABULARY = 96


# ---- bins

@given(st.lists(st.integers(1, 60), max_size=60), st.integers(1, 80))
@settings(max_examples=200, deadline=None)
def test_bins_hold_every_item_once_and_never_too_much(sizes, capacity):
    bins = best_fit(sizes, capacity)
    assert sorted(i for b in bins for i in b) == list(range(len(sizes)))
    assert all(len(b) == 1 or sum(sizes[i] for i in b) <= capacity for b in bins)
    assert bins == best_fit(list(sizes), capacity)

@given(st.lists(st.integers(1, 60), min_size=1, max_size=60))
@settings(max_examples=100, deadline=None)
def test_no_two_bins_would_fit_into_one(sizes):
    "Best fit opens a bin only where nothing has room, so two bins never fit into one"
    full = sorted(sum(sizes[i] for i in b) for b in best_fit(sizes, 60))
    assert len(full) < 2 or full[0] + full[1] > 60

def test_many_bins_are_found_fast():
    import time
    sizes = np.random.default_rng(0).integers(16, 2048, 60_000)
    start = time.process_time()
    bins = best_fit(sizes, 4096)
    assert time.process_time() - start < 5 and sum(sizes) / (4096 * len(bins)) > .99


# ---- the trie

@st.composite
def batches(draw):
    "Rows over three ids that often begin alike, with random labels, and a minimum to share"
    stems = draw(st.lists(st.lists(st.integers(0, 2), max_size=12), min_size=1, max_size=3))
    rows = []
    for _ in range(draw(st.integers(1, 7))):
        stem = draw(st.sampled_from(stems))
        ids = stem[:draw(st.integers(0, len(stem)))] + draw(st.lists(st.integers(0, 2), min_size=1, max_size=8))
        rows.append((ids, [i if draw(st.booleans()) else -100 for i in ids]))
    return rows, draw(st.integers(1, 6))

@given(batches(), st.booleans())
@settings(max_examples=400, deadline=None)
def test_a_packed_token_sees_its_own_row_and_nothing_else(batch, share):
    rows, min_shared = batch
    cut = [cut_row(*r) for r in rows]
    pack = make_pack(cut, share=share, min_shared=min_shared)
    mask, n = visible(pack), len(pack.ids)
    q, k = np.mgrid[:n, :n]
    assert n == 0 or (mask == ((k <= q) & (q < seen_until(pack.pieces, n)[k]))).all()
    for i, where in zip(pack.rows, pack.where):
        assert pack.ids[where].tolist() == cut[i][0].tolist() and pack.depths[where].tolist() == list(range(len(where)))
        for depth, place in enumerate(where): assert np.flatnonzero(mask[place]).tolist() == where[:depth + 1].tolist()
    counted = np.zeros_like(mask, int)
    for q0, q1, k0, k1, causal in pack.pieces: counted[q0:q1, k0:k1] += np.tri(q1 - q0, k1 - k0, dtype=int) if causal else 1
    assert counted.max(initial=0) <= 1, "a key must not be counted twice"
    assert {len(pack.ids)} == {sum(len(r[0]) for r in cut)} or share

@given(batches(), st.one_of(st.none(), st.integers(1, 40)), st.booleans())
@settings(max_examples=200, deadline=None)
def test_packs_train_every_trained_token_as_often_as_it_occurs(batch, budget, share):
    rows, min_shared = batch
    cut = [cut_row(*r) for r in rows]
    packs = make_packs(cut, budget, share, min_shared)
    wanted = sorted((i, d, int(t)) for i, (_, targets) in enumerate(cut) for d, t in enumerate(targets) if t != -100)
    found = []
    for p in packs:
        left = sorted(zip(p.index.tolist(), p.targets.tolist()))
        for i, w in zip(p.rows, p.where):
            for d, place in enumerate(w):
                if cut[i][1][d] != -100:
                    found.append((i, d, int(cut[i][1][d])))
                    left.remove((int(place), int(cut[i][1][d])))
        assert not left
    assert sorted(found) == wanted

def test_rows_with_nothing_in_common_cost_nothing_more():
    rng = np.random.default_rng(0)
    rows = [(ids, ids) for ids in (rng.integers(0, 9000, n).tolist() for n in (50, 80, 20))]
    cost = batch_cost(rows)
    assert cost.unique == cost.cut == 147 and cost.padded == 240 and cost.trained == 147


# ---- attention

@given(batches(), st.sampled_from([None, 3]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_way_to_attend_is_the_softmax_over_the_mask(batch, window, sinks):
    rows, min_shared = batch
    pack = make_pack([cut_row(*r) for r in rows], min_shared=min_shared)
    if not len(pack.ids): return
    depths = torch.tensor(pack.depths)
    n = int(depths.max()) + 1
    table = torch.ones(n, n).tril().bool()
    if window: table &= ~torch.ones(n, n).tril(-window).bool()
    mask = PackMask([tuple(o) for o in pack.pieces.tolist()], depths, table if window else None)
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, h, len(depths), 8, dtype=torch.float64, requires_grad=True) for h in (4, 2, 2))
    sink = torch.randn(4, dtype=torch.float64, requires_grad=True) if sinks else None
    scores = (q @ k.repeat_interleave(2, 1).transpose(-1, -2) * .3).masked_fill(~(torch.tensor(visible(pack)) & table[depths][:, depths]), -torch.inf)
    if sinks: scores = torch.cat([scores, sink.reshape(1, 4, 1, 1).expand(1, 4, len(depths), 1)], -1)
    expected = scores.softmax(-1)[..., :len(depths)] @ v.repeat_interleave(2, 1)
    wanted = [q, k, v, *([sink] if sinks else [])]
    grads = torch.autograd.grad(expected.square().sum(), wanted)
    for way in (attend_pieces, attend_chunks):
        out = way(AttentionCall(q, k, v, mask, .3, sink))
        assert torch.allclose(out, expected, atol=1e-12)
        for a, b in zip(torch.autograd.grad(out.square().sum(), wanted), grads): assert torch.allclose(a, b, atol=1e-11)
    was, pieces.block = pieces.block, 2
    try:
        small = PackMask(mask.pieces, depths, mask.rule)
        out = attend_pieces(AttentionCall(q, k, v, small, .3, sink))
        found = torch.autograd.grad(out.square().sum(), wanted)
    finally: pieces.block = was
    assert torch.allclose(out, expected, atol=1e-12), "by matrix products, two queries at a time"
    for a, b in zip(found, grads): assert torch.allclose(a, b, atol=1e-11)
    with kernel_only():
        out = attend_pieces(AttentionCall(q, k, v, mask, .3, sink))
        found = torch.autograd.grad(out.square().sum(), wanted)
    assert torch.allclose(out, expected, atol=1e-12), "by the kernel"
    for a, b in zip(found, grads): assert torch.allclose(a, b, atol=1e-11)
    if not sinks:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out = attend_flex(AttentionCall(*(o.detach() for o in (q, k, v)), mask, .3), compiled=False)
        assert torch.allclose(out, expected.detach(), atol=1e-5), "the mask for GPUs"

@pytest.mark.parametrize("lengths,blocks", [([100], 2), ([200], 4), ([60] * 3, 3), ([20] * 7, 3), ([64, 65, 3], 4)])
def test_short_rows_share_a_block_and_long_ones_have_several(monkeypatch, lengths, blocks):
    calls = []
    monkeypatch.setattr(pieces, "_weights", lambda *a, own=pieces._weights: calls.append(a[0].shape) or own(*a))
    ends = np.cumsum([0, *lengths]).tolist()
    mask = PackMask([(a, b, a, b, 1) for a, b in zip(ends, ends[1:])], torch.cat([torch.arange(n) for n in lengths]))
    q, k, v = (torch.randn(1, h, ends[-1], 8) for h in (4, 2, 2))
    found = attend_pieces(AttentionCall(q, k, v, mask, .3))
    for a, b in zip(ends, ends[1:]):
        plain = torch.nn.functional.scaled_dot_product_attention(*(o[:, :, a:b] for o in (q, k, v)), is_causal=True, scale=.3, enable_gqa=True)
        assert torch.allclose(found[:, :, a:b], plain, atol=1e-5)
    assert len(calls) == blocks

def test_weights_over_many_keys_are_made_again(monkeypatch):
    "Rows that share a beginning, with weights kept and with weights made again: the same gradients"
    pack = make_pack([cut_row(o, o) for o in ([1] * 40 + [i] * 30 for i in (2, 3, 4))], min_shared=8)
    q, k, v = (torch.randn(1, h, len(pack.ids), 8, dtype=torch.float64, requires_grad=True) for h in (4, 2, 2))
    found = []
    for most in (512, 16, 0):
        monkeypatch.setattr(pieces, "kept_keys", most)
        mask = PackMask([tuple(o) for o in pack.pieces.tolist()], torch.tensor(pack.depths))
        out = attend_pieces(AttentionCall(q, k, v, mask, .3))
        found.append(torch.autograd.grad(out.square().sum(), (q, k, v)))
    for other in found[1:]:
        for a, b in zip(found[0], other): assert torch.allclose(a, b, atol=1e-12)


# ---- the head, in tiles of the vocabulary

@given(st.integers(1, 9), st.integers(2, 40), st.integers(1, 50), st.booleans(), st.sampled_from([None, 3.0]))
@settings(max_examples=80, deadline=None)
def test_tiles_of_the_vocabulary_give_the_whole_cross_entropy(n, size, tile, biased, softcap):
    g = torch.Generator().manual_seed(n * size)
    weight, bias = torch.randn(size, 5, generator=g, dtype=torch.float64) * 9, torch.randn(size, generator=g, dtype=torch.float64)
    h = torch.randn(n, 5, generator=g, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, size, (n,), generator=g)
    logits = (h @ weight.t() + (bias if biased else 0)) * 1.5
    if softcap: logits = torch.tanh(logits / softcap) * softcap
    expected = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    was, loss.tile_size = loss.tile_size, tile
    try: found = loss._FrozenLoss.apply(h, targets, weight, bias if biased else None, loss.Head(None, True, 1.5, softcap))
    finally: loss.tile_size = was
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-10)
    assert torch.allclose(torch.autograd.grad(found, h)[0], torch.autograd.grad(expected, h)[0], atol=1e-9)


# ---- LoRA in one function with its layer

def lora_layer(dtype=torch.float32, **config):
    import peft
    torch.manual_seed(0)
    model = peft.get_peft_model(torch.nn.Sequential(torch.nn.Linear(24, 40)).to(dtype), peft.LoraConfig(r=4, target_modules=["0"], **config))
    for name, p in model.named_parameters():
        if "lora" in name: torch.nn.init.normal_(p, std=.3)
    return model

@pytest.mark.parametrize("tokens", [7, 70])
@pytest.mark.parametrize("by", ["either library", "one library"])
@pytest.mark.parametrize("dtype,close", [(torch.float64, 1e-10), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_a_fused_adapter_gives_the_result_and_the_gradients_of_peft(dtype, close, by, tokens, monkeypatch):
    if by == "one library": monkeypatch.setattr(fused_module, "_onednn", False)
    model = lora_layer(dtype)
    x = torch.randn(tokens, 3, 24, dtype=dtype).transpose(0, 1).requires_grad_()
    wanted = [x, *(p for p in model.parameters() if p.requires_grad)]
    def both():
        out = model(x)
        return [out, *torch.autograd.grad(out.float().square().sum(), wanted)]
    own = both()
    fused = FusedLora(model)
    mine = both()
    assert "_LoraLinear" in type(model(x).grad_fn.next_functions[0][0]).__name__ or "_LoraLinear" in type(model(x).grad_fn).__name__
    for a, b in zip(mine, own): assert a.dtype == b.dtype and a.shape == b.shape and (a - b).norm() <= close * b.norm()
    fused.close()
    assert "forward" not in model.base_model.model[0].__dict__

@pytest.mark.parametrize("case", ["dropout", "dora", "switched off", "merged", "two", "trained", "hook", "bias"])
def test_an_unusual_adapter_goes_the_way_of_peft(case):
    config = dict(dropout=dict(lora_dropout=.5), dora=dict(use_dora=True), bias=dict(lora_bias=True)).get(case, {})
    model = lora_layer(**config)
    layer = model.base_model.model[0]
    if case == "two":
        model.add_adapter("more", model.peft_config["default"])
        model.base_model.set_adapter(["default", "more"])
    if case == "switched off": model.base_model.disable_adapter_layers()
    if case == "merged": model.merge_adapter()
    if case == "trained": layer.base_layer.weight.requires_grad_(True)
    if case == "hook": layer.base_layer.register_forward_hook(lambda m, a, out: out * 2)
    x = torch.randn(3, 24)
    def once():
        torch.manual_seed(1)
        return model.train()(x)
    own = once()
    fused = FusedLora(model)
    assert torch.equal(once(), own), "bit for bit"
    fused.close()


# ---- models

def small(name, **more):
    "A random model of two layers, of any type of transformers"
    config = getattr(transformers, f"{name}Config")
    lm = getattr(transformers, {"GPT2": "GPT2LMHeadModel"}.get(name, f"{name}ForCausalLM"))
    shape = dict(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, bos_token_id=0, eos_token_id=1, pad_token_id=2)
    torch.manual_seed(0)
    return lm(config(**{**shape, **more}))

GROUPED = dict(intermediate_size=48, num_key_value_heads=2)
EXPERTS = dict(GROUPED, num_local_experts=4, num_experts_per_tok=2)
QUIET = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
MODELS = {
    "llama": ("share", lambda: small("Llama", **GROUPED)),
    "llama tied": ("share", lambda: small("Llama", tie_word_embeddings=True, **GROUPED)),
    "mistral window": ("share", lambda: small("Mistral", sliding_window=5, **GROUPED)),
    "qwen2": ("share", lambda: small("Qwen2", **GROUPED)),
    "qwen3": ("share", lambda: small("Qwen3", head_dim=8, **GROUPED)),
    "gemma2 soft caps": ("share", lambda: small("Gemma2", head_dim=8, sliding_window=5, **GROUPED)),
    "gpt2": ("share", lambda: small("GPT2", n_embd=32, n_layer=2, n_head=4, **QUIET)),
    "gpt2 dropout": ("pack", lambda: small("GPT2", n_embd=32, n_layer=2, n_head=4)),
    "gpt neox": ("share", lambda: small("GPTNeoX", intermediate_size=48)),
    "opt": ("share", lambda: small("OPT", ffn_dim=48, word_embed_proj_dim=32, dropout=0.0, max_position_embeddings=128)),
    "phi": ("share", lambda: small("Phi", intermediate_size=48)),
    "granite scales": ("share", lambda: small("Granite", logits_scaling=4.0, embedding_multiplier=3.0, **GROUPED)),
    "cohere": ("share", lambda: small("Cohere", logit_scale=0.5, **GROUPED)),
    "gpt oss sinks": ("share", lambda: small("GptOss", head_dim=8, sliding_window=6, **EXPERTS)),
    "mixtral": ("share", lambda: small("Mixtral", **EXPERTS)),
    "mixtral router": ("plain", lambda: small("Mixtral", output_router_logits=True, **EXPERTS)),
    "falcon": ("pad", lambda: small("Falcon")),
    "mamba": ("pad", lambda: small("Mamba", state_size=4)),
}

def rows_of(seed=0, shared=40):
    "Rows that share a beginning of two depths, rows that do not, one that is trained whole, one with nothing trained"
    g = np.random.default_rng(seed)
    stem = g.integers(3, VOCABULARY, shared).tolist()
    deeper = stem + g.integers(3, VOCABULARY, 35).tolist()
    rows = []
    for start, n, k in ((stem, 12, 5), (deeper, 4, 2), (deeper, 9, 9), (stem, 3, 1), ([], 20, 20), ([], 7, 3), ([], 5, 0), (stem, 0, 6)):
        ids = start + g.integers(3, VOCABULARY, n).tolist()
        rows.append(dict(input_ids=ids, labels=[-100] * (len(ids) - k) + ids[len(ids) - k:]))
    rows[1]["labels"][20] = rows[1]["input_ids"][20]   # trained amid the shared part, by one row only
    rows.append(dict(rows[0]))                         # twice the same row
    return rows

def padded(rows):
    n = max(len(r["input_ids"]) for r in rows)
    return dict(input_ids=torch.tensor([r["input_ids"] + [2] * (n - len(r["input_ids"])) for r in rows]),
                attention_mask=torch.tensor([[1] * len(r["input_ids"]) + [0] * (n - len(r["input_ids"])) for r in rows])), torch.tensor(
                    [r["labels"] + [-100] * (n - len(r["labels"])) for r in rows])

def plain(model, rows):
    "Loss and gradients the plain way, the cross-entropy in the model's own precision"
    inputs, labels = padded(rows)
    logits = model(**inputs).logits
    logits = logits[:, -labels.shape[1]:]
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
    return loss.item(), gradients(model, loss)

def gradients(model, loss):
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    return {n: torch.zeros(()) if g is None else g for (n, _), g in zip(named, torch.autograd.grad(loss, [p for _, p in named], allow_unused=True))}

def stepped(model, rung, rows, budget=60):
    batch = StepCollator(rung, 2, budget)(rows)
    loss = sum(model(**p, num_items_in_batch=len(batch["shift_labels"])).loss for p in batch["parts"])
    return loss.item(), gradients(model, loss)

def same(found, expected, tolerance):
    assert found[0] == pytest.approx(expected[0], rel=tolerance)
    assert gradient_error(found[1], expected[1]) < tolerance

@pytest.mark.parametrize("name", MODELS)
def test_the_rung_that_is_taken_and_what_it_computes(name):
    "On every rung that holds, in fp64 and fp32, over rows longer than those of the proof"
    expected, make = MODELS[name]
    model = make().eval()
    step, proof = choose_step(model)
    assert proof.rung == expected, str(proof)
    if step is None: return
    step.close()
    for kind, tolerance in ((torch.float32, 2e-5), (torch.float64, 1e-6)):
        if kind == torch.float64 and "gemma2" in name: continue   # its own attention gives NaN for padding in fp64
        model = make().to(kind).eval()
        if hasattr(model, "set_experts_implementation"): model.set_experts_implementation("eager")   # the default one knows no fp64
        wanted = plain(model, rows_of())
        for rung in rungs[rungs.index(expected):-1]:
            step, _ = choose_step(model, step=rung)
            same(stepped(model, rung, rows_of()), wanted, tolerance)
            step.close()

def test_half_precision_is_proved_with_a_tolerance_of_its_own():
    model = small("Llama", **GROUPED).to(torch.bfloat16)
    _, proof = choose_step(model)
    assert proof.rung == "share" and proof.gradient_error < 5e-2
    wanted = plain(model, rows_of())
    found = stepped(model, "share", rows_of())
    assert found[0] == pytest.approx(wanted[0], rel=5e-3) and gradient_error(found[1], wanted[1]) < 5e-2

@pytest.mark.parametrize("name", [n for n, (rung, _) in MODELS.items() if rung != "share"])
def test_half_precision_excuses_no_rung_that_is_wrong(name):
    expected, make = MODELS[name]
    step, proof = choose_step(make().to(torch.bfloat16).eval())
    assert rungs.index(proof.rung) >= rungs.index(expected), str(proof)
    if step is not None: step.close()

def deep(layers=16):
    return adapted(small("Llama", **{**GROUPED, "num_hidden_layers": layers}).to(torch.bfloat16).eval())

def test_half_precision_is_measured_by_what_the_plain_step_is_off_itself():
    model = deep()
    step, proof = choose_step(model)
    assert proof.rung == "share" and proof.gradient_error <= max(5e-2, proof.noise) and 0 < proof.noise <= .2
    assert f"where plain is {proof.noise:.0e} off itself" in str(proof)
    step.close()
    assert find_lm(model).config._attn_implementation == "sdpa" and all(p.grad is None for p in model.parameters())

def test_half_precision_asks_no_other_attention_of_a_model_that_has_one_only(monkeypatch):
    model, asked = small("Falcon").to(torch.bfloat16).eval(), []
    monkeypatch.setattr(model, "set_attn_implementation", asked.append)   # it would warn
    step, proof = choose_step(model)
    assert proof.rung == "pad" and proof.noise == 0.0 and asked == []
    step.close()

def test_single_precision_has_no_such_excuse():
    _, proof = choose_step(small("Llama", **GROUPED))
    assert proof.noise == 0.0 and "off itself" not in str(proof)

@pytest.mark.parametrize("by", [.5, .75, 1.5])
def test_a_wrong_gradient_is_refused_in_half_precision(by, monkeypatch):
    "The gradient of the values is planted wrong; loss and hidden states are right"
    import segtune.training.attention as attention
    own = attention.attend_pieces
    class Scaled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x): return x.view_as(x)
        @staticmethod
        def backward(ctx, g): return g*by
    monkeypatch.setattr(attention, "attend_pieces", lambda a: own(a._replace(v=Scaled.apply(a.v))))
    _, proof = choose_step(deep())
    assert proof.rung == "pad" and "gradients are off" in proof.reasons[-1][1], str(proof)

def adapted(model, **config):
    from peft import LoraConfig, get_peft_model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4, **{"target_modules": ["q_proj", "v_proj", "up_proj"], **config}))
    torch.manual_seed(1)
    for n, p in model.named_parameters():
        if "lora_B" in n or "lora_embedding_B" in n: torch.nn.init.normal_(p, std=.05)
    return model

ADAPTERS = {
    "linear layers": dict(),
    "every linear layer": dict(target_modules="all-linear"),
    "rslora": dict(use_rslora=True),
    "dora": dict(use_dora=True),
    "head": dict(target_modules=["q_proj", "lm_head"]),
    "embeddings": dict(target_modules=["q_proj", "embed_tokens"]),
    "embeddings and head": dict(target_modules=["embed_tokens", "lm_head"]),
    "head saved whole": dict(modules_to_save=["lm_head"]),
    "both saved whole": dict(modules_to_save=["embed_tokens", "lm_head"]),
    "token rows": dict(trainable_token_indices={"embed_tokens": [5, 6, 90]}),
    "token rows and head": dict(trainable_token_indices={"embed_tokens": [5, 6, 90], "lm_head": [5, 6, 90]}),
}

@pytest.mark.parametrize("tied", [False, True], ids=["", "tied"])
@pytest.mark.parametrize("name", ADAPTERS)
def test_every_adapter_gets_the_plain_gradients(name, tied):
    config = dict(ADAPTERS[name])
    if tied and "lm_head" in config.get("trainable_token_indices", {}): pytest.skip("tied: the rows of the embedding are those of the head")
    model = adapted(small("Llama", tie_word_embeddings=tied, **GROUPED), **config).to(torch.float64).eval()
    wanted = plain(model, rows_of())
    step, proof = choose_step(model)
    assert proof.rung == "share", str(proof)
    same(stepped(model, "share", rows_of()), wanted, 1e-6)
    step.close()
    step, _ = choose_step(model, step="pad")
    same(stepped(model, "pad", rows_of()), wanted, 1e-6)

@pytest.mark.parametrize("kind", ["PromptTuning", "PrefixTuning", "PromptEncoder"])
def test_soft_prompts_fall_to_the_rung_that_holds(kind):
    import peft
    model = peft.get_peft_model(small("Llama", **GROUPED), getattr(peft, f"{kind}Config")(task_type="CAUSAL_LM", num_virtual_tokens=4)).eval()
    wanted = plain(model, rows_of())
    step, proof = choose_step(model)
    assert proof.rung == "pad" and ("puts vectors before the rows" in str(proof) or "another length" in str(proof)), str(proof)
    same(stepped(model, "pad", rows_of()), wanted, 2e-5)
    step.close()

def test_dropout_turns_sharing_off_unless_it_is_asked_for():
    model = adapted(small("Llama", **GROUPED), lora_dropout=.1)
    step, proof = choose_step(model)
    assert proof.rung == "pack" and "dropout is on" in str(proof)
    step, proof = choose_step(model, step="share")
    assert proof.rung == step.rung == "share" and not proof.reasons
    step.close()
    step, proof = choose_step(small("Llama", attention_dropout=.1, **GROUPED))
    assert proof.rung == "pack", "dropout of attention weights is no module: it is seen when it is asked for"

def test_accumulation_adds_up_to_the_whole_batch():
    model, rows = small("Qwen2", **GROUPED).to(torch.float64).eval(), rows_of()
    wanted = plain(model, rows)
    _, _ = choose_step(model)
    deals = [StepCollator("share", 2)(rows[i:i + 2]) for i in range(0, len(rows), 2)]
    n = sum(len(b["shift_labels"]) for b in deals)
    loss = sum(model(**p, num_items_in_batch=n).loss for b in deals for p in b["parts"])
    same((loss.item(), gradients(model, loss)), wanted, 1e-6)

@pytest.mark.parametrize("rung", ["share", "pack", "pad"])
def test_activations_computed_twice_change_nothing(rung):
    model = small("Mistral", sliding_window=5, **GROUPED).to(torch.float64)
    wanted = plain(model.eval(), rows_of())
    _, _ = choose_step(model, step=rung)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=dict(use_reentrant=False))
    model.train()
    same(stepped(model, rung, rows_of()), wanted, 1e-6)

def test_without_gradients_the_loss_is_the_same_and_nothing_is_kept():
    model, rows = small("Gemma2", head_dim=8, **GROUPED).eval(), rows_of()
    step, _ = choose_step(model)
    with torch.inference_mode():
        batch = StepCollator("share", 2)(rows)
        loss = sum(model(**p, num_items_in_batch=len(batch["shift_labels"])).loss for p in batch["parts"])
    assert not loss.requires_grad
    step.close()
    assert loss.item() == pytest.approx(plain(model, rows)[0], rel=1e-5)

def test_a_batch_with_nothing_trained_still_goes_through():
    model = small("Llama", **GROUPED)
    for rung in rungs[:-1]:
        step, _ = choose_step(model, step=rung)
        batch = StepCollator(rung, 2)([dict(input_ids=[3, 4], labels=[-100, -100])])
        loss = sum(model(**p, num_items_in_batch=5).loss for p in batch["parts"])
        loss.backward()
        assert loss.item() == 0 and all(p.grad is None or not p.grad.any() for p in model.parameters())
        step.close()


# ---- traces, and what is refused

@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["llama", "mistral window", "gemma2 soft caps", "gpt oss sinks", "gpt2", "falcon"])
def test_other_calls_find_the_model_as_it_was(name, attention):
    "Generation, and a loss of the model's own, while a rung is installed and after"
    model = MODELS[name][1]().eval()
    if attention == "sdpa" and name in ("gemma2 soft caps", "gpt oss sinks"): pytest.skip("not implemented by the model")
    if attention == "eager" and name == "falcon": pytest.skip("cannot be exchanged")
    model.set_attn_implementation(attention)
    inputs, labels = padded(rows_of())
    def outcome():
        with torch.no_grad():
            return model(**inputs, labels=labels).logits, model.generate(inputs["input_ids"][4:5, :9], max_new_tokens=6, do_sample=False)
    expected = outcome()
    _, _ = choose_step(model)
    for _ in range(2):
        for a, b in zip(outcome(), expected): assert torch.equal(a, b)
        remove_step(model)
    assert model.config._attn_implementation == attention and "forward" not in model.__dict__

def test_a_proof_leaves_no_trace(tmp_path):
    model = adapted(small("Llama", **GROUPED), lora_dropout=.1).train()
    model.base_model.model.model.layers[0].eval()
    modes = [m.training for m in model.modules()]
    values = {n: p.clone() for n, p in model.named_parameters()}
    first = next(p for p in model.parameters() if p.requires_grad)
    first.grad = torch.ones_like(first)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    _, _ = choose_step(model)
    assert torch.equal(torch.rand(4), expected) and [m.training for m in model.modules()] == modes
    assert all(torch.equal(p, values[n]) for n, p in model.named_parameters()) and torch.equal(first.grad, torch.ones_like(first))
    assert all(p.grad is None for p in model.parameters() if p is not first)
    find_lm(model).save_pretrained(tmp_path)
    assert "segtune" not in (tmp_path / "config.json").read_text()
    remove_step(model)
    assert find_lm(model).config._attn_implementation == "sdpa"

def test_a_rung_that_does_not_hold_is_an_error_when_it_is_asked_for():
    for name, rung, said in (("falcon", "pack", "cannot be exchanged"), ("mamba", "share", "step: share does not hold"), ("mixtral router", "pad", "cross-entropy of its hidden states alone")):
        model = MODELS[name][1]()
        with pytest.raises(ConfigError, match="Set step: auto") as e: choose_step(model, step=rung)
        assert said in str(e.value) and "forward" not in model.__dict__
    assert choose_step(MODELS["mixtral router"][1](), step="plain")[1].rung == "plain"

class Leaky(torch.nn.Module):
    "Mixes into each token a part of the one before it, whatever row that is in"
    def __init__(self, inner, share): super().__init__(); self.inner, self.share = inner, share
    def forward(self, x, *args, **kwargs):
        out = self.inner(x, *args, **kwargs)
        return out + self.share * torch.nn.functional.pad(out, (0, 0, 1, 0))[:, :-1]

@pytest.mark.parametrize("leak", [.5, 1e-2, 1e-4])
def test_a_leak_into_the_next_row_is_found_however_small(leak):
    model = small("Llama", **GROUPED)
    model.model.layers[0].mlp = Leaky(model.model.layers[0].mlp, leak)
    _, proof = choose_step(model)
    assert proof.rung == "pad", str(proof)

def test_a_loss_with_another_part_in_training_is_left_alone():
    model = small("Llama", **GROUPED)
    own = model.loss_function
    model.loss_function = lambda *args, **kwargs: own(*args, **kwargs) + (.01 if model.training else 0)
    step, proof = choose_step(model)
    assert step is None and proof.rung == "plain" and "in training" in str(proof)

def test_a_model_that_looks_ahead_is_left_alone():
    _, proof = choose_step(small("Llama", is_causal=False, **GROUPED))
    assert proof.rung not in ("share", "pack"), str(proof)

@pytest.mark.parametrize("change", ["scale", "cap", "bias"])
def test_a_head_is_measured(change):
    model = small("Llama", **GROUPED).requires_grad_(False)
    if change == "bias": model.lm_head.bias = torch.nn.Parameter(torch.randn(VOCABULARY), requires_grad=False)
    if change != "bias":
        own = model.lm_head.forward
        model.lm_head.forward = (lambda h: own(h) * .7) if change == "scale" else (lambda h: torch.tanh(own(h) / 3) * 3)
    head, _ = find_head(model)
    assert head.frozen and (head.scale == pytest.approx({"scale": .7}.get(change, 1), rel=1e-4)) and (head.softcap == pytest.approx(3, rel=1e-4) if change == "cap" else head.softcap is None)
    h, t = torch.randn(300, 32, requires_grad=True), torch.randint(0, VOCABULARY, (300,))
    ways = [chunked_loss(model, head, h, t), torch.nn.functional.cross_entropy(head.own(h), t, reduction="sum")]
    a, b = (torch.autograd.grad(o, h)[0] for o in ways)
    assert ways[0].item() == pytest.approx(ways[1].item(), rel=1e-6) and torch.allclose(a, b, atol=1e-5)

def test_a_vocabulary_smaller_than_the_embedding_is_no_obstacle():
    "Rows that only the embedding has, as some models use for image tokens"
    model = small("Llama", **GROUPED)
    model.model.embed_tokens = torch.nn.Embedding(VOCABULARY + 40, 32)
    _, proof = choose_step(model)
    assert proof.rung == "share", str(proof)

def test_a_model_whose_plain_step_fails_is_left_alone():
    model = small("Llama", **GROUPED)
    model.loss_function = lambda *args, **kwargs: 1 / 0
    step, proof = choose_step(model)
    assert step is None and "the proof cannot be made, ZeroDivisionError" in str(proof)
    with pytest.raises(ConfigError, match="share does not hold"): choose_step(model, step="share")

def test_a_head_that_is_no_linear_map_is_run_as_it_is():
    model = small("Llama", **GROUPED).requires_grad_(False)
    own = model.lm_head.forward
    model.lm_head.forward = lambda h: own(h) + .1 * own(h).sin()
    head, _ = find_head(model)
    assert not head.frozen
    model.requires_grad_(True)
    wanted = plain(model.eval(), rows_of())
    _, proof = choose_step(model)
    same(stepped(model, proof.rung, rows_of()), wanted, 2e-5)


# ---- every type of model there is

@pytest.mark.slow
def test_no_type_of_model_takes_a_rung_that_is_wrong(monkeypatch):
    "Every causal type that can be built small, its rung against the plain model in fp64 over other rows than the proof's"
    import sys
    from pathlib import Path

    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    sys.modules.pop("model_types", None)
    import model_types
    found = [model_types.in_process(o) for o in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)]
    wrong = [o for o in found if o["rung"] in ("share", "pack", "pad") and not o.get("error", 1) < 2e-5]
    assert not wrong, wrong
    assert sum(o["rung"] == "share" for o in found) >= 85
