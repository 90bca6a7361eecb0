// The replicator against pouchdb-server: both directions once, then two nodes and the server in a ring, with edits on each, a link that
// breaks, and SIGKILLs. All end with the same winners, conflicts and attachments.
// Usage: node ring.mjs WORK REFUGE SERVER: a folder, the binary, and the folder where pouchdb-server is installed.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import net from 'node:net';
import { createInterface } from 'node:readline';

const [work, refuge, server] = process.argv.slice(2);
const PATIENCE_MS = 180_000;
const json = { 'content-type': 'application/json' };

// A seed for what is edited where; printed, and taken from REFUGE_SEED.
let seed = Number(process.env.REFUGE_SEED ?? Date.now() % 1_000_000);
console.log(`ring: seed ${seed}`);
const below = (bound) => {
  seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
  return Math.floor((seed / 2_147_483_648) * bound);
};

const freePort = () => new Promise((resolve) => {
  const listener = net.createServer().listen(0, '127.0.0.1', () => {
    const { port } = listener.address();
    listener.close(() => resolve(port));
  });
});

async function until(what, isSo) {
  const ends = Date.now() + PATIENCE_MS;
  let last;
  for (;;) {
    try {
      last = await isSo();
      if (last === true) return;
    } catch (error) { last = error; }
    if (Date.now() > ends) throw new Error(`${what} does not come about: ${JSON.stringify(last)?.slice(0, 2000) ?? last}`);
    await new Promise((resolve) => { setTimeout(resolve, 100); });
  }
}

async function ask(url, method, body, headers = {}) {
  const parts = new URL(url);
  const sent = { method, headers: { ...headers } };
  if (parts.password) sent.headers.authorization = `Basic ${Buffer.from(`${parts.username}:${parts.password}`).toString('base64')}`;
  parts.username = '';
  parts.password = '';
  if (body !== undefined) {
    sent.body = JSON.stringify(body);
    Object.assign(sent.headers, json);
  }
  const answer = await fetch(parts, sent);
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${parts}: ${answer.status} ${text.slice(0, 500)}`);
  return JSON.parse(text);
}

const children = new Set();
function begin(command, args, options = {}) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
  children.add(child);
  child.log = '';
  child.stderr.on('data', (piece) => { child.log = (child.log + piece).slice(-8000); });
  child.ended = new Promise((resolve) => { child.once('exit', resolve); });
  return child;
}
process.on('exit', () => { for (const child of children) child.kill('SIGKILL'); });

class Node {
  // `link` is a port by which it is reached as well.
  constructor(name, link) {
    this.name = name;
    this.link = link;
  }

  async start() {
    this.port ??= await freePort();
    this.child = begin(refuge, ['serve', '--data', `${work}/${this.name}`, '--listen', '127.0.0.1:0',
      '--plain-http', `127.0.0.1:${this.port}`, '--replicate-allow', '127.0.0.0/8', '--json',
      ...(this.link ? ['--authority', `127.0.0.1:${this.link.port}`] : [])]);
    const line = await new Promise((resolve, reject) => {
      createInterface({ input: this.child.stdout }).once('line', resolve);
      this.child.ended.then(() => reject(new Error(`${this.name} ended: ${this.child.log}`)));
    });
    const ready = JSON.parse(line);
    if (!this.token) {
      const claimed = await fetch(`${ready.http}/api/claim`, {
        method: 'POST', headers: json,
        body: JSON.stringify({ account: 'ada', code: ready.claim_code, password: 'correct horse battery' }),
      });
      const cookie = claimed.headers.get('set-cookie').split(';')[0];
      const made = await fetch(`${ready.http}/api/tokens`, {
        method: 'POST', headers: { ...json, cookie, origin: ready.http }, body: JSON.stringify({ label: 'ring', scopes: ['admin'] }),
      });
      this.token = (await made.json()).token;
    }
  }

  async kill() {
    this.child.kill('SIGKILL');
    await this.child.ended;
  }

  url(path) {
    return `http://app:${this.token}@127.0.0.1:${this.port}/db/${path}`;
  }
}

class Server {
  async start() {
    this.port ??= await freePort();
    this.folder ??= `${work}/pouchdb-server`;
    mkdirSync(this.folder, { recursive: true });
    this.child = begin(process.execPath, ['--unhandled-rejections=warn', `${server}/node_modules/pouchdb-server/bin/pouchdb-server`,
      '--port', `${this.port}`, '--host', '127.0.0.1', '--dir', this.folder, '--config', `${this.folder}/config.json`, '--no-stdout-logs'],
    { cwd: this.folder });
    this.child.stdout.resume();
    await until('pouchdb-server', async () => (await ask(this.url(''), 'GET')) !== null);
  }

  async kill() {
    this.child.kill('SIGKILL');
    await this.child.ended;
  }

  url(path) {
    return `http://127.0.0.1:${this.port}/${path}`;
  }
}

// A link that can be cut: what comes to its port goes on to a peer.
class Link {
  async start() {
    this.sockets = new Set();
    this.listener = net.createServer((socket) => {
      if (this.isCut) { socket.destroy(); return; }
      const onward = net.connect(this.to.port, '127.0.0.1');
      for (const [one, other] of [[socket, onward], [onward, socket]]) {
        this.sockets.add(one);
        one.on('error', () => other.destroy());
        one.on('close', () => { this.sockets.delete(one); other.destroy(); });
        one.pipe(other);
      }
    });
    await new Promise((resolve) => { this.listener.listen(0, '127.0.0.1', resolve); });
    this.port = this.listener.address().port;
  }

  cut() {
    this.isCut = true;
    for (const socket of this.sockets) socket.destroy();
  }

  heal() {
    this.isCut = false;
  }
}

// What counts of a database: of each document the winner, the conflicts and the attachments.
async function state(url) {
  const all = await ask(`${url}/_all_docs?include_docs=true&conflicts=true`, 'GET');
  return all.rows.map(({ id, value, doc }) => [id, value.rev, [...(doc._conflicts ?? [])].sort(),
    Object.entries(doc._attachments ?? {}).map(([name, { digest }]) => `${name} ${digest}`).sort()]);
}

const photo = (text, size) => ({ content_type: 'image/jpeg', data: Buffer.alloc(size, text).toString('base64') });
const docs = (count, prefix) => Array.from({ length: count }, (_, n) => ({ _id: `${prefix}${String(n).padStart(5, '0')}`, n, text: 'x'.repeat(100) }));

const links = { toTwo: new Link(), toThree: new Link(), fromThree: new Link() };
for (const link of Object.values(links)) await link.start();
const [one, two, three] = [new Node('one'), new Node('two', links.toTwo), new Server()];
Object.assign(links.toTwo, { to: two });
Object.assign(links.toThree, { to: three });
Object.assign(links.fromThree, { to: three });
await Promise.all([one.start(), two.start(), three.start()]);

// Both directions, once.
await ask(one.url('once'), 'PUT');
await ask(three.url('once'), 'PUT');
await ask(`${one.url('once')}/_bulk_docs`, 'POST', { docs: [...docs(1200, 'node'),
  { _id: 'photo', _attachments: { 'p.jpg': photo('node', 200_000), 'small.txt': photo('s', 5) } }] });
await ask(`${three.url('once')}/_bulk_docs`, 'POST', { docs: [...docs(600, 'server'),
  { _id: 'picture', _attachments: { 'q.jpg': photo('server', 200_000) } }, { _id: '_design/d', views: {} }] });
const replicate = (source, target, more = {}) => ask(one.url('_replicate'), 'POST', { source, target, ...more });
const pushed = await replicate('once', three.url('once'));
assert.deepEqual([pushed.history[0].docs_written, pushed.history[0].doc_write_failures], [1201, 0]);
const pulled = await replicate(three.url('once'), 'once');
assert.deepEqual([pulled.history[0].docs_written, pulled.history[0].doc_write_failures], [602, 0]);
assert.deepEqual(await state(one.url('once')), await state(three.url('once')));
// An edit beside attachments that are there already, conflicts, and deletions of either side.
for (const [url, by] of [[one.url('once'), 'node'], [three.url('once'), 'server']]) {
  for (const id of ['photo', 'picture', 'node00001']) {
    await ask(`${url}/${id}`, 'PUT', { ...(await ask(`${url}/${id}`, 'GET')), by });
  }
  const gone = await ask(`${url}/${by}00003`, 'GET');
  await ask(`${url}/${by}00003?rev=${gone._rev}`, 'DELETE');
}
await replicate('once', three.url('once'));
await replicate(three.url('once'), 'once');
await replicate('once', three.url('once'));
const once = await state(one.url('once'));
assert.deepEqual(once, await state(three.url('once')));
assert.equal(once.find(([id]) => id === 'photo')[2].length, 1);
// Another server's database into a third one, by a node that has neither.
await replicate(three.url('once'), two.url('far'), { create_target: true });
assert.deepEqual(await state(two.url('far')), once);
const filtered = await replicate(three.url('once'), 'some', { create_target: true, doc_ids: ['photo', 'server00001', 'none'] });
assert.equal(filtered.history[0].docs_written, 3);
assert.equal((await replicate(three.url('once'), 'once')).no_changes, true);

// The ring: one -> two -> three -> one, each link continuous.
for (const peer of [one, two, three]) await ask(peer.url('ring'), 'PUT');
for (const node of [one, two]) await ask(node.url('_replicator'), 'PUT');
const over = (link, url) => url.replace(/127\.0\.0\.1:\d+/, `127.0.0.1:${link.port}`);
const jobs = [
  [one, 'push', { source: 'ring', target: over(links.toTwo, two.url('ring')) }],
  [two, 'push', { source: 'ring', target: over(links.toThree, three.url('ring')) }],
  [one, 'pull', { source: over(links.fromThree, three.url('ring')), target: 'ring' }],
];
for (const [node, id, job] of jobs) await ask(node.url(`_replicator/${id}`), 'PUT', { ...job, continuous: true });

async function edit(peer) {
  const url = peer.url('ring');
  const id = `doc${below(40)}`;
  let doc;
  try { doc = await ask(`${url}/${id}?conflicts=true`, 'GET'); } catch { doc = { _id: id }; }
  const leaf = doc._conflicts?.length && below(2) ? doc._conflicts[0] : doc._rev;
  if (leaf && below(5) === 0) {
    await ask(`${url}/${id}?rev=${leaf}`, 'DELETE');
    return;
  }
  const fresh = { ...doc, n: below(1000), by: peer.name ?? 'server' };
  delete fresh._conflicts;
  if (below(4) === 0) fresh._attachments = { ...fresh._attachments, [`a${below(3)}`]: photo(`${below(10)}`, 1 + below(60_000)) };
  await ask(`${url}/${id}`, 'PUT', fresh);
}
// One that is down, or that somebody else was faster on, has its edit refused: both are what happens.
const edits = (count) => Promise.all([one, two, three].map(async (peer) => {
  for (let n = 0; n < count; n += 1) await edit(peer).catch(() => {});
}));

await edits(20);
for (const [name, link, victim] of [['one', links.toTwo, one], ['two', links.toThree, two], ['three', links.fromThree, three], ['one', links.fromThree, one]]) {
  link.cut();
  await edits(15);
  const editing = edits(15);
  await victim.kill();
  link.heal();
  await editing;
  await victim.start();
  console.log(`ring: a link was cut and ${name} was killed`);
  await edits(10);
}
try {
  await until('the same everywhere', alike);
} catch (error) {
  for (const node of [one, two]) {
    console.error(node.name, JSON.stringify(await ask(node.url('_scheduler/docs'), 'GET')), JSON.stringify(await ask(node.url('_scheduler/jobs'), 'GET')));
    console.error(node.child.log);
  }
  throw error;
}
async function alike() {
  const [a, b, c] = [await state(one.url('ring')), await state(two.url('ring')), await state(three.url('ring'))];
  const [x, y, z] = [a, b, c].map((found) => JSON.stringify(found));
  return (x === y && y === z && a.length > 5) || { a: a.filter((row) => !y.includes(JSON.stringify(row))), b: b.filter((row) => !z.includes(JSON.stringify(row))) };
}
// The bytes of every attachment, too.
const final = await state(one.url('ring'));
let compared = 0;
for (const [id, , , attachments] of final) {
  for (const name of attachments.map((text) => text.split(' ')[0])) {
    const bytes = await Promise.all([one, two, three].map(async (peer) => {
      const parts = new URL(peer.url(`ring/${id}/${name}`));
      const headers = parts.password ? { authorization: `Basic ${Buffer.from(`${parts.username}:${parts.password}`).toString('base64')}` } : {};
      parts.username = '';
      parts.password = '';
      const answer = await fetch(parts, { headers });
      assert.equal(answer.status, 200);
      return Buffer.from(await answer.arrayBuffer()).toString('base64');
    }));
    assert.ok(bytes[0] === bytes[1] && bytes[1] === bytes[2], `${id} ${name}`);
    compared += 1;
  }
}
console.log(`ring: ${final.length} documents and ${compared} attachments are alike on two nodes and pouchdb-server`);
for (const link of Object.values(links)) { link.cut(); link.listener.close(); }
process.exit(0);
