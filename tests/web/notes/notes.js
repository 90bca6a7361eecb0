// Offline-first notes: everything is written into this browser's database, and PouchDB keeps that and the box's the same
// whenever there is a network. When one note was changed in two places, both texts are shown and one is picked.

const KEPT = 'notes.place';
const by = (id) => document.getElementById(id);
const here = new PouchDB('notes');
const device = localStorage.device ??= navigator.userAgent.includes('Mobile') ? 'phone' : `browser ${crypto.randomUUID().slice(0, 4)}`;

let open;            // The note in the editor, as it was read last.
let saving = Promise.resolve();
let syncing;
const waiting = new Set();     // Notes with edits that the box has not confirmed.

const place = () => JSON.parse(localStorage.getItem(KEPT) ?? 'null');

function show(state, text) {
  by('state').dataset.state = state;
  by('state-text').textContent = text;
}

function offline() {
  const more = waiting.size === 0 ? '' : waiting.size === 1 ? ', one note waits' : `, ${waiting.size} notes wait`;
  show('offline', `Offline${more}`);
}

// --- the list and the editor

const when = (time) => new Date(time).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' });

async function draw() {
  const { rows } = await here.allDocs({ include_docs: true, conflicts: true });
  const notes = rows.map((row) => row.doc).filter((doc) => doc.type === 'note').sort((a, b) => b.edited.localeCompare(a.edited));
  by('none').hidden = notes.length > 0;
  by('list').replaceChildren(...notes.map((note) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.dataset.note = note._id;
    button.setAttribute('aria-current', String(note._id === open?._id));
    const title = document.createElement('strong');
    title.textContent = note.title || 'Without a title';
    const line = document.createElement('span');
    if (note._conflicts) {
      line.textContent = 'Changed in two places';
      line.className = 'mark';
    } else {
      line.textContent = note.text.split('\n')[0] || when(note.edited);
    }
    button.append(title, line);
    button.addEventListener('click', () => choose(note._id));
    const item = document.createElement('li');
    item.append(button);
    return item;
  }));
  const current = notes.find((note) => note._id === open?._id);
  if (open && !current) return close();
  if (current && current._rev !== open._rev) await edit(current);
  if (current) await compare(current);
}

async function choose(id) {
  await saving;
  await edit(await here.get(id, { conflicts: true }));
  await draw();
}

async function edit(note) {
  for (const name of ['title', 'text']) {
    const field = by(name);
    // What is typed and not saved yet is not pulled away: it is saved a moment later, as an edit after this one.
    const isTyped = open?._id === note._id && field.value !== open[name];
    if (!isTyped && field.value !== note[name]) field.value = note[name];
  }
  open = note;
  by('editor').hidden = false;
  by('nothing-open').hidden = true;
  by('when').textContent = `Edited ${when(note.edited)} · ${note.device}`;
}

function close() {
  open = undefined;
  by('editor').hidden = true;
  by('nothing-open').hidden = false;
}

// Shows the texts of a note that was changed in two places.
async function compare(note) {
  by('conflict').hidden = !note._conflicts;
  if (!note._conflicts) return by('versions').replaceChildren();
  const others = await Promise.all(note._conflicts.map((rev) => here.get(note._id, { rev })));
  by('versions').replaceChildren(...[note, ...others].map((version) => {
    const card = document.createElement('div');
    card.className = 'version';
    const text = document.createElement('p');
    text.textContent = version.text;
    const from = document.createElement('small');
    from.textContent = `${version.device}, ${when(version.edited)}`;
    const keep = document.createElement('button');
    keep.type = 'button';
    keep.className = 'main';
    keep.textContent = 'Keep this';
    keep.dataset.rev = version._rev;
    keep.addEventListener('click', () => settle(note, version, others));
    card.append(from, text, keep);
    return card;
  }));
}

async function settle(winner, kept, others) {
  await here.put({ ...winner, title: kept.title, text: kept.text, edited: new Date().toISOString(), device, _conflicts: undefined });
  for (const other of others) await here.remove(other._id, other._rev);
  await choose(winner._id);
}

// Edits are written one after the other, each onto the revision that was read.
function save() {
  const id = open?._id;
  saving = saving.then(async () => {
    if (!id || open?._id !== id) return;
    const [title, text] = [by('title').value, by('text').value];
    if (open.title === title && open.text === text) return;
    const note = { ...open, title, text, edited: new Date().toISOString(), device, _conflicts: undefined };
    open = { ...note, _rev: (await here.put(note)).rev };
    by('when').textContent = `Edited ${when(note.edited)} · ${device}`;
  }).catch((error) => {
    // Somebody else's edit came in between: what is typed stays in the editor, and the next save follows that.
    if (error.status !== 409) show('refused', error.message);
    return draw();
  });
  return saving;
}

async function begin() {
  await save();
  const note = { _id: `note-${new Date().toISOString()}-${crypto.randomUUID().slice(0, 8)}`, type: 'note', title: '', text: '', edited: new Date().toISOString(), device };
  await edit({ ...note, _rev: (await here.put(note)).rev });
  await draw();
  by('title').focus();
}

// --- the box

function connect({ url, token }) {
  syncing?.cancel();
  const box = new PouchDB(url, { auth: { username: device, password: token } });
  const filter = { live: true, retry: true, back_off_function: (delay) => Math.min(delay ? delay * 2 : 250, 4000) };
  syncing = here.sync(box, filter)
    .on('active', () => show('syncing', 'Syncing'))
    .on('paused', async (error) => {
      if (error || !navigator.onLine) return offline();
      waiting.clear();
      show('synced', 'All in sync');
    })
    .on('denied', ({ doc }) => show('refused', `The box refused ${doc.id}`))
    .on('error', (error) => show('refused', error.status === 401 ? 'The box does not know this token' : error.message ?? 'Not connected'));
}

async function enter(where) {
  by('connect').hidden = true;
  by('notes').hidden = false;
  by('sign-out').hidden = false;
  connect(where);
  await draw();
}

by('connect-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const where = { url: by('url').value.trim(), token: by('token').value.trim() };
  const wrong = by('connect-wrong');
  wrong.hidden = true;
  try {
    await new PouchDB(where.url, { auth: { username: device, password: where.token } }).info();
  } catch (error) {
    wrong.textContent = error.status === 401 ? 'The box does not know this token.' : `The box was not reached: ${error.message}`;
    wrong.hidden = false;
    return;
  }
  localStorage.setItem(KEPT, JSON.stringify(where));
  await enter(where);
});

by('sign-out').addEventListener('click', () => {
  syncing?.cancel();
  localStorage.removeItem(KEPT);
  location.reload();
});
by('new').addEventListener('click', begin);
for (const field of [by('title'), by('text')]) field.addEventListener('input', save);
by('remove').addEventListener('click', async () => {
  await saving;
  const note = open;
  close();
  await here.remove(note._id, note._rev);
});
addEventListener('online', () => place() && connect(place()));
addEventListener('offline', offline);

here.changes({ since: 'now', live: true }).on('change', ({ id }) => {
  if (!navigator.onLine) { waiting.add(id); offline(); }
  draw();
});

if ('serviceWorker' in navigator) navigator.serviceWorker.register('worker.js');
if (place()) await enter(place());
else {
  by('connect').hidden = false;
  show('starting', 'Not connected');
}
document.body.classList.remove('is-loading');
