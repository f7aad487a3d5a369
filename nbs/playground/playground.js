// The playground page: text with trained and masked runs, its tokens, labels and laws, all made in this page.
"use strict";
(() => {
  const S = window.segtune, root = document.getElementById("playground");
  if (!S || !root) return;
  const home = new URL("../playground/", document.baseURI);
  const start = [["<s>Q: Capital of France?\nA:", false], [" Paris</s>", true]];
  const names = {"mistral-v0.1": "Mistral", gpt2: "GPT-2"};
  const state = {text: "", labels: [], vocabulary: "mistral-v0.1", boundary: "split"};
  const loaded = {};

  function element(tag, attributes = {}, ...children) {
    const o = document.createElement(tag);
    for (const [k, v] of Object.entries(attributes)) k in o ? o[k] = v : o.setAttribute(k, v);
    o.append(...children);
    return o;
  }

  // ---- what is trained: one label for each UTF-16 unit of the text

  function setRow(row) {
    state.text = row.map(o => o[0]).join("");
    state.labels = row.flatMap(([text, label]) => Array(text.length).fill(label));
  }

  function runs() {
    const out = [];
    state.labels.forEach((label, i) => {
      if (!out.length || out.at(-1).label !== label) out.push({start: i, end: i + 1, label});
      else out.at(-1).end = i + 1;
    });
    return out;
  }

  const row = () => runs().map(r => ({text: state.text.slice(r.start, r.end), label: r.label}));

  // A text was edited: what is new gets the label of what stands before it
  function edit(text) {
    const old = state.text, most = Math.min(old.length, text.length);
    let head = 0, tail = 0;
    while (head < most && old[head] === text[head]) head++;
    while (tail < most - head && old[old.length - 1 - tail] === text[text.length - 1 - tail]) tail++;
    const label = state.labels[head - 1] ?? state.labels[head] ?? false;
    const added = Array(text.length - head - tail).fill(label);
    state.labels = [...state.labels.slice(0, head), ...added, ...state.labels.slice(old.length - tail)];
    state.text = text;
  }

  // An edge never stands inside a character
  function snap(at) {
    const code = state.text.charCodeAt(at);
    return code >= 0xdc00 && code <= 0xdfff ? at + 1 : at;
  }

  function mark(from, to, label) { state.labels.fill(label, snap(from), snap(to)); }

  function moveEdge(n, to) {
    const all = runs(), before = all[n], after = all[n + 1];
    const at = snap(Math.max(before.start + 1, Math.min(after.end - 1, to)));
    mark(before.start, at, before.label);
    mark(at, after.end, after.label);
  }

  // ---- what is shown

  const visible = text => text.replaceAll(" ", "·").replaceAll("\n", "⏎").replaceAll("\t", "⇥");

  function tokenText(tok, t) {
    if (t.text.includes("\ufffd")) return Array.from(tok.bytes[t.id], b => `⟨${b.toString(16).toUpperCase()}⟩`).join("");
    return visible(t.added ? t.text.slice(1) : t.text);
  }

  function tokenBox(tok, t) {
    const kinds = ["row-token", t.trained ? "is-trained" : "is-masked", t.crosses && "is-crossing"];
    const box = element("span", {className: kinds.filter(Boolean).join(" ")});
    const text = element("span", {className: "row-text"});
    if (t.added) text.append(element("span", {className: "row-added", title: "a space that the tokenizer adds"}, "␣"));
    text.append(tokenText(tok, t));
    box.append(text, element("span", {className: "row-number"}, String(t.label)),
      element("span", {className: "row-number"}, String(t.id)));
    return box;
  }

  const says = {
    text: ["the tokens spell what one encoding of the whole text would", "the tokens spell something that is not in the text"],
    label: ["no token is half trained, half masked", "a token reaches across a label change"],
    prompt: ["a prompt encoded alone gives the same tokens", "a prompt encoded alone gives other tokens than in training"],
  };

  function lawLine(name, holds) {
    const line = element("li", {className: holds ? "law-holds" : "law-broken"});
    line.append(element("b", {}, `${name} law ${holds ? "holds" : "is broken"}`), `: ${says[name][holds ? 0 : 1]}`);
    return line;
  }

  function edgeHandle(n, at) {
    const handle = element("span", {className: "row-edge", tabIndex: 0, title: "drag, or use the arrow keys"});
    handle.setAttribute("role", "slider");
    handle.setAttribute("aria-label", `edge ${n + 1}, after ${at} characters`);
    handle.setAttribute("aria-valuenow", at);
    handle.addEventListener("pointerdown", e => drag(e, n));
    handle.addEventListener("keydown", e => {
      const step = {ArrowLeft: -1, ArrowRight: 1}[e.key];
      if (!step) return;
      e.preventDefault();
      const to = at + step, inside = state.text.charCodeAt(to) >= 0xdc00 && state.text.charCodeAt(to) <= 0xdfff;
      moveEdge(n, inside ? to + step : to);
      draw();
      parts.runs.querySelectorAll(".row-edge")[n]?.focus();
    });
    return handle;
  }

  function drawRuns() {
    const out = runs().flatMap((r, n) => {
      const run = element("span", {className: r.label ? "run is-trained" : "run is-masked"}, state.text.slice(r.start, r.end));
      run.dataset.start = r.start;
      return n ? [edgeHandle(n - 1, r.start), run] : [run];
    });
    parts.runs.replaceChildren(...out);
  }

  // The place in the text under the pointer
  function placeAt(x, y) {
    const found = document.caretPositionFromPoint?.(x, y), range = found ? null : document.caretRangeFromPoint?.(x, y);
    const node = found?.offsetNode ?? range?.startContainer, offset = found?.offset ?? range?.startOffset;
    const run = node?.parentElement?.closest?.(".run");
    return run && node.nodeType === Node.TEXT_NODE ? Number(run.dataset.start) + offset : null;
  }

  function drag(event, n) {
    event.preventDefault();
    const move = e => {
      const at = placeAt(e.clientX, e.clientY);
      if (at === null) return;
      moveEdge(n, at);
      draw();
    };
    const stop = () => {
      document.removeEventListener("pointermove", move);
      document.removeEventListener("pointerup", stop);
    };
    document.addEventListener("pointermove", move);
    document.addEventListener("pointerup", stop);
  }

  function draw() {
    drawRuns();
    const line = S.jsonl(row()), tok = loaded[state.vocabulary];
    parts.jsonl.textContent = line;
    if (!tok) return;
    const tokens = S.encode(tok, row(), state.boundary), laws = S.laws(tok, row(), tokens);
    parts.tokens.replaceChildren(...tokens.map(t => tokenBox(tok, t)));
    parts.laws.replaceChildren(...Object.keys(says).map(o => lawLine(o, laws[o])));
    const trained = tokens.filter(t => t.trained).length;
    parts.count.textContent = `${tokens.length} tokens, ${trained} trained, ${tokens.length - trained} masked`;
  }

  // ---- what a person does

  function choice(title, options, key, changed) {
    const group = element("fieldset", {className: "choice"}, element("legend", {}, title));
    for (const [value, text] of Object.entries(options)) {
      const input = element("input", {type: "radio", name: key, value, checked: state[key] === value});
      input.addEventListener("change", () => { state[key] = value; changed(); });
      group.append(element("label", {}, input, text));
    }
    return group;
  }

  function markButton(text, label) {
    const button = element("button", {type: "button"}, text);
    button.addEventListener("click", () => {
      mark(parts.text.selectionStart, parts.text.selectionEnd, label);
      draw();
    });
    return button;
  }

  async function copy(text, button) {
    try { await navigator.clipboard.writeText(text); }
    catch {
      getSelection().selectAllChildren(parts.jsonl);
      document.execCommand("copy");
    }
    button.textContent = "copied";
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  }

  function load() {
    const name = state.vocabulary;
    if (loaded[name]) return draw();
    parts.count.textContent = `reading the vocabulary of ${names[name]} …`;
    const script = element("script", {src: new URL(`${name}.js`, home).href});
    script.addEventListener("load", () => {
      loaded[name] = S.tokenizer(window.segtuneVocabularies[name]);
      draw();
    });
    document.head.append(script);
  }

  const parts = {
    text: element("textarea", {rows: 4, spellcheck: false, id: "playground-text"}),
    runs: element("div", {className: "row-runs", id: "playground-runs"}),
    tokens: element("div", {className: "row-tokens", id: "playground-tokens"}),
    laws: element("ul", {className: "row-laws", id: "playground-laws"}),
    jsonl: element("code", {id: "playground-jsonl"}),
    count: element("p", {className: "row-count", id: "playground-count"}),
  };
  parts.count.setAttribute("aria-live", "polite");
  parts.text.addEventListener("input", () => { edit(parts.text.value); draw(); });
  const copyButton = element("button", {type: "button", id: "playground-copy"}, "copy");
  copyButton.addEventListener("click", () => copy(parts.jsonl.textContent + "\n", copyButton));

  setRow(start);
  parts.text.value = state.text;
  root.replaceChildren(
    element("div", {className: "choices"},
      choice("Tokenizer", names, "vocabulary", load),
      choice("Boundary", {split: "split", whole: "whole", axolotl: "axolotl"}, "boundary", draw)),
    element("label", {htmlFor: "playground-text"}, "Text: type or paste, then select a part and say what it is"),
    parts.text,
    element("div", {className: "buttons"}, markButton("train the selection", true), markButton("mask the selection", false)),
    element("p", {className: "row-title"}, "Trained and masked: drag an edge, or move it with the arrow keys"),
    parts.runs, parts.count, parts.tokens, parts.laws,
    element("p", {className: "row-title"}, "The row as a line of JSONL ", copyButton),
    element("pre", {}, parts.jsonl));
  load();
})();
