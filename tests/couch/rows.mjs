// The engine `couchdb` on pouchdb-server: the suite that every engine passes, and what becomes of a group where the server is cut off.
// Usage: node rows.mjs WORK ROOT SERVER: a folder, the repository, and the folder where pouchdb-server is installed.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import net from 'node:net';

const [work, root, server] = process.argv.slice(2);
const PATIENCE_MS = 60_000;

const port = await new Promise((resolve) => {
  const listener = net.createServer().listen(0, '127.0.0.1', () => {
    const { port: free } = listener.address();
    listener.close(() => resolve(free));
  });
});
const folder = `${work}/rows`;
mkdirSync(folder, { recursive: true });
const pouch = spawn(process.execPath, ['--unhandled-rejections=warn', `${server}/node_modules/pouchdb-server/bin/pouchdb-server`,
  '--port', `${port}`, '--host', '127.0.0.1', '--dir', folder, '--config', `${folder}/config.json`, '--no-stdout-logs'],
{ cwd: folder, stdio: 'ignore' });
process.on('exit', () => pouch.kill('SIGKILL'));
const ends = Date.now() + PATIENCE_MS;
for (;;) {
  try {
    const answer = await fetch(`http://127.0.0.1:${port}/`);
    if (answer.ok) break;
  } catch { /* It is not there yet. */ }
  assert.ok(Date.now() < ends, 'pouchdb-server does not start');
  await new Promise((resolve) => { setTimeout(resolve, 100); });
}
const tests = spawn('cargo', ['test', '--locked', '--lib', '--features', 'lsm,leveldb,couchdb', '--', '--test-threads', '2', 'couchdb_contract::'],
  { cwd: root, stdio: 'inherit', env: { ...process.env, REFUGE_COUCHDB_URL: `http://127.0.0.1:${port}` } });
const code = await new Promise((resolve) => { tests.once('exit', resolve); });
assert.equal(code, 0, 'the engine does not keep its contract on pouchdb-server');
console.log('rows: the engine couchdb keeps its contract on pouchdb-server');
process.exit(0);
