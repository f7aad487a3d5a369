// -- the list ----------------------------------------------------------------
const H = 74, spacer = el('div'), empty = el('div', '', 'No rows match.');
empty.id = 'empty';
spacer.setAttribute('role', 'presentation');
$('list').append(spacer);
function strip(i) { // where the trained tokens lie
  const stops = [], total = tokens[i] || 1;
  let p = 0, on = 0, parts = 0;
  for (const n of list(i, 'runs')) {
    const a = 100 * p / total, b = Math.max(100 * (p + n) / total, a + .7);
    if (n && on && parts++ < 60) stops.push(`transparent ${a}%`, `var(--good) ${a}%`, `var(--good) ${b}%`, `transparent ${b}%`);
    p += n; on = 1 - on;
  }
  return stops.length ? `linear-gradient(90deg, ${stops.join(', ')})` : 'none';
}
function peek(i, into) { // the place of a match, or where training begins
  const q = query().toLowerCase(), where = q ? value('in') : trained[i] ? 'trained' : 'all', s = raw(i, where);
  const p = q ? text(i, where).indexOf(q) : 0, from = Math.max(0, p - 18), end = Math.max(p, 0) + q.length;
  const plain = t => t.replace(/\s+/g, ' ');
  into.append((from ? '…' : '') + plain(s.slice(from, Math.max(p, 0))));
  if (q && p >= 0) into.append(el('mark', '', plain(s.slice(p, end))));
  into.append(plain(s.slice(end, p + 160)));
}
function worst(i) { // the gravest severity of a row's findings, in a word
  const found = meta.rules.filter((r, k) => ruleHits[k][i]);
  return found.length ? found.reduce((a, b) => rank(b) < rank(a) ? b : a).severity : '';
}
function badge(cls, text, title) { const e = el('span', 'badge ' + cls, text); if (title) e.title = title; return e; }
function item(k) {
  const i = rows[k], e = el('div', 'item'), one = el('div', 'one'), grave = worst(i), note = notes.get(i);
  e.id = 'row-' + i; e.style.top = k * H + 'px'; e.setAttribute('role', 'option');
  e.setAttribute('aria-selected', i === open); e.setAttribute('aria-posinset', k + 1); e.setAttribute('aria-setsize', rows.length);
  one.append(el('b', '', num(i)), el('span', 'place', place(i)));
  if (held[i]) one.append(badge('held', 'held out'));
  if (decisions.get(i)) one.append(badge(decisions.get(i), decisions.get(i)));
  if (note) one.append(badge('noted', 'note', note));
  if (grave) one.append(badge('sev-' + grave, nFound[i] > 1 ? `${grave} +${nFound[i] - 1}` : grave, many(nFound[i], 'finding')));
  const n = el('span', 'n', `${num(trained[i])} / ${num(tokens[i])}${over[i] ? ' long' : ''}`);
  n.title = `${num(trained[i])} of ${many(tokens[i], 'token')} trained${over[i] ? ', longer than sequence_len' : ''}`;
  const bar = el('div', 'strip'), t = el('div', 'text');
  bar.style.backgroundImage = strip(i);
  peek(i, t); one.append(n); e.append(one, bar, t);
  e.onclick = () => { show(i); if (narrow()) readOnly(true); };
  return e;
}
let drawn = '';
function draw(force) {
  const box = $('list'), first = Math.max(0, Math.floor(box.scrollTop / H) - 6);
  const last = Math.min(rows.length, Math.ceil((box.scrollTop + box.clientHeight) / H) + 6), now = first + '-' + last;
  if (!force && now === drawn) return;
  drawn = now;
  spacer.style.height = rows.length * H + 'px';
  const items = [];
  for (let k = first; k < last; k++) items.push(item(k));
  box.replaceChildren(spacer, ...(rows.length || loaded < N ? items : [empty]));
  const k = rows.indexOf(open);
  if (k >= first && k < last) box.setAttribute('aria-activedescendant', 'row-' + open); else box.removeAttribute('aria-activedescendant');
}
function reveal(k) {
  const box = $('list');
  if (k * H < box.scrollTop) box.scrollTop = k * H;
  else if ((k + 1) * H > box.scrollTop + box.clientHeight) box.scrollTop = (k + 1) * H - box.clientHeight;
  draw(true);
}
let waiting = 0;
$('list').addEventListener('scroll', () => { if (!waiting) waiting = requestAnimationFrame(() => { waiting = 0; draw(); }); });
addEventListener('resize', () => draw(true));
// On a narrow screen the list and the row take turns.
const narrow = () => matchMedia('(max-width: 900px)').matches;
function readOnly(on) {
  document.querySelector('.browser').classList.toggle('reading', on);
  if (on) document.querySelector('.browser').scrollIntoView({ block: 'start' }); else { draw(true); if (rows.includes(open)) reveal(rows.indexOf(open)); }
}
