// -- controls ----------------------------------------------------------------
function fill() {
  const options = (id, all) => all.forEach(([v, t]) => { const o = el('option', '', t); o.value = v; $(id).append(o); });
  options('rule', meta.rules.map(r => [r.id, `${r.id} (${num(r.rows)})`]));
  options('source', meta.sources.map(s => [s, s]));
  if (meta.limit) options('length', [['over', `over ${num(meta.limit)} tokens`], ['within', `at most ${num(meta.limit)} tokens`]]);
  if (meta.losses.length) options('sort', [['loss', 'highest loss first']]);
  options('colour', meta.losses.map(n => [n, `colour: loss ${n}`]));
  if (meta.losses.length > 1) options('colour', [['change', `colour: ${meta.losses[0]} to ${meta.losses.at(-1)}`]]);
  const none = { source: meta.sources.length < 2, length: !meta.limit, set: !held.includes(1), colour: !meta.losses.length };
  for (const id in none) $(id).hidden = none[id];
  drawDecisions();
}
let typing = 0;
$('query').addEventListener('input', () => { clearTimeout(typing); typing = setTimeout(choose, 90); });
for (const id of fields.slice(1)) $(id).addEventListener('change', choose);
$('colour').addEventListener('change', () => { if (open >= 0) show(open); });
$('reset').onclick = reset;
$('download').onclick = () => download('drop.txt', decisionFile());
$('forget').onclick = () => {
  if (!confirm('Forget all decisions and notes on this page?')) return;
  decisions.clear(); notes.clear(); remember(); choose(true);
};
$('theme').onclick = () => {
  const next = { '': 'light', light: 'dark', dark: '' }[document.documentElement.dataset.theme || ''];
  if (next) document.documentElement.dataset.theme = next; else delete document.documentElement.dataset.theme;
  $('theme').textContent = '◐ ' + (next || 'auto');
};
addEventListener('hashchange', () => follow());
const tabs = [...document.querySelectorAll('[role=tab]')];
tabs.forEach((b, k) => {
  b.onclick = () => tab(b.dataset.tab);
  b.onkeydown = e => {
    const d = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
    if (d) { const to = tabs[(k + d + tabs.length) % tabs.length]; tab(to.dataset.tab); to.focus(); e.stopPropagation(); }
  };
});
// Bars, findings, tokens and groups say in `data-filter` and `data-value` which rows they stand for.
function pressed(e) {
  const b = e.target.closest('[data-filter]');
  if (!b || e.type === 'keydown' && e.key !== 'Enter' && e.key !== ' ') return;
  e.preventDefault();
  filterBy(b.dataset.filter, b.dataset.value);
}
document.addEventListener('click', pressed);
document.querySelectorAll('svg [data-filter]').forEach(b => b.addEventListener('keydown', pressed));
document.addEventListener('keydown', e => {
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  const field = /^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName), inList = e.target === $('list');
  if (e.key === 'Escape') { reset(); if (field) e.target.blur(); return; }
  if (e.target === $('query') && (e.key === 'Enter' || e.key === 'ArrowDown')) {
    e.preventDefault();
    $('list').focus();
    if (rows.length) show(rows.includes(open) ? open : rows[0], true);
    return;
  }
  if (field) return;
  if (e.key === '/') { e.preventDefault(); tab('rows'); $('query').focus(); $('query').select(); return; }
  if (e.key >= '1' && e.key <= '4') { tab(tabs[e.key - 1].dataset.tab); return; }
  if (current !== 'rows') return;
  const page = Math.max(1, Math.floor($('list').clientHeight / H) - 1);
  const steps = inList ? { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -N, End: N } : {};
  const d = { j: 1, i: -1, ...steps }[e.key];
  if (d) { e.preventDefault(); go(d); return; }
  if (open < 0) return;
  if (e.key === 't') { table = !table; show(open); }
  else if (e.key === 'x') decide(open, 'drop');
  else if (e.key === 'k') decide(open, 'keep');
  else if (e.key === 'n') { e.preventDefault(); writeNote(open); }
});

async function start() {
  if (typeof DecompressionStream === 'undefined') { $('status').textContent = 'This browser is too old to read the rows.'; return; }
  const asked = location.hash;
  await readLists();
  fill();
  let since = performance.now();
  for (const c of document.querySelectorAll('script[data-first]')) {
    await read(c);
    while (loaded < N && at[loaded]) loaded++;
    if (c.dataset.first === '0' || performance.now() - since > 60) { await new Promise(r => setTimeout(r)); since = performance.now(); }
  }
  for (const c of document.querySelectorAll('script[data-losses]')) await readLosses(c);
  await choose();
  follow(asked);
  document.documentElement.dataset.ready = '1';
  warm(0);
}
function warm(i) { // texts to search in are made while nothing else happens
  const end = performance.now() + 10;
  while (i < N && performance.now() < end) text(i++, 'all');
  if (i < N) setTimeout(() => warm(i), 5);
}
switchTab(/row|rule|q=/.test(location.hash) ? 'rows' : 'overview');
requestAnimationFrame(() => setTimeout(start));
