// -- deciding ----------------------------------------------------------------
const decisions = new Map(), notes = new Map(), kept = `segtune:${meta.key}`;
try {
  for (const [i, mark_, note] of JSON.parse(localStorage.getItem(kept) || '[]')) {
    if (i < N && mark_) decisions.set(i, mark_);
    if (i < N && note) notes.set(i, note);
  }
} catch { /* a page that may keep nothing still works */ }
const decidedRows = () => [...new Set([...decisions.keys(), ...notes.keys()])].sort((a, b) => a - b);
const decidedAs = (i, how) => how === 'noted' ? notes.has(i) : how === 'undecided' ? !decisions.has(i) : decisions.get(i) === how;
function remember() {
  try { localStorage.setItem(kept, JSON.stringify(decidedRows().map(i => [i, decisions.get(i), notes.get(i)]))); } catch { /* likewise */ }
  drawDecisions();
}
function drawDecisions() {
  const n = how => decidedRows().filter(i => decidedAs(i, how)).length, parts = [];
  if (n('drop')) parts.push(`${num(n('drop'))} to drop`);
  if (n('keep')) parts.push(`${num(n('keep'))} to keep`);
  if (notes.size) parts.push(many(notes.size, 'note'));
  $('decisions').textContent = parts.join(', ') || 'no decisions yet';
  $('download').disabled = $('forget').disabled = !parts.length;
}
function decide(i, how) {
  if (decisions.get(i) === how) decisions.delete(i); else decisions.set(i, how);
  remember(); show(i);
  say(decisions.get(i) ? `${rowName(i)}: ${how}` : `${rowName(i)}: undecided`);
}
function noteBox(i) {
  if (!notes.has(i)) return [];
  const e = el('div', 'found group');
  e.append(el('b', '', 'Note: '), notes.get(i));
  return [e];
}
function writeNote(i) {
  const form = el('form', 'noting'), field = el('input'), done = el('button', '', 'save');
  field.value = notes.get(i) || ''; field.id = 'note-text'; field.setAttribute('aria-label', `A note on ${rowName(i)}`);
  field.placeholder = 'Why? Enter saves, Esc leaves it as it was';
  form.append(field, done);
  form.onsubmit = e => {
    e.preventDefault();
    const note = field.value.replace(/\s+/g, ' ').trim();
    if (note) notes.set(i, note); else notes.delete(i);
    remember(); show(i); $('list').focus({ preventScroll: true });
  };
  field.onkeydown = e => { if (e.key === 'Escape') { e.stopPropagation(); show(i); $('list').focus({ preventScroll: true }); } };
  document.querySelector('#shown .acts').after(form);
  field.focus();
}
function decisionFile() { // one `file:line` for each row to drop; everything else is a comment
  const all = decidedRows(), drop = all.filter(i => decisions.get(i) === 'drop'), seen = new Set();
  const out = [`# ${document.title.replace(/\s+/g, ' ')}: ${many(drop.length, 'row')} to drop. Use: segtune preprocess CONFIG --drop THIS_FILE`];
  for (const i of all) {
    const name = place(i), note = notes.get(i), what = decisions.get(i);
    if (note) out.push(`# ${name || rowName(i)}: ${note}`);
    if (what === 'keep') out.push(`# keep ${name || rowName(i)}`);
    if (what === 'drop' && !name) out.push(`# drop ${rowName(i)}, whose file and line are not known`);
    if (what === 'drop' && name && !seen.has(name)) { seen.add(name); out.push(name); }
  }
  return out.join('\n') + '\n';
}
function download(name, content) {
  const a = el('a');
  a.href = URL.createObjectURL(new Blob([content], { type: 'text/plain' }));
  a.download = name;
  a.click();
  setTimeout(() => URL.revokeObjectURL(a.href), 1000);
}

// -- copying -----------------------------------------------------------------
let saying = 0;
function say(what) {
  $('said').textContent = what;
  clearTimeout(saying);
  saying = setTimeout(() => { $('said').textContent = ''; }, 2500);
}
function copy(content, what) { // as it is: a text field would change carriage returns
  const give = e => { e.clipboardData.setData('text/plain', content); e.preventDefault(); e.stopImmediatePropagation(); };
  document.addEventListener('copy', give, true);
  let done = false;
  try { done = document.execCommand('copy'); } finally { document.removeEventListener('copy', give, true); }
  if (done) { say(`copied ${what}`); return; }
  navigator.clipboard.writeText(content).then(() => say(`copied ${what}`), () => say('the browser does not let this page copy'));
}
