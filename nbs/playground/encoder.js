// segtune's encoder for two bundled vocabularies, in the browser. The Python encoder is the truth:
// tests/test_playground.py holds this one against it. Text is handled in code points, as Python counts them.
"use strict";
window.segtune = (() => {
  const utf8 = new TextEncoder(), reader = new TextDecoder();
  const SPACE = "\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
  // GPT-2's pre-tokenizer; \s is written out, since JavaScript's differs from Unicode's White_Space
  const WORDS = new RegExp(
    `'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^${SPACE}\\p{L}\\p{N}]+|[${SPACE}]+(?![^${SPACE}])|[${SPACE}]+`, "gu");

  // byte -> the character that stands for it in a byte-level vocabulary
  const byteChars = (() => {
    const keep = b => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255);
    let next = 256;
    return Array.from({length: 256}, (_, b) => String.fromCodePoint(keep(b) ? b : next++));
  })();

  const unpack = (text, kind) => new kind(Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer);

  // A vocabulary as tools/playground.py writes it: tokens, and each merge by its result and where that is cut
  function tokenizer(data) {
    const ids = new Map(data.tokens.map((t, i) => [t, i]));
    const results = unpack(data.results, Uint16Array), cuts = unpack(data.cuts, Uint8Array), merges = new Map();
    for (let rank = 0; rank < results.length; rank++) {
      const token = data.tokens[results[rank]], at = cuts[rank];
      merges.set(ids.get(token.slice(0, at)) * 65536 + ids.get(token.slice(at)), [rank, results[rank]]);
    }
    const special = new Map(data.special.map(t => [t, ids.get(t)]));
    const tok = {name: data.name, byteLevel: data.byteLevel, ids, merges, special, tokens: data.tokens, words: new Map()};
    tok.bytes = data.tokens.map((t, i) => spell(tok, t, i));
    return tok;
  }

  // The bytes that a token spells
  function spell(tok, token, id) {
    if (tok.special.has(token)) return utf8.encode(token);
    if (tok.byteLevel) return Uint8Array.from([...token], c => byteChars.indexOf(c));
    if (/^<0x[0-9A-F]{2}>$/.test(token)) return Uint8Array.of(parseInt(token.slice(3, 5), 16));
    return utf8.encode(token.replaceAll("▁", " "));
  }

  // Byte-pair encoding: join the pair of lowest rank, the leftmost first, until none is known
  function merge(tok, word) {
    for (;;) {
      let best = -1, found = null;
      for (let i = 0; i + 1 < word.length; i++) {
        const m = tok.merges.get(word[i] * 65536 + word[i + 1]);
        if (m && (found === null || m[0] < found[0])) [best, found] = [i, m];
      }
      if (found === null) return word;
      word.splice(best, 2, found[1]);
    }
  }

  function symbols(tok, text) {
    if (tok.byteLevel) return Array.from(utf8.encode(text), b => tok.ids.get(byteChars[b]));
    const hex = b => tok.ids.get(`<0x${b.toString(16).toUpperCase().padStart(2, "0")}>`);
    return [...text].flatMap(c => tok.ids.has(c) ? [tok.ids.get(c)] : Array.from(utf8.encode(c), hex));
  }

  function encodeWord(tok, text) {
    if (!tok.words.has(text)) tok.words.set(text, merge(tok, symbols(tok, text)));
    return tok.words.get(text);
  }

  // A stretch without special tokens
  function encodePlain(tok, text, prefix) {
    if (!text) return [];
    if (tok.byteLevel) return [...text.matchAll(WORDS)].flatMap(m => encodeWord(tok, m[0]));
    return encodeWord(tok, ((prefix ? " " : "") + text).replaceAll(" ", "▁"));
  }

  // [start, end] of each special token, in UTF-16 units
  function findSpecial(tok, text) {
    const names = [...tok.special.keys()].map(t => t.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"));
    return [...text.matchAll(new RegExp(names.join("|"), "gu"))].map(m => [m.index, m.index + m[0].length]);
  }

  // One call of the tokenizer
  function encodeText(tok, text, prefix = true) {
    const out = [];
    let at = 0;
    for (const [start, end] of findSpecial(tok, text)) {
      out.push(...encodePlain(tok, text.slice(at, start), prefix), tok.special.get(text.slice(start, end)));
      at = end;
    }
    return out.concat(encodePlain(tok, text.slice(at), prefix));
  }

  const joined = row => row.map(s => s.text).join("");

  function mergeLabels(row) {
    const out = [];
    for (const s of row) {
      if (!s.text) continue;
      if (out.length && out.at(-1).label === s.label) out[out.length - 1] = {...s, text: out.at(-1).text + s.text};
      else out.push({...s});
    }
    return out;
  }

  // Pieces of segments that continue one another: the added space comes back only after a special token
  function continued(tok, row) {
    if (tok.byteLevel) return row.map(s => ({...s, prefix: true}));
    const cuts = findSpecial(tok, joined(row)), out = [];
    let start = 0, fresh = true;
    for (const s of row) {
      const end = start + s.text.length, mine = cuts.filter(c => c[1] > start && c[1] <= end);
      if (fresh || !mine.length) out.push({...s, prefix: fresh});
      else {
        const at = (mine[0][0] >= start ? mine[0][0] : mine[0][1]) - start;
        out.push({...s, text: s.text.slice(0, at), prefix: false}, {...s, text: s.text.slice(at), prefix: true});
      }
      fresh = mine.length > 0 && mine.at(-1)[1] === end;
      start = end;
    }
    return out.filter(p => p.text);
  }

  const pieces = {
    split: (tok, row) => continued(tok, mergeLabels(row)),
    whole: (tok, row) => continued(tok, mergeLabels(row.map(s => ({...s, label: false})))),
    axolotl: (tok, row) => row.filter(s => s.text).map(s => ({...s, prefix: true})),
  };

  // A text's bytes; Mistral's vocabulary spells the character ▁ as a space
  const textBytes = (tok, text) => utf8.encode(tok.byteLevel ? text : text.replaceAll("▁", " "));

  // For every token the bytes of its row that it covers; an added space covers none
  function cover(tok, parts) {
    const out = [];
    let at = 0;
    for (const p of parts) {
      const ids = encodeText(tok, p.text, p.prefix), end = at + textBytes(tok, p.text).length;
      const starts = addedSpaces(tok, p, ids);
      ids.forEach((id, i) => {
        const size = tok.bytes[id].length - (starts.has(i) ? 1 : 0);
        out.push({id, start: at, end: at + size, label: p.label, added: starts.has(i)});
        at += size;
      });
      at = end;
    }
    return out;
  }

  // Which tokens of a piece begin with a space that is not in its text
  function addedSpaces(tok, piece, ids) {
    const out = new Set();
    if (tok.byteLevel || !piece.prefix) return out;
    ids.forEach((id, i) => {
      const first = i === 0 || tok.special.has(tok.tokens[ids[i - 1]]);
      if (first && !tok.special.has(tok.tokens[id])) out.add(i);
    });
    return out;
  }

  // The runs of labels over the bytes of a row's text
  function labelRuns(tok, row) {
    let at = 0;
    return mergeLabels(row).map(s => ({start: at, end: at += textBytes(tok, s.text).length, label: s.label}));
  }

  // Bytes grown to whole characters, as the tokenizer's own offsets have them
  function characters(token, bytes) {
    let {start, end} = token;
    const inside = i => i < bytes.length && (bytes[i] & 0xc0) === 0x80;
    while (start > 0 && inside(start)) start--;
    if (end === token.start) end = Math.min(start + 1, bytes.length);
    while (inside(end)) end++;
    return [start, end];
  }

  // A row as tokens: [{id, label, start, end, added, crosses}], label -100 where masked
  function encode(tok, row, boundary = "split") {
    const tokens = cover(tok, pieces[boundary](tok, row)), runs = labelRuns(tok, row);
    const bytes = textBytes(tok, joined(row));
    for (const t of tokens) {
      const [start, end] = characters(t, bytes);
      const labels = new Set(runs.filter(r => r.start < end && r.end > start).map(r => r.label));
      t.crosses = t.end > t.start && labels.size > 1;
      t.trained = boundary === "whole" ? labels.size === 1 && labels.has(true) : t.label;
      t.label = t.trained ? t.id : -100;
      t.text = reader.decode(tok.bytes[t.id]);
    }
    return tokens;
  }

  const spelled = (tok, ids) => ids.flatMap(i => Array.from(tok.bytes[i])).join();
  const wholeIds = (tok, text) => encodeText(tok, text, true);

  // Which of the three laws hold for a row's tokens
  function laws(tok, row, tokens) {
    const ids = tokens.map(t => t.id), runs = mergeLabels(row), prompts = [];
    let text = "";
    runs.forEach((s, i) => {
      if (s.label && i > 0) prompts.push(text);
      text += s.text;
    });
    return {
      text: spelled(tok, ids) === spelled(tok, wholeIds(tok, text)),
      label: !tokens.some(t => t.crosses),
      prompt: prompts.every(p => wholeIds(tok, p).every((id, i) => id === ids[i])),
    };
  }

  // The row as a line of an input_output file
  const jsonl = row => JSON.stringify({segments: mergeLabels(row).map(s => ({text: s.text, label: s.label}))});

  return {tokenizer, encodeText, encode, laws, jsonl, mergeLabels};
})();
