'use strict';
// Rows lie in the page as compressed integers and are drawn when looked at.
const $ = id => document.getElementById(id), meta = JSON.parse($('meta').textContent), N = meta.rows;
function el(tag, cls, text) {
  const e = document.createElement(tag);
  if (cls) e.className = cls;
  if (text !== undefined) e.textContent = text;
  return e;
}
const num = n => n.toLocaleString('en'), many = (n, word) => `${num(n)} ${word}${n === 1 ? '' : 's'}`;
const ints32 = () => new Int32Array(N), at = new Array(N);
const tokens = ints32(), trained = ints32(), source = ints32(), line = ints32(), over = new Uint8Array(N);
const held = new Uint8Array(N), nFound = new Uint8Array(N), sameAs = ints32().fill(-1), nearTo = ints32().fill(-1);
const special = new Set(meta.special), texts = { all: [], trained: [], masked: [] };
const messages = new Map(); // row -> [row, rule, segment, message] of findings that are explained
for (const f of meta.found) messages.has(f[0]) ? messages.get(f[0]).push(f) : messages.set(f[0], [f]);
const severities = ['error', 'warning', 'note'], rank = r => (severities.indexOf(r.severity) + 4) % 4;
let ruleHits = [], same = [], near = []; // by rule its rows, as flags; groups of rows

// -- reading -----------------------------------------------------------------
function varints(bytes) {
  const out = new Int32Array(bytes.length);
  let n = 0, v = 0, shift = 0;
  for (let i = 0; i < bytes.length; i++) {
    const b = bytes[i];
    v |= (b & 127) << shift;
    if (b < 128) { out[n++] = v; v = 0; shift = 0; } else shift += 7;
  }
  return out.slice(0, n);
}
async function inflate(text) {
  const raw = Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream('deflate'));
  return varints(new Uint8Array(await new Response(stream).arrayBuffer()));
}
// One row: eight counts (tokens, runs, segments that have tokens, added, crossed, source, line, segments of the text),
// then the lists of these lengths, then the ids.
async function read(chunk) {
  const ints = await inflate(chunk.textContent);
  chunk.remove();
  let p = 0;
  for (let i = +chunk.dataset.first; p < ints.length; i++) {
    const [n, runs, segs, added, crossed, src, ln, layout] = ints.subarray(p, p + 8), a = { ints };
    p += 8;
    for (const [name, size] of [['runs', runs], ['segs', 2 * segs], ['added', added], ['crossed', crossed], ['layout', layout],
      ['ids', n]]) { a[name] = [p, size]; p += size; }
    let t = 0;
    for (let k = 1; k < runs; k += 2) t += ints[a.runs[0] + k];
    at[i] = a; tokens[i] = n; trained[i] = t; source[i] = src - 1; line[i] = ln; over[i] = meta.limit && n > meta.limit ? 1 : 0;
  }
}
// Lists of row numbers: how many, then the distances. One for each rule, one of held-out rows, then the groups.
async function readLists() {
  const ints = await inflate(meta.lists);
  let p = 0;
  const one = () => { const n = ints[p++], out = []; for (let k = 0, i = 0; k < n; k++) out.push(i += ints[p++]); return out; };
  ruleHits = meta.rules.map(() => { const flags = new Uint8Array(N); for (const i of one()) { flags[i] = 1; nFound[i]++; } return flags; });
  for (const i of one()) held[i] = 1;
  const groups = of => { const out = []; for (let k = ints[p++]; k > 0; k--) { const g = one(); for (const i of g) of[i] = out.length; out.push(g); } return out; };
  same = groups(sameAs); near = groups(nearTo);
}
const list = (i, name) => at[i].ints.subarray(at[i][name][0], at[i][name][0] + at[i][name][1]);
const sums = a => { let s = 0; return Array.from(a, v => s += v); };
function labels(i) { // 1 where trained
  const out = new Uint8Array(tokens[i]);
  let p = 0, on = 0;
  for (const n of list(i, 'runs')) { if (on) out.fill(1, p, p + n); p += n; on = 1 - on; }
  return out;
}

// -- texts -------------------------------------------------------------------
const utf8 = new TextDecoder(), strict = new TextDecoder('utf-8', { fatal: true }), lone = /[\udc80-\udcff]+/gu;
const joinBytes = s => s.replace(lone, o => utf8.decode(Uint8Array.from(o, c => c.charCodeAt(0) - 0xdc00)));
function raw(i, where) { // what the tokens spell, added spaces included
  const ids = list(i, 'ids'), on = where === 'all' ? null : labels(i), want = where === 'trained' ? 1 : 0;
  let s = '';
  for (let k = 0; k < ids.length; k++) if (!on || on[k] === want) s += meta.pieces[ids[k]];
  return joinBytes(s);
}
const text = (i, where) => texts[where][i] ??= raw(i, where).toLowerCase(); // to search in, kept
function rowText(i) { // the text that was written, to the character
  if (i in meta.exact) return meta.exact[i];
  const ids = list(i, 'ids'), added = new Set(sums(list(i, 'added')));
  let s = '';
  for (let k = 0; k < ids.length; k++) s += added.has(k) ? meta.pieces[ids[k]].slice(1) : meta.pieces[ids[k]];
  return joinBytes(s);
}
function rowJson(i) { // a row of segments, or of tokens where no segments are known
  const layout = list(i, 'layout'), chars = Array.from(rowText(i)), ids = list(i, 'ids'), on = labels(i);
  if (!layout.length && ids.length) {
    const own = Array.from(ids, k => meta.ids[k]);
    return JSON.stringify({ input_ids: own, labels: own.map((id, k) => on[k] ? id : -100) });
  }
  let p = 0;
  const segments = Array.from(layout, v => {
    const out = { label: !!(v & 4), text: chars.slice(p, p += v >> 3).join('') };
    if (!(v & 2)) out.special = false;
    if (v & 1) out.fresh = true;
    return out;
  });
  return JSON.stringify({ segments });
}
const size = b => b < 0x80 ? 1 : b >= 0xc2 && b < 0xe0 ? 2 : b >= 0xe0 && b < 0xf0 ? 3 : b >= 0xf0 && b < 0xf5 ? 4 : 0;
function characters(i) { // of every token its [character, piece]; piece 0 is a whole character, -1 a byte that is none
  const ids = list(i, 'ids'), out = Array.from(ids, () => []);
  let bytes = [], owner = [];
  const flush = () => {
    for (let p = 0; p < bytes.length;) {
      const n = size(bytes[p]);
      let c = null;
      if (n && p + n <= bytes.length) try { c = strict.decode(Uint8Array.from(bytes.slice(p, p + n))); } catch { c = null; }
      if (c === null) { out[owner[p]].push(['\\x' + bytes[p].toString(16).padStart(2, '0'), -1]); p++; continue; }
      const holders = [...new Set(owner.slice(p, p + n))];
      holders.forEach((k, j) => out[k].push([c, holders.length > 1 ? j + 1 : 0]));
      p += n;
    }
    bytes = []; owner = [];
  };
  ids.forEach((id, k) => {
    for (const c of meta.pieces[id]) {
      const u = c.charCodeAt(0);
      if (c.length === 1 && u >= 0xdc80 && u <= 0xdcff) { bytes.push(u - 0xdc00); owner.push(k); continue; }
      if (bytes.length) flush();
      out[k].push([c, 0]);
    }
  });
  flush();
  return out;
}

// -- places ------------------------------------------------------------------
const place = i => source[i] < 0 ? '' : meta.sources[source[i]] + (line[i] ? ':' + line[i] : '');
const rowName = i => held[i] && i >= meta.n_train ? `held-out row ${num(i - meta.n_train)}` : `row ${num(i)}`;
let places = null;
function rowAt(name) { // the row that came from a place
  if (!places) { places = new Map(); for (let i = N - 1; i >= 0; i--) if (at[i]) places.set(place(i), i); }
  return places.get(name);
}
