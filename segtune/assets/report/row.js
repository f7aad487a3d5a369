// -- one row -----------------------------------------------------------------
// The text on the page is the row's own; what is drawn for invisible characters stands in the styles and cannot be selected.
const marks = { ' ': '·', '\n': '⏎', '\t': '⇥', '\r': '␍', '\xa0': '⍽' }, signs = new Set([...Object.values(marks), '▁']);
const unseen = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zs}\p{Zl}\p{Zp}]/u, low = '₀₁₂₃₄';
const hex = (n, width) => n.toString(16).padStart(width, '0');
const code = n => n < 256 ? '\\x' + hex(n, 2) : n < 65536 ? '\\u' + hex(n, 4) : '\\U' + hex(n, 8);
const mark = c => marks[c] || (unseen.test(c) || signs.has(c) && c !== '▁' ? code(c.codePointAt(0)) : '');
function shown(chars, added) { // [drawn, kind, text] of one token: what is seen, and what it stands for
  const out = [];
  const put = (t, kind, own) => {
    const l = out[out.length - 1];
    if (l && l[1] === kind && kind !== 'sg-added') { l[0] += t; l[2] += own; } else out.push([t, kind, own]);
  };
  chars.forEach(([c, k], n) => {
    if (!n && added) put('▁', 'sg-added', '');
    else if (k < 0) put(c, 'sg-mark', '');
    else if (k) { if (k === 1) put(mark(c) || c, mark(c) ? 'sg-mark' : '', c); put(low[k], 'sg-mark', ''); }
    else { const m = mark(c); put(m || (!n && /\p{M}/u.test(c) ? '◌' + c : c), m || !n && /\p{M}/u.test(c) ? 'sg-mark' : '', c); }
  });
  return out;
}
function matches(chars) { // tokens that hold a match
  const q = query().toLowerCase(), out = new Set(), owner = [];
  if (!q) return out;
  let s = '';
  chars.forEach((cs, k) => cs.forEach(([c, p]) => {
    if (p > 1) return;
    const l = c.toLowerCase();
    s += l;
    for (let j = 0; j < l.length; j++) owner.push(k);
  }));
  for (let p = s.indexOf(q); p >= 0; p = s.indexOf(q, p + 1)) for (let j = p; j < p + q.length; j++) out.add(owner[j]);
  return out;
}
function facts(r, k) { // all there is to say about a token
  const id = meta.ids[r.ids[k]], piece = meta.pieces[r.ids[k]], lossy = loss(r.i, k);
  const bytesOf = c => c >= '\udc80' && c <= '\udcff' ? [c.charCodeAt(0) - 0xdc00] : [...new TextEncoder().encode(c)];
  const bytes = [...piece].flatMap(bytesOf), out = [`token ${k}`, `id ${id}`, r.on[k] ? `label ${id} (trained)` : 'label -100 (masked)'];
  if (r.segment[k] >= 0) out.push(`segment ${r.segment[k]}`);
  if (special.has(id)) out.push('special token');
  if (r.added.has(k)) out.push('its first space was added by the tokenizer');
  if (r.crossed.has(k)) out.push('reaches across a label change');
  if (lossy) out.push(lossy);
  if (place(r.i)) out.push(place(r.i));
  return [...out, `bytes ${bytes.slice(0, 16).map(b => hex(b, 2)).join(' ')}${bytes.length > 16 ? ' …' : ''}`].join(' · ');
}
function opened(i) { // everything about a row's tokens
  const chars = characters(i), segs = list(i, 'segs'), begins = new Map(), ids = list(i, 'ids'), segment = [];
  for (let k = 0, t = 0, s = 0; k < segs.length; k += 2) begins.set(t += segs[k], s += segs[k + 1]);
  for (let k = 0, s = -1; k < ids.length; k++) segment.push(s = begins.has(k) ? begins.get(k) : s);
  const added = new Set(sums(list(i, 'added'))), crossed = new Set(sums(list(i, 'crossed')));
  return { i, chars, ids, begins, segment, added, crossed, on: labels(i), hit: matches(chars) };
}
function tokenBox(r, k) { // one token; what ends it in newlines stands behind it
  const kinds = ['sg-tok', r.on[k] ? 'sg-t' : 'sg-m'];
  if (special.has(meta.ids[r.ids[k]])) kinds.push('sg-s');
  if (r.crossed.has(k)) kinds.push('sg-x');
  if (r.hit.has(k)) kinds.push('sg-hit');
  const e = el(r.on[k] ? 'b' : 'span', kinds.join(' ')), parts = shown(r.chars[k], r.added.has(k));
  colourByLoss(e, r.i, k);
  e.title = facts(r, k); e.dataset.k = k; e.ends = '';
  const all = parts.map(o => o[0]).join(''), inside = all.length - all.match(/⏎*$/)[0].length;
  let p = 0;
  for (const [drawnAs, kind, own] of parts) {
    if (!kind) { e.append(own); p += drawnAs.length; continue; }
    if (kind === 'sg-added' || !own || !drawnAs.includes('⏎')) { e.append(drawnMark(kind, drawnAs, own)); p += drawnAs.length; continue; }
    for (const c of own) { // newlines break the line; those at the end do so behind the box
      const as = mark(c);
      e.append(drawnMark(kind, as, c === '\n' ? '' : c));
      if (c === '\n' && p < inside) e.append('\n'); else if (c === '\n') e.ends += '\n';
      p += as.length;
    }
  }
  return e;
}
function drawnMark(kind, drawnAs, own) { const e = el('span', kind, own); e.dataset.m = drawnAs; return e; }

let table = false, cells = [], now = -1;
function show(i, move) {
  open = i; now = -1; cells = [];
  const r = opened(i), box = el('div', 'seg-view'), about = el('div', '', 'Hover over or click a token.');
  about.id = 'about'; about.setAttribute('aria-live', 'polite');
  box.append(table ? tokenTable(r) : tokenFlow(r));
  const point = j => {
    if (cells[now]) cells[now].classList.remove('sg-now');
    const c = cells[now = j];
    if (!c) return;
    c.classList.add('sg-now');
    const d = c.closest('details');
    if (d) d.open = true;
    c.scrollIntoView({ block: 'nearest' });
    about.textContent = c.title;
  };
  const under = e => e.target.closest('[data-k]');
  box.onclick = e => { const c = under(e); if (c) point(+c.dataset.k); };
  box.onmouseover = e => { const c = under(e); if (c && now < 0) about.textContent = c.title; };
  box.onkeydown = e => {
    const d = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
    if (d && !table) { e.preventDefault(); point(Math.min(cells.length - 1, Math.max(0, now + d))); }
  };
  $('shown').replaceChildren(heading(i), tools(i), ...noteBox(i), ...findingBoxes(i), ...groupBoxes(i), box, about);
  $('row').scrollTop = 0; $('row').dataset.row = i;
  const first = box.querySelector('.sg-hit');
  if (first) first.scrollIntoView({ block: 'nearest' });
  writeAddress(); draw(true);
  if (move && rows.includes(i)) reveal(rows.indexOf(i));
}
function heading(i) {
  const bar = el('div', 'bar'), k = rows.indexOf(i), share = Math.round(100 * trained[i] / (tokens[i] || 1));
  const step = (name, d) => { const b = el('button', '', name); b.disabled = rows[k + d] === undefined || k < 0; b.onclick = () => go(d); return b; };
  const back = el('button', 'back', '‹ list');
  back.onclick = () => readOnly(false);
  const name = rowName(i), what = [place(i), many(tokens[i], 'token'), `${num(trained[i])} trained (${share}%)`];
  if (over[i]) what.push('longer than sequence_len');
  bar.append(back, el('h3', '', name[0].toUpperCase() + name.slice(1)));
  if (held[i]) bar.append(badge('held', 'held out', 'kept for validation, not trained on'));
  if (decisions.get(i)) bar.append(badge(decisions.get(i), decisions.get(i)));
  bar.append(el('span', 'soft', what.filter(Boolean).join(' · ')), el('span', 'space'), step('‹ previous', -1), step('next ›', 1));
  return bar;
}
function tools(i) {
  const bar = el('div', 'bar acts');
  const button = (id, name, act, title) => { const b = el('button', '', name); b.id = id; b.onclick = act; if (title) b.title = title; bar.append(b); return b; };
  for (const [d, key] of [['drop', 'x'], ['keep', 'k']]) {
    button(d, d, () => decide(i, d), `key ${key}`).setAttribute('aria-pressed', decisions.get(i) === d);
  }
  button('note', 'note', () => writeNote(i), 'key n');
  bar.append(el('span', 'space'));
  button('copy-text', 'copy text', () => copy(rowText(i), 'text'), 'the text of the row, to the character');
  button('copy-json', 'copy JSON', () => copy(rowJson(i), 'JSON'), 'a row of segments');
  if (place(i)) button('copy-place', 'copy file:line', () => copy(place(i), place(i)));
  button('table', table ? 'text' : 'table', () => { table = !table; show(i); }, 'key t');
  return bar;
}
function findingBoxes(i) {
  const told = messages.get(i) || [];
  return meta.rules.map((r, k) => [r, k]).filter(([, k]) => ruleHits[k][i]).map(([r, k]) => {
    const e = el('div', 'found ' + r.severity), f = told.find(o => o[1] === k), id = el('button', 'rule-id', r.id);
    id.title = `show all rows with ${r.id}`; id.onclick = () => filterBy('rule', r.id);
    e.append(badge('sev-' + r.severity, r.severity), ' ', id, ' ');
    if (f && f[2] >= 0) e.append(`segment ${f[2]}: `);
    e.append(...linked(f ? f[3] : r.why), ' ', el('span', 'soft', r.fix ? `Fix: ${r.fix}` : ''));
    return e;
  });
}
function linked(message) { // places of the data become links to their rows
  const names = meta.sources.map(s => s.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
  if (!names.length) return [message];
  return message.split(new RegExp(`((?:${names.join('|')}):\\d+)`)).map((part, k) => {
    const to = k % 2 ? rowAt(part) : undefined;
    return to === undefined ? part : rowLink(to, part);
  });
}
function rowLink(i, name) { const a = el('a', '', name); a.href = '#row=' + i; return a; }
function groupBoxes(i) {
  const one = (groups, of, name, what) => {
    if (of[i] < 0) return [];
    const g = groups[of[i]], e = el('div', 'found group'), others = g.filter(o => o !== i), b = el('button', '', `show all ${num(g.length)}`);
    b.onclick = () => filterBy(name, String(of[i]));
    e.append(el('b', '', what), ' ');
    others.slice(0, 6).forEach((o, k) => {
      e.append(k ? ', ' : '', rowLink(o, place(o) || rowName(o)), held[o] ? ' (held out)' : '');
    });
    e.append(others.length > 6 ? ` and ${num(others.length - 6)} more ` : ' ', b);
    return [e];
  };
  return [...one(same, sameAs, 'same', 'The same row:'), ...one(near, nearTo, 'near', 'Nearly the same:')];
}
function tokenTable(r) {
  const names = ['token', 'label', 'id', ...(r.begins.size ? ['segment'] : []), ...meta.losses.map(n => `loss ${n}`)];
  const t = el('table'), head = el('tr'), top = el('thead'), body = el('tbody');
  names.forEach(h => head.append(el('th', h === 'token' ? '' : 'n', h)));
  for (let k = 0; k < r.ids.length; k++) {
    const e = tokenBox(r, k), line_ = el('tr'), c = el('td'), id = meta.ids[r.ids[k]], numbers = [r.on[k] ? id : -100, id];
    if (r.begins.size) numbers.push(r.segment[k]);
    meta.losses.forEach((n, m) => { const v = lossAt(r.i, m, k); numbers.push(v === null ? '' : v.toFixed(2)); });
    cells.push(e); c.append(e); line_.append(c, ...numbers.map(n => el('td', 'n', n))); body.append(line_);
  }
  top.append(head); t.append(top, body);
  return t;
}
function tokenFlow(r) {
  const flow = el('div', 'sg-flow'), n = r.ids.length;
  flow.tabIndex = 0; flow.setAttribute('role', 'group'); flow.setAttribute('aria-label', 'Tokens; arrow keys go from one to the next');
  const put = (into, k) => {
    const c = tokenBox(r, k);
    cells.push(c);
    if (r.begins.size > 1 && r.begins.has(k)) {
      const g = drawnMark('sg-edge', r.segment[k], '');
      g.title = `segment ${r.segment[k]} begins here`;
      into.append(g);
    } else if (/^[ \u2581]/.test(c.textContent) || r.added.has(k)) into.append(el('wbr'));
    into.append(c, c.ends);
  };
  for (let a = 0; a < n;) {
    let b = a;
    while (b < n && r.on[b] === r.on[a]) b++;
    const folds = !r.on[a] && b - a > 160, parts = folds ? [[a, a + 50, 0], [a + 50, b - 50, 1], [b - 50, b, 0]] : [[a, b, 0]];
    for (const [p, q, folded] of parts) {
      let into = flow;
      if (folded) {
        into = el('details', 'sg-fold');
        into.append(drawnSummary(`${num(q - p)} masked tokens`));
        for (let k = p; k < q; k++) if (r.hit.has(k)) into.open = true;
        flow.append(into);
      }
      for (let k = p; k < q; k++) put(into, k);
    }
    a = b;
  }
  if (!n) flow.append(el('span', 'soft', 'This row has no tokens.'));
  return flow;
}
function drawnSummary(name) { const e = el('summary'); e.dataset.m = name; e.setAttribute('aria-label', name); return e; }
function go(d) {
  const k = rows.indexOf(open), to = rows[k < 0 ? 0 : Math.min(rows.length - 1, Math.max(0, k + d))];
  if (to !== undefined) show(to, true);
}

// -- loss --------------------------------------------------------------------
// Losses are kept in fiftieths, from 1; 0 where none is known.
const lossRows = new Array(N);
async function readLosses(chunk) {
  const ints = await inflate(chunk.textContent);
  chunk.remove();
  for (let i = +chunk.dataset.losses, p = 0; p < ints.length; i++) {
    const n = ints[p++];
    lossRows[i] = meta.losses.map((o, m) => ints.subarray(p + m * n, p + (m + 1) * n));
    p += meta.losses.length * n;
  }
}
function lossAt(i, m, k) { const v = lossRows[i] ? lossRows[i][m][k] : 0; return v ? (v - 1) / 50 : null; }
const loss = (i, k) => meta.losses.map((n, m) => [n, lossAt(i, m, k)]).filter(o => o[1] !== null).map(([n, v]) => `loss ${n} ${v.toFixed(2)}`).join(', ');
function meanLoss(i) {
  const last = meta.losses.length - 1;
  let s = 0, n = 0;
  for (let k = 0; k < tokens[i]; k++) { const v = lossAt(i, last, k); if (v !== null) { s += v; n++; } }
  return n ? s / n : -1;
}
function colourByLoss(e, i, k) {
  const how = value('colour'), m = meta.losses.indexOf(how), last = meta.losses.length - 1;
  if (!how) return;
  if (how === 'change') {
    const a = lossAt(i, 0, k), b = lossAt(i, last, k);
    if (a === null || b === null) return;
    const weight = Math.min(1, Math.abs(b - a) / 3);
    e.style.background = `color-mix(in srgb, var(${b < a ? '--good' : '--bad'}) ${Math.round(42 * weight)}%, transparent)`;
    return;
  }
  const v = lossAt(i, m, k);
  if (v !== null) e.style.background = `color-mix(in srgb, var(--warn) ${Math.round(42 * Math.min(1, v / 6))}%, transparent)`;
}
