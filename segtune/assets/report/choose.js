// -- choosing ----------------------------------------------------------------
// Filters stand in the fields of the page, or as chips where there is no field for them; all of them stand in the address.
let rows = [], open = -1, run = 0, loaded = 0;
const value = id => $(id).value, query = () => $('query').value;
const chips = new Map(); // name -> value, such as tokens -> 100-150
const fields = ['query', 'in', 'rule', 'source', 'set', 'share', 'length', 'decided', 'sort'];
const number = /^(-?[\d.]+)-([\d.]+)$/, range = o => number.exec(o).slice(1).map(Number);
const percent = v => `${Math.round(100 * v)}%`;
const chipTexts = {
  tokens: o => { const [a, b] = range(o); return b - a > 1 ? `${num(a)} to ${num(b - 1)} tokens` : many(a, 'token'); },
  trained: o => { const [a, b] = range(o); return `${percent(a)} to ${percent(b)} trained`; },
  same: o => `the same as ${rowName(same[o][0])}`, near: o => `like ${rowName(near[o][0])}`,
  first: o => `trained text begins with ${JSON.stringify(pieceOf(+o))}`, last: o => `trained text ends in ${JSON.stringify(pieceOf(+o))}`,
  any: o => `trains ${JSON.stringify(pieceOf(+o))}`,
};
const numberOf = new Map(meta.ids.map((id, k) => [id, k])), pieceOf = id => joinBytes(meta.pieces[numberOf.get(id)] ?? '');
function tokenAt(i, how, k) { // does a run of trained tokens begin with, end in, or hold this one?
  const ids = list(i, 'ids');
  let p = 0, on = 0;
  for (const n of list(i, 'runs')) {
    if (on && n) {
      if (how === 'first' ? ids[p] === k : how === 'last' ? ids[p + n - 1] === k : ids.subarray(p, p + n).includes(k)) return true;
    }
    p += n; on = 1 - on;
  }
  return false;
}
const chipTests = {
  tokens: o => { const [a, b] = range(o); return i => tokens[i] >= a && tokens[i] < b; },
  trained: o => { const [a, b] = range(o); return i => { const v = trained[i] / (tokens[i] || 1); return v >= a && (v < b || b === 1); }; },
  same: o => i => sameAs[i] === +o, near: o => i => nearTo[i] === +o,
  first: o => i => tokenAt(i, 'first', numberOf.get(+o)), last: o => i => tokenAt(i, 'last', numberOf.get(+o)),
  any: o => i => tokenAt(i, 'any', numberOf.get(+o)),
};
function tests() { // what a row must pass, the cheap ones first
  const out = [], rule = value('rule'), src = value('source'), set = value('set'), share = value('share'), length = value('length');
  const decided = value('decided'), k = meta.rules.findIndex(r => r.id === rule), q = query().toLowerCase(), where = value('in');
  if (rule === 'some' || rule === 'none') out.push(i => (nFound[i] > 0) === (rule === 'some'));
  else if (rule) out.push(i => k >= 0 && ruleHits[k][i] === 1);
  if (src) { const s = meta.sources.indexOf(src); out.push(i => source[i] === s); }
  if (set) out.push(i => held[i] === +(set === 'held'));
  if (share) out.push(i => share === (trained[i] === 0 ? 'nothing' : trained[i] === tokens[i] ? 'all' : 'partly'));
  if (length) out.push(i => over[i] === +(length === 'over'));
  if (decided) out.push(i => decidedAs(i, decided));
  for (const [name, o] of chips) out.push(chipTests[name](o));
  if (q) out.push(i => text(i, where).includes(q));
  return out;
}
const ratio = i => trained[i] / (tokens[i] || 1), group = i => sameAs[i] >= 0 ? sameAs[i] : nearTo[i] >= 0 ? same.length + nearTo[i] : 1e9;
const orders = {
  longest: (a, b) => tokens[b] - tokens[a], shortest: (a, b) => tokens[a] - tokens[b], found: (a, b) => nFound[b] - nFound[a],
  most: (a, b) => ratio(b) - ratio(a), least: (a, b) => ratio(a) - ratio(b), group: (a, b) => group(a) - group(b),
  loss: (a, b) => meanLoss(b) - meanLoss(a),
};
async function choose(stay) { // a long search gives way to typing
  const mine = ++run, checks = tests(), got = [], order = orders[value('sort')];
  let since = performance.now();
  for (let i = 0; i < loaded; i++) {
    if (checks.every(f => f(i))) got.push(i);
    if ((i & 63) === 63 && performance.now() - since > 12) {
      await new Promise(r => setTimeout(r));
      if (mine !== run) return;
      since = performance.now();
    }
  }
  if (order) got.sort((a, b) => order(a, b) || a - b);
  rows = got;
  $('status').textContent = (rows.length === N ? many(N, 'row') : `${num(rows.length)} of ${many(N, 'row')}`) + (loaded < N ? ' · reading …' : '');
  drawChips();
  $('list').scrollTop = 0; draw(true);
  if (stay === true && rows.includes(open)) reveal(rows.indexOf(open));
  if (loaded === N) settle();
  $('list').dataset.done = String(mine);
}
function settle() { // the pane shows a row that is in the list
  if (rows.includes(open)) { show(open); return; }
  if (rows.length) { show(rows[0]); return; }
  open = -1; $('row').dataset.row = '';
  $('shown').replaceChildren(el('p', 'soft', N ? 'No rows match.' : 'There are no rows.'));
  writeAddress();
}
function drawChips() {
  $('chips').replaceChildren(...[...chips].map(([name, o]) => {
    const b = el('button', 'chip', chipTexts[name](o) + ' ✕');
    b.setAttribute('aria-label', `Remove the filter: ${chipTexts[name](o)}`);
    b.onclick = () => { chips.delete(name); choose(true); };
    return b;
  }));
}
function reset() { clearFilters(); return choose(true); }
function clearFilters() { for (const id of fields) $(id).value = id === 'in' ? 'all' : ''; chips.clear(); }
function filterBy(name, o) { // from a bar, a finding, a token or a group
  clearFilters();
  if (fields.includes(name)) $(name).value = o; else chips.set(name, o);
  tab('rows');
  return choose().then(() => $('list').focus({ preventScroll: true }));
}

// -- the address -------------------------------------------------------------
let current = 'overview';
function writeAddress() {
  const p = new URLSearchParams();
  if (current !== 'overview') p.set('tab', current);
  if (current === 'rows') {
    for (const id of fields) if (value(id) && !(id === 'in' && value(id) === 'all')) p.set(id === 'query' ? 'q' : id, value(id));
    for (const [name, o] of chips) p.set(name, o);
    if (open >= 0) p.set('row', open);
  }
  const hash = String(p);
  history.replaceState(null, '', hash ? '#' + hash : location.href.split('#')[0]);
}
function valid(name, o) {
  if (name === 'tokens' || name === 'trained') return number.test(o);
  return /^\d+$/.test(o) && (name === 'same' ? +o < same.length : name === 'near' ? +o < near.length : numberOf.has(+o));
}
function follow(hash = location.hash) { // show what the address says
  const p = new URLSearchParams(hash.slice(1)), row = p.has('row') ? +p.get('row') : -1;
  const names = [...fields.map(id => id === 'query' ? 'q' : id), ...Object.keys(chipTests)];
  const asked = names.some(o => p.has(o)) || row >= 0;
  tab(['findings', 'trained', 'rows'].includes(p.get('tab')) ? p.get('tab') : asked ? 'rows' : 'overview');
  if (!asked) return;
  clearFilters();
  for (const id of fields) {
    const o = p.get(id === 'query' ? 'q' : id);
    if (o === null) continue;
    $(id).value = o;
    if ($(id).value !== o) $(id).value = '';
  }
  for (const name of Object.keys(chipTests)) if (p.has(name) && valid(name, p.get(name))) chips.set(name, p.get(name));
  if (at[row]) open = row;
  choose(true).then(async () => {
    if (!at[row]) return;
    if (!rows.includes(row)) { open = row; await reset(); }
    show(row, true);
    if (narrow()) readOnly(true);
  });
}
function tab(name) { switchTab(name); writeAddress(); }
function switchTab(name) {
  current = name;
  for (const b of document.querySelectorAll('[role=tab]')) {
    b.setAttribute('aria-selected', b.dataset.tab === name);
    b.tabIndex = b.dataset.tab === name ? 0 : -1;
    $(b.dataset.tab).hidden = b.dataset.tab !== name;
  }
  if (name === 'rows') draw(true);
}
