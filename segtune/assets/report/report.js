'use strict';
// Rows lie in the page as compressed integers and are drawn when looked at.
const $ = id => document.getElementById(id), meta = JSON.parse($('meta').textContent);
const N = meta.rows, H = 74, el = (tag, cls, text) => { const e = document.createElement(tag); if (cls) e.className = cls; if (text !== undefined) e.textContent = text; return e; };
const num = n => n.toLocaleString('en'), many = (n, word) => `${num(n)} ${word}${n === 1 ? '' : 's'}`;
const tokens = new Int32Array(N), trained = new Int32Array(N), source = new Int16Array(N), line = new Int32Array(N), over = new Uint8Array(N), at = new Array(N);
const special = new Set(meta.special), found = new Map(), texts = { all: [], trained: [], masked: [] };
for (const f of meta.found) { if (!found.has(f[0])) found.set(f[0], []); found.get(f[0]).push(f); }
const worst = i => Math.min(...(found.get(i) || []).map(f => ['error', 'warning', 'note'].indexOf(meta.rules[f[1]].severity)).map(o => o < 0 ? 2 : o), 9);

// -- reading -----------------------------------------------------------------
function varints(bytes) {
  const out = new Int32Array(bytes.length); let n = 0, v = 0, shift = 0;
  for (let i = 0; i < bytes.length; i++) { const b = bytes[i]; v |= (b & 127) << shift; if (b < 128) { out[n++] = v; v = 0; shift = 0; } else shift += 7; }
  return out.slice(0, n);
}
async function inflate(text) {
  const raw = Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
// One row: tokens, runs, segments, added, crossed, source, line, then the lists of these lengths, then the ids.
async function read(chunk) {
  const ints = varints(await inflate(chunk.textContent)); chunk.remove();
  let p = 0;
  for (let i = +chunk.dataset.first; p < ints.length; i++) {
    const [n, runs, segs, added, crossed, src, ln] = ints.subarray(p, p + 7), a = { ints, runs: [p + 7, runs], segs: [p + 7 + runs, segs] };
    a.added = [p + 7 + runs + 2 * segs, added]; a.crossed = [a.added[0] + added, crossed]; a.ids = [a.crossed[0] + crossed, n];
    let t = 0; for (let k = 1; k < runs; k += 2) t += ints[p + 7 + k];
    at[i] = a; tokens[i] = n; trained[i] = t; source[i] = src - 1; line[i] = ln; over[i] = meta.limit && n > meta.limit ? 1 : 0;
    p = a.ids[0] + n;
  }
}
const list = (a, [from, n]) => a.subarray(from, from + n), sums = a => { let s = 0; return Array.from(a, v => s += v); };
function labels(i) { // 1 where trained
  const out = new Uint8Array(tokens[i]); let p = 0, on = 0;
  for (const n of list(at[i].ints, at[i].runs)) { if (on) out.fill(1, p, p + n); p += n; on = 1 - on; }
  return out;
}
const utf8 = new TextDecoder(), lone = /[\udc80-\udcff]+/gu, bytesOf = s => Uint8Array.from(s, c => c.charCodeAt(0) - 0xdc00);
function raw(i, where) {
  const ids = list(at[i].ints, at[i].ids), on = where === 'all' ? null : labels(i), want = where === 'trained' ? 1 : 0; let s = '';
  for (let k = 0; k < ids.length; k++) if (!on || on[k] === want) s += meta.pieces[ids[k]];
  return s.replace(lone, o => utf8.decode(bytesOf(o)));
}
const text = (i, where) => texts[where][i] ??= raw(i, where).toLowerCase(); // to search in, kept
const size = b => b < 0x80 ? 1 : b >= 0xc2 && b < 0xe0 ? 2 : b >= 0xe0 && b < 0xf0 ? 3 : b >= 0xf0 && b < 0xf5 ? 4 : 0, strict = new TextDecoder('utf-8', { fatal: true });
function characters(i) { // of every token its [character, piece]; piece 0 is a whole character
  const ids = list(at[i].ints, at[i].ids), out = Array.from(ids, () => []); let bytes = [], owner = [];
  const flush = () => {
    for (let p = 0; p < bytes.length;) {
      const n = size(bytes[p]); let c = null;
      if (n && p + n <= bytes.length) try { c = strict.decode(Uint8Array.from(bytes.slice(p, p + n))); } catch { c = null; }
      if (c === null) { out[owner[p]].push(['\\x' + bytes[p].toString(16).padStart(2, '0'), -1]); p++; continue; }
      const holders = [...new Set(owner.slice(p, p + n))];
      holders.forEach((k, j) => out[k].push([c, holders.length > 1 ? j + 1 : 0])); p += n;
    }
    bytes = []; owner = [];
  };
  ids.forEach((id, k) => { for (const c of meta.pieces[id]) { const u = c.charCodeAt(0); if (c.length === 1 && u >= 0xdc80 && u <= 0xdcff) { bytes.push(u - 0xdc00); owner.push(k); } else { if (bytes.length) flush(); out[k].push([c, 0]); } } });
  flush(); return out;
}
const place = i => source[i] < 0 ? '' : meta.sources[source[i]] + (line[i] ? ':' + line[i] : '');

// -- choosing ----------------------------------------------------------------
let rows = [], open = -1, run = 0, loaded = 0;
const value = id => $(id).value, query = () => $('query').value;
function keep(i, q, where) {
  const f = found.get(i), rule = value('rule'), share = value('share');
  if (rule === 'some' && !f || rule === 'none' && f) return false;
  if (rule !== '' && rule !== 'some' && rule !== 'none' && !(f && f.some(o => o[1] === +rule))) return false;
  if (value('source') !== '' && source[i] !== +value('source')) return false;
  if (share && share !== (trained[i] === 0 ? 'nothing' : trained[i] === tokens[i] ? 'all' : 'partly')) return false;
  if (value('length') && over[i] !== +(value('length') === 'over')) return false;
  return !q || text(i, where).includes(q);
}
const orders = { longest: (a, b) => tokens[b] - tokens[a], shortest: (a, b) => tokens[a] - tokens[b], found: (a, b) => (found.get(b) || []).length - (found.get(a) || []).length,
  most: (a, b) => trained[b] / (tokens[b] || 1) - trained[a] / (tokens[a] || 1), least: (a, b) => trained[a] / (tokens[a] || 1) - trained[b] / (tokens[b] || 1) };
async function choose(stay) { // a long search gives way to typing
  const mine = ++run, q = query().toLowerCase(), where = value('in'), got = []; let since = performance.now();
  for (let i = 0; i < loaded; i++) {
    if (keep(i, q, where)) got.push(i);
    if ((i & 63) === 63 && performance.now() - since > 12) { await new Promise(r => setTimeout(r)); if (mine !== run) return; since = performance.now(); }
  }
  const order = orders[value('sort')]; if (order) got.sort((a, b) => order(a, b) || a - b);
  rows = got;
  $('status').textContent = (rows.length === N ? many(N, 'row') : `${num(rows.length)} of ${many(N, 'row')}`) + (loaded < N ? ' · reading …' : '');
  $('list').scrollTop = 0; draw(true);
  const shown = stay === true ? rows.indexOf(open) : -1; if (shown >= 0) reveal(shown);
  $('list').dataset.done = String(mine);
}

// -- the list ----------------------------------------------------------------
const spacer = el('div'), empty = el('div', '', 'No row is like that.'); empty.id = 'empty';
spacer.setAttribute('role', 'presentation'); $('list').append(spacer);
function strip(i) { // where the trained tokens lie
  const stops = [], total = tokens[i] || 1; let p = 0, on = 0, parts = 0;
  for (const n of list(at[i].ints, at[i].runs)) {
    if (n && on && parts++ < 60) stops.push(`transparent ${100 * p / total}%`, `var(--good) ${100 * p / total}%`, `var(--good) ${Math.max(100 * (p + n) / total, 100 * p / total + .7)}%`, `transparent ${100 * (p + n) / total}%`);
    p += n; on = 1 - on;
  }
  return stops.length ? `linear-gradient(90deg, ${stops.join(', ')})` : 'none';
}
function peek(i, into) { // the place of a match, or where training begins
  const q = query().toLowerCase(), where = q ? value('in') : trained[i] ? 'trained' : 'all', s = raw(i, where), p = q ? text(i, where).indexOf(q) : 0, from = Math.max(0, p - 18), show = t => t.replace(/\s+/g, ' ');
  into.append((from ? '…' : '') + show(s.slice(from, Math.max(p, 0)))); if (q && p >= 0) into.append(el('mark', '', show(s.slice(p, p + q.length))));
  into.append(show(s.slice(Math.max(p, 0) + q.length, p + 160)));
}
function item(k) {
  const i = rows[k], e = el('div', 'item'), one = el('div', 'one'), f = found.get(i), bad = worst(i);
  e.id = 'row-' + i; e.style.top = k * H + 'px'; e.setAttribute('role', 'option'); e.setAttribute('aria-selected', i === open); e.setAttribute('aria-posinset', k + 1); e.setAttribute('aria-setsize', rows.length);
  one.append(el('b', '', num(i)), el('span', 'place', place(i)));
  if (f) { const n = el('span', 'flag' + (bad === 1 ? ' w' : bad > 1 ? ' o' : ''), '⚑ ' + f.length); n.title = many(f.length, 'finding'); one.append(n); }
  const n = el('span', 'n', `${num(trained[i])} / ${num(tokens[i])}${over[i] ? ' ▸' : ''}`); n.title = `${num(trained[i])} of ${many(tokens[i], 'token')} trained${over[i] ? ', longer than sequence_len' : ''}`; one.append(n);
  const bar = el('div', 'strip'), t = el('div', 'text'); bar.style.backgroundImage = strip(i); peek(i, t);
  e.append(one, bar, t); e.onclick = () => show(i); return e;
}
let drawn = '';
function draw(force) {
  const box = $('list'), first = Math.max(0, Math.floor(box.scrollTop / H) - 6), last = Math.min(rows.length, Math.ceil((box.scrollTop + box.clientHeight) / H) + 6), now = first + '-' + last;
  if (!force && now === drawn) return; drawn = now;
  spacer.style.height = rows.length * H + 'px';
  const items = []; for (let k = first; k < last; k++) items.push(item(k));
  box.replaceChildren(spacer, ...(rows.length || loaded < N ? items : [empty]));
  if (rows.indexOf(open) >= first && rows.indexOf(open) < last) box.setAttribute('aria-activedescendant', 'row-' + open); else box.removeAttribute('aria-activedescendant');
}
function reveal(k) { const box = $('list'); if (k * H < box.scrollTop) box.scrollTop = k * H; else if ((k + 1) * H > box.scrollTop + box.clientHeight) box.scrollTop = (k + 1) * H - box.clientHeight; draw(true); }
let waiting = 0;
$('list').addEventListener('scroll', () => { if (!waiting) waiting = requestAnimationFrame(() => { waiting = 0; draw(); }); });
addEventListener('resize', () => draw(true));

// -- one row -----------------------------------------------------------------
const marks = { ' ': '·', '\n': '⏎', '\t': '⇥', '\r': '␍', '\xa0': '⍽' }, signs = new Set(Object.values(marks)), unseen = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zs}\p{Zl}\p{Zp}]/u, low = '₀₁₂₃₄';
const code = n => n < 256 ? '\\x' + n.toString(16).padStart(2, '0') : n < 65536 ? '\\u' + n.toString(16).padStart(4, '0') : '\\U' + n.toString(16).padStart(8, '0');
const mark = c => marks[c] || (unseen.test(c) || signs.has(c) ? code(c.codePointAt(0)) : '');
function shown(chars, added) { // [text, kind] of one token
  const out = [], put = (t, kind) => { const l = out[out.length - 1]; if (l && l[1] === kind) l[0] += t; else out.push([t, kind]); };
  chars.forEach(([c, k], n) => {
    if (!n && added) put('▁', 'sg-added'); else if (k < 0) put(c, 'sg-mark');
    else if (k) { if (k === 1) put(mark(c) || c, ''); put(low[k], 'sg-mark'); }
    else { const m = mark(c); put(m || (!n && /\p{M}/u.test(c) ? '◌' + c : c), m ? 'sg-mark' : ''); }
  });
  return out;
}
function hits(chars) { // tokens that hold a match
  const q = query().toLowerCase(), out = new Set(); if (!q) return out;
  const owner = []; let s = '';
  chars.forEach((cs, k) => cs.forEach(([c, p]) => { if (p < 2) { const l = c.toLowerCase(); s += l; for (let j = 0; j < l.length; j++) owner.push(k); } }));
  for (let p = s.indexOf(q); p >= 0; p = s.indexOf(q, p + 1)) for (let j = p; j < p + q.length; j++) out.add(owner[j]);
  return out;
}
function facts(i, k, on, seg, added, crossed) {
  const id = meta.ids[at[i].ints[at[i].ids[0] + k]], piece = meta.pieces[at[i].ints[at[i].ids[0] + k]];
  const bytes = [...piece].flatMap(c => c.length === 1 && c >= '\udc80' && c <= '\udcff' ? [c.charCodeAt(0) - 0xdc00] : [...new TextEncoder().encode(c)]);
  const out = [`token ${k}`, `id ${id}`, on ? `label ${id} (trained)` : 'label -100 (masked)'];
  if (seg >= 0) out.push(`segment ${seg}`);
  if (special.has(id)) out.push('special token');
  if (added) out.push('its first space was added by the tokenizer');
  if (crossed) out.push('reaches across a label change');
  if (place(i)) out.push(place(i));
  return [...out, `bytes ${bytes.slice(0, 16).map(b => b.toString(16).padStart(2, '0')).join(' ')}${bytes.length > 16 ? ' …' : ''}`].join(' · ');
}
let table = false, cells = [], now = -1;
function show(i, move) {
  open = i; now = -1; cells = [];
  const a = at[i], on = labels(i), chars = characters(i), hit = hits(chars), ids = list(a.ints, a.ids), segs = list(a.ints, a.segs.map((v, k) => k ? 2 * v : v));
  const begins = new Map(); let t = 0, s = 0; for (let k = 0; k < segs.length; k += 2) { t += segs[k]; s += segs[k + 1]; begins.set(t, s); }
  const added = new Set(sums(list(a.ints, a.added))), crossed = new Set(sums(list(a.ints, a.crossed)));
  const bar = el('div', 'bar'), k = rows.indexOf(i), step = (name, d) => { const b = el('button', '', name); b.disabled = k < 0 || rows[k + d] === undefined; b.onclick = () => go(d); return b; };
  bar.append(el('h3', '', `Row ${num(i)}`), el('span', 'soft', [place(i), many(tokens[i], 'token'), `${num(trained[i])} trained (${Math.round(100 * trained[i] / (tokens[i] || 1))}%)`, over[i] ? 'longer than sequence_len' : ''].filter(Boolean).join(' · ')), el('span', 'space'), step('‹ previous', -1), step('next ›', 1));
  const tab = el('button', '', table ? 'text' : 'table'); tab.id = 'table'; tab.onclick = () => { table = !table; show(i); }; bar.append(tab);
  const box = el('div', 'seg-view'), about = el('div', '', 'Rest the pointer on a token, or click it.'); about.id = 'about'; about.setAttribute('aria-live', 'polite');
  const notes = (found.get(i) || []).map(f => { const r = meta.rules[f[1]], e = el('div', 'found ' + r.severity); e.append(el('code', '', r.id), ` ${f[2] >= 0 ? `segment ${f[2]}: ` : ''}${f[3]} `, el('span', 'soft', f[4])); return e; });
  let seg = -1; const segOf = [], token = j => {
    const e = el(on[j] ? 'b' : 'span', 'sg-tok ' + (on[j] ? 'sg-t' : 'sg-m') + (special.has(meta.ids[ids[j]]) ? ' sg-s' : '') + (crossed.has(j) ? ' sg-x' : '') + (hit.has(j) ? ' sg-hit' : '')), parts = shown(chars[j], added.has(j));
    const ends = parts.map(o => o[0]).join('').match(/⏎*$/)[0].length; let left = parts.reduce((n, o) => n + o[0].length, 0) - ends;
    for (const [s, kind] of parts) { const body = s.slice(0, Math.max(left, 0)).replaceAll('⏎', '⏎\n') + s.slice(Math.max(left, 0)); left -= s.length; if (kind) e.append(el('span', kind, body)); else e.append(body); }
    e.title = facts(i, j, on[j], segOf[j], added.has(j), crossed.has(j)); e.dataset.k = j; e.ends = ends; return e;
  };
  for (let j = 0; j < ids.length; j++) { if (begins.has(j)) seg = begins.get(j); segOf.push(seg); }
  if (table) {
    const tb = el('table'), body = el('tbody'), head = el('tr'); ['token', 'label', 'id', ...(begins.size ? ['segment'] : [])].forEach(h => head.append(el('th', h === 'token' ? '' : 'n', h)));
    for (let j = 0; j < ids.length; j++) { const r = el('tr'), c = el('td'), e = token(j); cells.push(e); c.append(e); r.append(c, el('td', 'n', on[j] ? meta.ids[ids[j]] : -100), el('td', 'n', meta.ids[ids[j]])); if (begins.size) r.append(el('td', 'n', segOf[j])); body.append(r); }
    const h = el('thead'); h.append(head); tb.append(h, body); box.append(tb);
  } else {
    const flow = el('div', 'sg-flow'); flow.tabIndex = 0; flow.setAttribute('aria-label', 'Tokens; arrow keys go from one to the next'); let into = flow;
    for (let j = 0; j < ids.length;) {
      let e = j; while (e < ids.length && on[e] === on[j]) e++;
      const parts = !on[j] && e - j > 160 ? [[j, j + 50, 0], [j + 50, e - 50, 1], [e - 50, e, 0]] : [[j, e, 0]];
      for (const [p, q, folded] of parts) {
        into = flow; if (folded) { const d = el('details', 'sg-fold'); d.append(el('summary', '', `${num(q - p)} masked tokens`)); for (let m = p; m < q; m++) if (hit.has(m)) d.open = true; flow.append(d); into = d; }
        for (let m = p; m < q; m++) {
          const c = token(m); cells.push(c);
          if (begins.has(m)) { const g = el('span', 'sg-edge', segOf[m]); g.title = `segment ${segOf[m]} begins here`; into.append(g); } else if (/^[·▁]/.test(c.textContent)) into.append(el('wbr'));
          into.append(c); if (c.ends) into.append('\n'.repeat(c.ends));
        }
      }
      j = e;
    }
    if (!ids.length) flow.append(el('span', 'soft', 'This row has no tokens.'));
    flow.onkeydown = e => { const d = { ArrowRight: 1, ArrowLeft: -1 }[e.key]; if (d) { e.preventDefault(); point(Math.min(cells.length - 1, Math.max(0, now + d))); } };
    box.append(flow);
  }
  const point = j => { if (cells[now]) cells[now].classList.remove('sg-now'); now = j; const c = cells[j]; if (!c) return; c.classList.add('sg-now'); const d = c.closest('details'); if (d) d.open = true; c.scrollIntoView({ block: 'nearest' }); about.textContent = c.title; };
  box.onclick = e => { const c = e.target.closest('[data-k]'); if (c) point(+c.dataset.k); };
  box.onmouseover = e => { const c = e.target.closest('[data-k]'); if (c && now < 0) about.textContent = c.title; };
  $('shown').replaceChildren(bar, ...notes, box, about); $('row').scrollTop = 0; $('row').dataset.row = i;
  const h = box.querySelector('.sg-hit'); if (h) h.scrollIntoView({ block: 'nearest' });
  history.replaceState(null, '', '#row=' + i); draw(true);
  if (move) { const n = rows.indexOf(i); if (n >= 0) reveal(n); }
}
function go(d) { const k = rows.indexOf(open), to = rows[k < 0 ? 0 : Math.min(rows.length - 1, Math.max(0, k + d))]; if (to !== undefined) show(to, true); }

// -- controls ----------------------------------------------------------------
function fill() {
  const sel = (id, rows) => rows.forEach(([v, t]) => { const o = el('option', '', t); o.value = v; $(id).append(o); });
  sel('rule', meta.rules.map((r, k) => [k, `${r.id} (${num(r.rows)})`])); sel('source', meta.sources.map((s, k) => [k, s]));
  if (meta.limit) sel('length', [['over', `over ${num(meta.limit)} tokens`], ['within', `at most ${num(meta.limit)} tokens`]]);
  for (const [id, none] of [['source', meta.sources.length < 2], ['length', !meta.limit]]) $(id).hidden = none;
}
const filters = ['query', 'rule', 'source', 'share', 'length', 'sort'];
function reset() { for (const id of filters) $(id).value = ''; $('in').value = 'all'; choose(true); }
let typing = 0; $('query').addEventListener('input', () => { clearTimeout(typing); typing = setTimeout(() => choose().then(() => { if (open >= 0) show(open); }), 90); });
for (const id of ['in', 'rule', 'source', 'share', 'length', 'sort']) $(id).addEventListener('change', choose);
$('reset').onclick = reset;
$('theme').onclick = () => { const next = { '': 'light', light: 'dark', dark: '' }[document.documentElement.dataset.theme || '']; if (next) document.documentElement.dataset.theme = next; else delete document.documentElement.dataset.theme; $('theme').textContent = '◐ ' + (next || 'auto'); };
function follow() { const m = /^#(row|rule)=(\d+)$/.exec(location.hash); if (!m) return; if (m[1] === 'row' && at[+m[2]]) { if (!rows.includes(+m[2])) reset(); show(+m[2], true); } else if (m[1] === 'rule') { reset(); $('rule').value = m[2]; choose().then(() => { if (rows.length) show(rows[0], true); }); } $('rows').scrollIntoView(); }
addEventListener('hashchange', follow);
document.addEventListener('click', e => { const b = e.target.closest('[data-rule]'); if (b) { location.hash = ''; location.hash = 'rule=' + b.dataset.rule; } });
document.addEventListener('keydown', e => {
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  const field = /^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName), inList = e.target === $('list');
  if (e.key === 'Escape') { reset(); if (field) e.target.blur(); return; }
  if (e.target === $('query') && (e.key === 'Enter' || e.key === 'ArrowDown')) { e.preventDefault(); $('list').focus(); if (rows.length) show(rows[0], true); return; }
  if (field) return;
  const page = Math.max(1, Math.floor($('list').clientHeight / H) - 1), d = { j: 1, k: -1, ...(inList ? { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -N, End: N } : {}) }[e.key];
  if (d) { e.preventDefault(); go(d); } else if (e.key === '/') { e.preventDefault(); $('query').focus(); $('query').select(); } else if (e.key === 't' && open >= 0) { table = !table; show(open); }
});

async function start() {
  fill();
  if (typeof DecompressionStream === 'undefined') { $('status').textContent = 'This browser is too old to read the rows.'; return; }
  for (const c of document.querySelectorAll('script[data-first]')) {
    const first = +c.dataset.first; await read(c); while (loaded < N && at[loaded]) loaded++;
    if (!first) { await choose(); if (rows.length) { const hash = location.hash; show(rows[0]); history.replaceState(null, '', hash || location.href.split('#')[0]); } }
    await new Promise(r => setTimeout(r));
  }
  await choose(); follow(); document.documentElement.dataset.ready = '1';
}
requestAnimationFrame(() => setTimeout(start));
