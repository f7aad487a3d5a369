"Merging: whatever was trained, the merged files answer as base model and adapter did, or nothing is written."
import json
import shutil
from itertools import product

import pytest

from segtune.models import bundled
from segtune.segments import ConfigError, DataError, RunError, SegtuneError
from segtune.tokenizer import load_tokenizer

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
torch.set_num_threads(1)

TINY = bundled("tiny")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


# ---- base models: llama and GPT-2, one table or two, two number formats

def make_base(where, family, tied, dtype="float32"):
    from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

    from segtune.training.model import load_base
    torch.manual_seed(0)
    if family == "llama":
        model = load_base(TINY, overrides_of_model_config=None if tied else dict(tie_word_embeddings=False))
        if not tied: model.lm_head.weight.data += .02 * torch.randn_like(model.lm_head.weight)
    else:
        config = GPT2Config(vocab_size=2048, n_positions=64, n_embd=32, n_layer=2, n_head=2, tie_word_embeddings=tied,
                            bos_token_id=None, eos_token_id=2, pad_token_id=0)
        model = GPT2LMHeadModel(config)
        model.transformer.wte.weight.data *= 20
    model.to(getattr(torch, dtype)).save_pretrained(where)
    for o in TOKENIZER: shutil.copy(TINY / o, where / o)
    assert AutoModelForCausalLM.from_pretrained(where).config.tie_word_embeddings is tied
    return where

@pytest.fixture(scope="session")
def base(tmp_path_factory):
    made = {}
    def get(family="llama", tied=True, dtype="float32"):
        key = (family, tied, dtype)
        if key not in made: made[key] = make_base(tmp_path_factory.mktemp("base") / "model", *key)
        return made[key]
    return get


# ---- adapters: random numbers in everything that training may change

def make_adapter(base, out, tokens=(), special_tokens=None, resize=False, **options):
    from segtune.training.adapters import adapt
    from segtune.training.model import load_base
    from segtune.training.saved import save_adapter
    from segtune.training.vocabulary import resize_vocabulary
    tok = load_tokenizer(base, special_tokens, tokens)
    model = load_base(base, **{k: options.pop(k) for k in ("overrides_of_model_config", "torch_dtype") if k in options})
    new = resize_vocabulary(model, tok, load_tokenizer(base), resize_token_embeddings_to_32x=resize)
    model = adapt(model, **{"lora_r": 4, **options}, new_tokens=new)
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad: p += (.05 * torch.randn(p.shape, generator=g)).to(p.dtype)
    save_adapter(model, base, tok, out)
    return model.eval(), tok

def ids_of(tok): return torch.tensor([[1, 5, 77, 1500, *tok.backend.encode("what is red?").ids, *sorted(tok.backend.get_vocab(True).values())[-3:]]])

def logits(model, ids):
    with torch.inference_mode(): return model.eval()(ids).logits.float()

def plain(out):
    "The directory as any other program reads it"
    from transformers import AutoModelForCausalLM, AutoTokenizer
    return AutoModelForCausalLM.from_pretrained(out, dtype="float32"), AutoTokenizer.from_pretrained(out)

def check(base, tmp_path, moves=True, **how):
    from segtune.training.load import load_adapter
    from segtune.training.merge import merge
    from segtune.training.model import load_base
    model, tok = make_adapter(base, tmp_path / "adapter", **how)
    ids = ids_of(tok)
    want = logits(model, ids)
    loaded, _ = load_adapter(tmp_path / "adapter")
    assert torch.allclose(logits(loaded, ids), want, atol=1e-4)
    if moves:
        plain_base = load_base(base)
        known = ids[ids < plain_base.get_input_embeddings().weight.shape[0]][None]
        assert not torch.allclose(logits(model, known)[..., :2048], logits(plain_base, known)[..., :2048], atol=.01)
    merged, other = plain(merge(tmp_path / "adapter", tmp_path / "merged", log=lambda o: None))
    assert torch.allclose(logits(merged, ids), want, atol=2e-3)
    head, table = merged.get_output_embeddings().weight, merged.get_input_embeddings().weight
    assert head.shape == table.shape and table.shape[0] > max(other.get_vocab().values())
    assert (head is table) is merged.config.tie_word_embeddings
    return merged, other


LLAMA = {"q": ["q_proj"], "q, embedding": ["q_proj", "embed_tokens"], "q, head": ["q_proj", "lm_head"], "both": ["embed_tokens", "lm_head"]}
GPT2 = {"attention": ["c_attn"], "attention, embedding": ["c_attn", "wte"], "attention, head": ["c_attn", "lm_head"]}
SAVED = [None, ["embed_tokens"], ["lm_head"], ["embed_tokens", "lm_head"]]

@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("targets", LLAMA)
@pytest.mark.parametrize("kind", [{}, dict(peft_use_dora=True), dict(peft_use_rslora=True)], ids=["lora", "dora", "rslora"])
def test_lora_anywhere_merges_to_the_same_answers(base, tmp_path, tied, targets, kind):
    merged, _ = check(base(tied=tied), tmp_path, lora_target_modules=LLAMA[targets], **kind)
    assert merged.config.tie_word_embeddings is (tied and targets == "q")

@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("saved", SAVED[1:], ids=str)
def test_layers_saved_whole_merge_to_the_same_answers(base, tmp_path, tied, saved):
    merged, _ = check(base(tied=tied), tmp_path, lora_target_modules=["v_proj"], lora_modules_to_save=saved)
    assert not merged.config.tie_word_embeddings

@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("how", [dict(lora_target_modules=o) for o in LLAMA.values()] + [dict(lora_target_modules=["q_proj"], lora_modules_to_save=o) for o in SAVED[1:]], ids=str)
def test_rows_of_new_tokens_merge_to_the_same_answers(base, tmp_path, tied, how):
    merged, tok = check(base(tied=tied), tmp_path, tokens=["<|note|>", "<|more|>"], **how)
    assert tok.convert_tokens_to_ids("<|more|>") == 2049 < merged.config.vocab_size

@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("targets", GPT2)
@pytest.mark.parametrize("fan", [None, True], ids=["found out", "given"])
def test_layers_that_store_weights_input_first_merge_to_the_same_answers(base, tmp_path, tied, targets, fan):
    check(base("gpt2", tied), tmp_path, lora_target_modules=GPT2[targets], lora_fan_in_fan_out=fan)

@pytest.mark.parametrize("how", [dict(peft_layers_to_transform=[1]), dict(peft_init_lora_weights="gaussian"), dict(peft_init_lora_weights="orthogonal"), dict(peft_init_lora_weights="pissa"),
                                 dict(peft_init_lora_weights="olora"), dict(resize=True, tokens=["<|note|>"]), dict(overrides_of_model_config=dict(rope_scaling=dict(type="linear", factor=4.0))),
                                 dict(overrides_of_model_config=dict(tie_word_embeddings=False))], ids=str)
def test_options_of_the_adapter_are_kept_until_merged(base, tmp_path, how):
    merged, _ = check(base(), tmp_path, lora_target_modules=["q_proj", "up_proj"], **how)
    if "resize" in how: assert merged.config.vocab_size == 2080
    if "rope_scaling" in how.get("overrides_of_model_config", {}): assert merged.config.rope_parameters["factor"] == 4.0

def test_a_pattern_of_targets_merges(base, tmp_path): check(base(), tmp_path, lora_target_modules=r".*layers\.[02]\..*(q|up)_proj")


# ---- number formats

def stored(out):
    from safetensors.torch import load_file
    return {str(o.dtype).removeprefix("torch.") for o in load_file(out / "model.safetensors").values()}

@pytest.mark.parametrize("base_dtype, dtype, want", [("bfloat16", None, "bfloat16"), ("bfloat16", "auto", "bfloat16"), ("float32", "auto", "float32"), ("float16", "auto", "float16"),
                                                     *product(["bfloat16"], ["float32", "fp32"], ["float32"]), ("float32", "bf16", "bfloat16"), ("float32", "float16", "float16")])
def test_the_number_format_is_the_bases_or_the_one_asked_for_and_rounding_is_said(base, tmp_path, base_dtype, dtype, want):
    from segtune.training.merge import merge
    said = []
    model, tok = make_adapter(base(dtype=base_dtype), tmp_path / "a", lora_target_modules=["q_proj", "up_proj"])
    out = merge(tmp_path / "a", tmp_path / "m", dtype=dtype, log=said.append)
    assert stored(out) == {want} and json.loads((out / "config.json").read_text())["dtype"] == want
    rounded = [o for o in said if "rounded" in o]
    assert len(rounded) == (want != "float32") and all(f"rounded to {want}" in o for o in rounded)
    gap = (logits(plain(out)[0], ids_of(tok)) - logits(model, ids_of(tok))).abs().max().item()
    assert gap < 1e-4 if want == "float32" else 0 < gap < .5

def test_an_unknown_number_format_is_named(base, tmp_path):
    from segtune.training.merge import merge
    make_adapter(base(), tmp_path / "a", lora_target_modules=["q_proj"])
    with pytest.raises(ConfigError, match="dtype: expected float32, bfloat16, float16 or auto, got 'int8'"): merge(tmp_path / "a", tmp_path / "m", dtype="int8")
    assert not (tmp_path / "m").exists()

def test_numbers_that_do_not_fit_the_format_are_an_error(base, tmp_path):
    from segtune.training.merge import merge
    make_adapter(base(), tmp_path / "a", lora_target_modules=["q_proj"], lora_alpha=4e9)
    with pytest.raises(RunError, match=r"float16 cannot hold|otherwise"): merge(tmp_path / "a", tmp_path / "m", dtype="float16", log=lambda o: None)
    assert [o.name for o in tmp_path.iterdir()] == ["a"]


# ---- tokenizer, config and generation settings agree

@pytest.mark.parametrize("special", [dict(eos_token="<|stop|>"), dict(pad_token="<|fill|>"), dict(bos_token="<|go|>", eos_token="<|stop|>", pad_token="<|fill|>"), dict(pad_token="<|im_end|>"), {}], ids=str)
@pytest.mark.parametrize("whole", [False, True], ids=["merged", "trained whole"])
def test_tokenizer_config_and_generation_config_name_the_same_ids(base, tmp_path, special, whole):
    from transformers import GenerationConfig

    from segtune.training.merge import merge
    make_adapter(base(), tmp_path / "a", special_tokens=special, **(dict(adapter=None) if whole else dict(lora_target_modules=["q_proj"])))
    out = tmp_path / "a" if whole else merge(tmp_path / "a", tmp_path / "m", log=lambda o: None)
    model, tok = plain(out)
    conf = GenerationConfig.from_pretrained(out)
    for role in ("bos", "eos", "pad"):
        i = getattr(tok, f"{role}_token_id")
        assert getattr(model.config, f"{role}_token_id") == i == getattr(conf, f"{role}_token_id") or i is None
        if f"{role}_token" in special: assert tok.convert_ids_to_tokens(i) == special[f"{role}_token"]
    assert model.get_input_embeddings().weight.shape[0] >= len(tok) == 1 + max(tok.get_vocab().values())
    assert torch.isfinite(logits(model, torch.tensor([[len(tok) - 1, 5]]))).all()

def test_several_ids_that_end_an_answer_stay(base, tmp_path):
    from segtune.training.merge import merge
    several = shutil.copytree(base(), tmp_path / "base")
    (several / "generation_config.json").write_text(json.dumps(dict(eos_token_id=[0, 1], pad_token_id=0, temperature=.6)))
    make_adapter(several, tmp_path / "a", lora_target_modules=["q_proj"])
    said = []
    out = merge(tmp_path / "a", tmp_path / "m", log=said.append)
    conf = json.loads((out / "generation_config.json").read_text())
    assert conf["eos_token_id"] == [0, 1, 2] and conf["temperature"] == .6
    assert any("generation_config.eos_token_id: [0, 1] -> [0, 1, 2]" in o for o in said)


# ---- directories

def names(d): return sorted(o.name for o in d.iterdir())

def test_a_checkpoint_merges_as_its_run_does(tmp_path):
    import datasets

    from segtune.training.load import load_adapter
    from segtune.training.merge import merge
    from segtune.training.run import train
    tok = load_tokenizer(TINY, dict(pad_token="<|fill|>"), ["<|note|>"])
    ids = tok.backend.encode("<|note|>Question: what is red?").ids
    data = datasets.Dataset.from_dict(dict(input_ids=[ids], labels=[ids]))
    train(TINY, data, output_dir=tmp_path / "run", tokens=["<|note|>"], special_tokens=dict(pad_token="<|fill|>"), lora_target_linear=True, max_steps=2, save_steps=1,
          learning_rate=1e-2, warmup_steps=0, lr_scheduler="constant", log=lambda o: None)
    for d in (tmp_path / "run/checkpoint-2", tmp_path / "run"):
        model, tok = load_adapter(d)
        merged, _ = plain(merge(d, tmp_path / f"merged-{d.name}", log=lambda o: None))
        assert torch.allclose(logits(model, ids_of(tok)), logits(merged, ids_of(tok)), atol=1e-3)
    assert torch.equal(*(logits(plain(tmp_path / f"merged-{o}")[0], ids_of(tok)) for o in ("run", "checkpoint-2")))

def test_a_merge_that_fails_leaves_nothing_in_the_way(base, tmp_path, monkeypatch):
    from segtune.training import merge as page
    make_adapter(base(), tmp_path / "a", lora_target_modules=["q_proj", "embed_tokens"])
    for name, error in (("save_tokenizer", OSError(28, "No space left on device")), ("untie", KeyboardInterrupt()), ("load_base", ConfigError("no"))):
        with monkeypatch.context() as m:
            def fail(*args, error=error, **how): raise error
            m.setattr(page, name, fail)
            with pytest.raises((SegtuneError, KeyboardInterrupt)): page.merge(tmp_path / "a", tmp_path / "m", log=lambda o: None)
        assert names(tmp_path) == ["a"]
    (tmp_path / "m").mkdir()
    page.merge(tmp_path / "a", tmp_path / "m", log=lambda o: None)
    assert names(tmp_path) == ["a", "m"]

def test_a_wrong_merge_is_found_out_and_taken_away(base, tmp_path, monkeypatch):
    from segtune.training import merge as page
    make_adapter(base(), tmp_path / "a", lora_target_modules=["q_proj", "embed_tokens"])
    monkeypatch.setattr(page, "untie", lambda model: False)
    with pytest.raises(RunError, match=r"answers otherwise than base model and adapter.*Nothing was written"): page.merge(tmp_path / "a", tmp_path / "m", log=lambda o: None)
    assert names(tmp_path) == ["a"]

def test_files_that_do_not_hold_the_merged_weights_are_found_out(base, tmp_path, monkeypatch):
    from transformers import PreTrainedModel

    from segtune.training import merge as page
    make_adapter(base(), tmp_path / "a", lora_target_modules=["q_proj"])
    real = PreTrainedModel.save_pretrained
    def spoil(self, out, *args, **how):
        self.get_input_embeddings().weight.data[5] += 1
        real(self, out, *args, **how)
        self.get_input_embeddings().weight.data[5] -= 1
    monkeypatch.setattr(PreTrainedModel, "save_pretrained", spoil)
    with pytest.raises(RunError, match="the files do not hold what was merged"): page.merge(tmp_path / "a", tmp_path / "m", log=lambda o: None)
    assert names(tmp_path) == ["a"]

def test_what_cannot_be_merged_is_refused_at_once(base, tmp_path):
    from segtune.training.merge import merge
    make_adapter(base(), tmp_path / "a", lora_target_modules=["q_proj"])
    make_adapter(base(), tmp_path / "whole", adapter=None)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    soft = shutil.copytree(tmp_path / "a", tmp_path / "soft")
    conf = json.loads((soft / "adapter_config.json").read_text())
    (soft / "adapter_config.json").write_text(json.dumps({**conf, "peft_type": "PROMPT_TUNING"}))
    nameless = shutil.copytree(tmp_path / "a", tmp_path / "nameless")
    (nameless / "adapter_config.json").write_text(json.dumps({**conf, "base_model_name_or_path": None}))
    bare = shutil.copytree(tmp_path / "a", tmp_path / "bare")
    (bare / "adapter_model.safetensors").unlink()
    broken = shutil.copytree(tmp_path / "a", tmp_path / "broken")
    (broken / "adapter_config.json").write_text("{")
    for path, why in (("whole", "a whole model, which needs no merging"), ("empty", "holds no adapter to merge"), ("soft", "type PROMPT_TUNING"), ("nameless", "names no base model"),
                      ("bare", "holds no weights of an adapter"), ("broken", "cannot be read"), ("nowhere", "holds no adapter")):
        with pytest.raises(SegtuneError, match=why): merge(tmp_path / path, tmp_path / "m")
        assert not (tmp_path / "m").exists()
    with pytest.raises(RunError, match="is not empty"): merge(tmp_path / "a", tmp_path / "a")
    with pytest.raises(RunError, match="is a file"): merge(tmp_path / "a", tmp_path / "file")

def test_another_models_tokenizer_beside_an_adapter_is_refused(base, tmp_path):
    from segtune.training.load import load_adapter
    from segtune.training.merge import merge
    make_adapter(base(), tmp_path / "a", lora_target_modules=["q_proj"])
    for o in TOKENIZER: shutil.copy(bundled("mistral-v0.1") / o, tmp_path / "a" / o)
    for f in (load_adapter, lambda d: merge(d, tmp_path / "m")):
        with pytest.raises(RunError, match="its tokenizer is not the one of the base model"): f(tmp_path / "a")
    assert not (tmp_path / "m").exists()

def test_tokens_without_a_row_are_refused(base, tmp_path):
    from segtune.training.merge import merge
    from segtune.training.saved import save_tokenizer
    make_adapter(base(), tmp_path / "a", lora_target_modules=["q_proj"])
    save_tokenizer(base(), load_tokenizer(base(), tokens=["<|a|>", "<|b|>"]), tmp_path / "a")
    with pytest.raises(RunError, match="has 2 tokens, from id 2048, for which neither the base model nor the adapter has a row"): merge(tmp_path / "a", tmp_path / "m")

def test_an_adapter_without_record_or_tokenizer_merges_over_its_base(base, tmp_path):
    from segtune.training.merge import merge
    model, tok = make_adapter(base(), tmp_path / "a", lora_target_modules=["q_proj", "lm_head"])
    for o in (*TOKENIZER, "segtune.json"): (tmp_path / "a" / o).unlink()
    merged, _ = plain(merge(tmp_path / "a", tmp_path / "m", log=lambda o: None))
    assert torch.allclose(logits(merged, ids_of(tok)), logits(model, ids_of(tok)), atol=1e-3)

def test_an_adapter_of_another_shape_is_refused(base, tmp_path):
    from segtune.training.load import load_adapter
    from segtune.training.merge import merge
    make_adapter(base(), tmp_path / "a", lora_target_modules=["q_proj"])
    for f in (lambda: load_adapter(tmp_path / "a", base("gpt2")), lambda: merge(tmp_path / "a", tmp_path / "m", base_model=base("gpt2"))):
        with pytest.raises(RunError, match="does not fit the base model"): f()
    assert not (tmp_path / "m").exists()

def test_a_tokenizer_of_its_own_is_saved_and_merged(tmp_path):
    from segtune.training.adapters import adapt
    from segtune.training.merge import merge
    from segtune.training.model import load_base
    from segtune.training.saved import save_adapter
    other = tmp_path / "other"
    other.mkdir()
    for o in TOKENIZER: shutil.copy(TINY / o, other / o)
    conf = json.loads((other / "tokenizer_config.json").read_text())
    (other / "tokenizer_config.json").write_text(json.dumps({**conf, "eos_token": "<|endoftext|>", "pad_token": "<|im_end|>"}))
    tok = load_tokenizer(other)
    save_adapter(adapt(load_base(TINY), lora_target_modules=["q_proj"]), TINY, tok, tmp_path / "a")
    assert load_tokenizer(tmp_path / "a").eos == "<|endoftext|>"
    model, tok = plain(merge(tmp_path / "a", tmp_path / "m", log=lambda o: None))
    assert tok.eos_token == "<|endoftext|>" and model.config.eos_token_id == tok.eos_token_id == model.generation_config.eos_token_id


# ---- what the model can read, and what adapters can be asked for

def test_rows_the_model_cannot_read_are_named_before_the_first_step(base, tmp_path):
    import datasets

    from segtune.training.run import train
    def run(ids, name="llama", **how):
        data = datasets.Dataset.from_dict(dict(input_ids=ids, labels=ids))
        return train(base(name), data, output_dir=tmp_path / "out", lora_target_modules=["q_proj" if name == "llama" else "c_attn"], max_steps=1, log=lambda o: None, **how)
    with pytest.raises(DataError, match="token id 2048 is beyond the vocabulary of the model, which has rows for 2,048 ids"): run([[5, 6], [7, 2048]])
    with pytest.raises(DataError, match=r"^row 1 \(from 0\) has 513 tokens, and the model has positions for 512. Fix: set sequence_len: 512"): run([[5, 6], [7] * 513])
    with pytest.raises(DataError, match=r"row 0 \(from 0\) has 65 tokens, and the model has positions for 64"): run([[7] * 65], "gpt2")
    held = datasets.Dataset.from_dict(dict(input_ids=[[5] * 600], labels=[[5] * 600]))
    with pytest.raises(DataError, match=r"held-out row 0 \(from 0\) has 600 tokens"): run([[5, 6]], eval_set=held)
    run([[7] * 513], overrides_of_model_config=dict(rope_scaling=dict(type="linear", factor=2.0)))

def test_prompts_the_model_cannot_read_are_named_before_generation(base, tmp_path):
    from segtune.training.generate import generate
    from segtune.training.load import load_adapter
    make_adapter(base("gpt2"), tmp_path / "a", lora_target_modules=["c_attn"])
    model, tok = load_adapter(tmp_path / "a")
    assert len(generate(model, tok, [[5] * 62], max_new_tokens=2)) == 1
    with pytest.raises(DataError, match=r"the prompt with an answer of 2 has 65 tokens, and the model has positions for 64. Fix: shorten the prompt or ask for fewer"): generate(model, tok, [[5] * 63], max_new_tokens=2)
    with pytest.raises(DataError, match=r"prompt 1 \(from 0\) is empty"): generate(model, tok, [[5], []], max_new_tokens=2)
    with pytest.raises(DataError, match="token id 5000 is beyond"): generate(model, tok, [[5000]], max_new_tokens=2)

@pytest.mark.parametrize("how", [dict(max_new_tokens=0), dict(max_new_tokens=-1), dict(max_new_tokens=1.5), dict(temperature=-.1), dict(temperature=float("nan")), dict(temperature=float("inf")),
                                 dict(top_p=0), dict(top_p=1.1), dict(seed=-4), dict(seed=2**40), dict(batch_size=0)], ids=str)
def test_numbers_that_mean_nothing_are_refused_before_generation(base, tmp_path, how):
    from segtune.training.generate import generate
    from segtune.training.model import load_base
    with pytest.raises(ConfigError, match=f"{next(iter(how))}: expected"): generate(load_base(TINY), load_tokenizer(TINY), [[5]], **how)

def test_running_out_of_memory_is_one_sentence(monkeypatch):
    from segtune.training.generate import generate
    from segtune.training.model import load_base
    model = load_base(TINY)
    for error in (torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), MemoryError()):
        def fail(*args, error=error, **how): raise error
        monkeypatch.setattr(model, "generate", fail)
        with pytest.raises(RunError, match=r"out of memory while generating. Fix: answer fewer prompts together"): generate(model.train(), load_tokenizer(TINY), [[5]])
        assert model.training

@pytest.mark.parametrize("how, field", [
    (dict(lora_modules_to_save=["embed_token"]), "lora_modules_to_save: .*Did you mean 'embed_tokens'"), (dict(lora_modules_to_save=["lm_heat"]), "lora_modules_to_save: .*Did you mean 'lm_head'"),
    (dict(lora_target_modules=["q_prj"]), "lora_target_modules: .*Did you mean 'q_proj'"), (dict(lora_target_modules=r".*\.qproj"), "lora_target_modules: the regular expression .* matches no whole name"),
    (dict(lora_target_modules="q_proj"), r"write \[q_proj\]"), (dict(lora_target_modules="(q"), "no regular expression"), (dict(lora_target_parameters=["up_proj.weigt"]), "lora_target_parameters: .*'up_proj.weight'"),
    (dict(lora_target_parameters=["up_proj.weight"], lora_dropout=.1), "lora_dropout: "), (dict(peft_layers_to_transform=[9]), "peft_layers_to_transform: the model has layers 0 to 3"),
    (dict(lora_target_modules=".*q_proj", peft_layers_to_transform=[1]), "peft_layers_to_transform: "), (dict(peft_init_lora_weights="corda"), "peft_init_lora_weights: expected"),
    (dict(lora_r=0), "lora_r: expected at least 1, got 0."), (dict(lora_target_modules=["act_fn"]), "peft cannot make this adapter")], ids=lambda o: str(o)[:50])
def test_what_the_adapter_cannot_be_is_said_under_its_own_key(how, field):
    from segtune.training.adapters import adapt
    from segtune.training.model import load_base
    with pytest.raises(ConfigError, match=field): adapt(load_base(TINY), **{"lora_target_modules": ["q_proj"], **how})

def test_going_on_from_an_adapter_keeps_what_it_is(base, tmp_path):
    from segtune.training.adapters import adapt
    from segtune.training.model import load_base
    from segtune.training.vocabulary import resize_vocabulary
    make_adapter(base(), tmp_path / "a", lora_target_modules=["q_proj"])
    make_adapter(base(), tmp_path / "b", lora_target_modules=["q_proj"], tokens=["<|note|>"])
    def go_on(name, tokens=(), **how):
        model, tok = load_base(base()), load_tokenizer(base(), tokens=tokens)
        return adapt(model, lora_model_dir=tmp_path / name, new_tokens=resize_vocabulary(model, tok, load_tokenizer(base())), **how)
    for how in (dict(lora_r=8), dict(lora_alpha=32), dict(peft_use_dora=True), dict(lora_target_modules=["v_proj"]), dict(lora_modules_to_save=["lm_head"])):
        with pytest.raises(ConfigError, match=f"{next(iter(how))}: is .*, and the adapter in lora_model_dir has"): go_on("a", **how)
    go_on("a", lora_r=4, lora_alpha=16, lora_target_modules=["q_proj"])
    with pytest.raises(ConfigError, match="tokens: the adapter in lora_model_dir has no trained rows for 1 new token"): go_on("a", ["<|note|>"])
    trained = {n for n, p in go_on("b", ["<|note|>"]).named_parameters() if p.requires_grad}
    assert any("trainable_tokens" in o for o in trained)

def test_options_of_lora_without_an_adapter_are_said(tmp_path):
    import datasets

    from segtune.training.run import train
    said = []
    data = datasets.Dataset.from_dict(dict(input_ids=[[5, 6]], labels=[[5, 6]]))
    train(TINY, data, output_dir=tmp_path, adapter=None, lora_r=4, lora_target_linear=True, max_steps=1, save_steps=0, log=said.append)
    assert any("every weight is trained, and lora_r, lora_target_linear have no effect. Fix: set adapter: lora." in o for o in said)

@pytest.mark.parametrize("name", ["segtune/tiny", "bundled:tiny"])
def test_a_bundled_model_can_be_named(tmp_path, name):
    from segtune.training.merge import merge
    from segtune.training.model import load_base
    assert load_base(name).config.vocab_size == load_tokenizer(name).backend.get_vocab_size()
    make_adapter(name, tmp_path / "a", lora_target_modules=["q_proj"])
    assert plain(merge(tmp_path / "a", tmp_path / "m", log=lambda o: None))[1].eos_token == "<|im_end|>"
    with pytest.raises(ConfigError, match="does not come with segtune"): load_base(name.replace("tiny", "tniy"))
