// Replication between PouchDB and the node: both ways, with attachments and conflicts, live, and of many documents.
import assert from 'node:assert/strict';
import { local, remote } from './access.mjs';

const docs = (count, prefix) => Array.from({ length: count }, (_, n) => ({ _id: `${prefix}${n}`, n, text: 'x'.repeat(100) }));
const state = async (db) => {
  const all = await db.allDocs({ conflicts: true, include_docs: true });
  return all.rows.map((row) => [row.id, row.value.rev, row.doc._conflicts ?? []]);
};

// Both ways.
const here = local();
const there = remote('sync');
await here.bulkDocs(docs(50, 'h'));
await there.bulkDocs(docs(50, 't'));
let done = await here.sync(there);
assert.equal(done.push.docs_written, 50);
assert.equal(done.pull.docs_written, 50);
assert.deepEqual(await state(here), await state(there));
// A second time nothing moves: the checkpoints hold.
done = await here.sync(there);
assert.equal(done.push.docs_read + done.pull.docs_read, 0);

// Attachments.
const photo = Buffer.alloc(300_000, 'photo');
await here.put({ _id: 'photo', _attachments: { 'p.jpg': { content_type: 'image/jpeg', data: photo } } });
await here.sync(there);
assert.ok((await there.getAttachment('photo', 'p.jpg')).equals(photo));
const other = local();
await other.replicate.from(there);
assert.ok((await other.getAttachment('photo', 'p.jpg')).equals(photo));
assert.equal((await other.get('photo'))._attachments['p.jpg'].digest, (await there.get('photo'))._attachments['p.jpg'].digest);

// Conflicts: both sides choose the same winner and keep both.
const [mine, theirs] = [await here.get('h0'), await other.get('h0')];
await here.put({ ...mine, by: 'here' });
await other.put({ ...theirs, by: 'other' });
await here.remove(await here.get('h1'));
await other.put({ ...(await other.get('h1')), by: 'other' });
// A pull moves what a push beside it has not read yet to its end, so that one turn may not see it: until nothing moves.
for (let moved = 1, turn = 0; moved > 0; turn += 1) {
  assert.ok(turn < 10, 'it does not settle');
  moved = 0;
  for (const db of [here, other]) {
    const { push, pull } = await db.sync(there);
    moved += push.docs_written + pull.docs_written;
  }
}
assert.deepEqual(await state(here), await state(other));
assert.deepEqual(await state(here), await state(there));
const merged = await there.get('h0', { conflicts: true });
assert.equal(merged._conflicts.length, 1);
assert.equal((await there.get('h1')).by, 'other');
await there.remove('h0', merged._conflicts[0]);
await here.sync(there);
assert.equal((await here.get('h0', { conflicts: true }))._conflicts, undefined);

// Live.
const live = here.sync(there, { live: true, retry: true });
await new Promise((resolve) => { live.once('paused', resolve); });
const arrived = (db, id) => new Promise((resolve, reject) => {
  const feed = db.changes({ since: 0, live: true, doc_ids: [id] })
    .on('change', () => { feed.cancel(); resolve(); })
    .on('error', reject);
});
await here.put({ _id: 'from-here' });
await arrived(there, 'from-here');
await there.put({ _id: 'from-there' });
await arrived(here, 'from-there');
live.cancel();

// Many.
const many = local();
const large = remote('many');
for (let at = 0; at < 5000; at += 1000) await many.bulkDocs(docs(1000, `m${at}-`));
const pushed = await many.replicate.to(large, { batch_size: 500 });
assert.equal(pushed.docs_written, 5000);
assert.equal((await large.info()).doc_count, 5000);
const copy = local();
const pulled = await copy.replicate.from(large, { batch_size: 500 });
assert.equal(pulled.docs_written, 5000);
assert.deepEqual(await state(copy), await state(large));
console.log('sync: ok');
process.exit(0);
