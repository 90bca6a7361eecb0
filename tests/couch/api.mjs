// What apps do with one database through pouchdb-adapter-http.
import assert from 'node:assert/strict';
import { access, ask, remote } from './access.mjs';

const db = remote('api');

// The first request of an app makes its database.
const info = await db.info();
assert.equal(info.doc_count, 0);
assert.equal(info.db_name, 'api');

// Documents.
const put = await db.put({ _id: 'one', title: 'Größe', nested: { a: [1, 2.5, null, true, '\u0001"\\'] } });
assert.match(put.rev, /^1-[0-9a-f]{32}$/);
const got = await db.get('one');
assert.deepEqual(got, { _id: 'one', _rev: put.rev, title: 'Größe', nested: { a: [1, 2.5, null, true, '\u0001"\\'] } });
await assert.rejects(db.put({ _id: 'one', title: 'again' }), { status: 409, name: 'conflict' });
await assert.rejects(db.get('none'), { status: 404, reason: 'missing' });
const second = await db.put({ ...got, title: 'two' });
assert.match(second.rev, /^2-/);
const revs = await db.get('one', { revs: true, revs_info: true });
assert.deepEqual(revs._revisions.ids, [second.rev.slice(2), put.rev.slice(2)]);
assert.equal(revs._revs_info[0].status, 'available');
const posted = await db.post({ made: 'here' });
assert.equal((await db.get(posted.id)).made, 'here');
for (const id of ['a/b c', 'ü%2F+&?', '_design/x', 'q"uote']) {
  await db.put({ _id: id, id });
  assert.equal((await db.get(id)).id, id);
}
await db.remove(second.id, second.rev);
await assert.rejects(db.get('one'), { status: 404, reason: 'deleted' });
const back = await db.put({ _id: 'one', title: 'back' });
assert.match(back.rev, /^4-/);

// A revision of {} is CouchDB's.
assert.equal((await db.put({ _id: 'empty' })).rev, '1-967a00dff5e02add41819138abb3284d');

// Many at once, lists and keys.
const many = await db.bulkDocs(Array.from({ length: 120 }, (_, n) => ({ _id: `n${String(n).padStart(3, '0')}`, n })));
assert.ok(many.every((one) => one.ok));
assert.equal((await db.bulkDocs([{ _id: 'n000' }]))[0].status, 409);
const page = await db.allDocs({ startkey: 'n010', endkey: 'n020', include_docs: true });
assert.equal(page.rows.length, 11);
assert.equal(page.rows[3].doc.n, 13);
const descending = await db.allDocs({ startkey: 'n020', endkey: 'n010', descending: true, limit: 3, skip: 1 });
assert.deepEqual(descending.rows.map((row) => row.id), ['n019', 'n018', 'n017']);
const keys = await db.allDocs({ keys: ['n001', 'gone', 'n002'] });
assert.deepEqual(keys.rows.map((row) => row.id ?? row.error), ['n001', 'not_found', 'n002']);
const bulk = await db.bulkGet({ docs: [{ id: 'n005' }, { id: 'gone', rev: '1-a' }, { id: 'n006', rev: '1-b' }] });
assert.deepEqual(bulk.results.map((one) => Object.keys(one.docs[0])[0]), ['ok', 'error', 'error']);

// Attachments: inline, alone, as stubs, ranges, digests.
const hello = Buffer.from('hello world');
await db.put({ _id: 'att', _attachments: { 'a b/ü.txt': { content_type: 'text/plain', data: hello.toString('base64') } } });
const stub = (await db.get('att'))._attachments['a b/ü.txt'];
assert.deepEqual(stub, { content_type: 'text/plain', revpos: 1, digest: 'md5-XrY7u+Ae7tCTyyK7j1rNww==', length: 11, stub: true });
assert.ok((await db.getAttachment('att', 'a b/ü.txt')).equals(hello));
const large = Buffer.alloc(3_000_001, 'abcdefg');
let att = await db.get('att');
await db.putAttachment('att', 'large.bin', att._rev, large, 'application/octet-stream');
att = await db.get('att', { attachments: true });
assert.equal(att._attachments['large.bin'].data, large.toString('base64'));
assert.equal(att._attachments['a b/ü.txt'].revpos, 1);
assert.equal(att._attachments['large.bin'].revpos, 2);
await db.put({ ...(await db.get('att')), title: 'stubs stay' });
assert.ok((await db.getAttachment('att', 'large.bin')).equals(large));
const range = await ask('GET', '/api/att/large.bin', { headers: { range: 'bytes=7-13' } });
assert.equal(range.status, 206);
assert.equal(range.text, 'abcdefg');
const tagged = await ask('GET', '/api/att/large.bin', { headers: { 'if-none-match': range.headers.get('etag') } });
assert.equal(tagged.status, 304);
att = await db.get('att');
await db.removeAttachment('att', 'large.bin', att._rev);
await assert.rejects(db.getAttachment('att', 'large.bin'), { status: 404 });
await assert.rejects(db.put({ _id: 'nostub', _attachments: { x: { stub: true } } }), { status: 412, error: 'missing_stub' });

// Local documents.
const saved = await db.put({ _id: '_local/mark', at: 1 });
assert.equal(saved.rev, '0-1');
assert.equal((await db.get('_local/mark')).at, 1);
await assert.rejects(db.put({ _id: '_local/mark', at: 2 }), { status: 409 });
await db.put({ _id: '_local/mark', _rev: '0-1', at: 2 });

// Changes, as a list and while they happen.
const changes = await db.changes({ since: 0, include_docs: true });
assert.ok(changes.results.length > 120);
assert.equal(new Set(changes.results.map((one) => one.id)).size, changes.results.length);
const few = await db.changes({ since: 0, limit: 7 });
assert.equal(few.results.length, 7);
const plain = await ask('GET', '/api/_changes?limit=7');
assert.equal(plain.json.results.length, 7);
assert.equal(plain.json.pending + 7, changes.results.length);
const rest = await db.changes({ since: few.last_seq });
assert.equal(rest.results.length + 7, changes.results.length);
const ids = await db.changes({ doc_ids: ['n003', 'n004'] });
assert.deepEqual(ids.results.map((one) => one.id).sort(), ['n003', 'n004']);
const selected = await db.changes({ selector: { n: { $gte: 118 } }, filter: '_selector' });
assert.deepEqual(selected.results.map((one) => one.id).sort(), ['n118', 'n119']);
const seen = await new Promise((resolve, reject) => {
  const feed = db.changes({ since: 'now', live: true, include_docs: true })
    .on('change', (change) => { feed.cancel(); resolve(change); })
    .on('error', reject);
  setTimeout(() => db.put({ _id: 'live', is: 'live' }), 50);
});
assert.equal(seen.doc.is, 'live');
const last = await ask('GET', '/api/_changes?descending=true&limit=1');
assert.equal(last.json.results[0].id, 'live');
const probe = await ask('GET', '/api/_changes?since=0&limit=0');
assert.ok(probe.json.pending > 120 && probe.json.results.length === 0);

// Queries.
const found = await db.find({ selector: { n: { $gt: 5, $lte: 8 } } });
assert.deepEqual(found.docs.map((doc) => doc.n), [6, 7, 8]);
await assert.rejects(db.find({ selector: { n: { $gt: 5 } }, sort: ['n'] }), { status: 400, error: 'no_usable_index' });
assert.equal((await db.createIndex({ index: { fields: ['n'] } })).result, 'created');
assert.equal((await db.createIndex({ index: { fields: ['n'] } })).result, 'exists');
const sorted = await db.find({ selector: { n: { $gt: 5 } }, sort: [{ n: 'desc' }], limit: 2, fields: ['n'] });
assert.deepEqual(sorted.docs, [{ n: 119 }, { n: 118 }]);
assert.equal((await db.getIndexes()).indexes.length, 2);
await assert.rejects(db.find({ selector: { n: { $foo: 5 } } }), { status: 400, error: 'invalid_operator' });

// Rights.
const reader = remote('api', access.reader);
assert.equal((await reader.get('empty'))._id, 'empty');
await assert.rejects(reader.put({ _id: 'no' }), { status: 403 });
await assert.rejects(remote('api', 'wrong').info(), { status: 401 });
await assert.rejects(db.destroy(), { status: 403 });
await remote('api', access.admin).destroy();
assert.equal((await ask('GET', '/api')).status, 404);
console.log('api: ok');
