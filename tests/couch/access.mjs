// What the tests share: the node, its tokens, and PouchDB databases on it.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const work = process.argv[2];
const require = createRequire(`${work}/`);
export const PouchDB = require('pouchdb')
  .plugin(require('pouchdb-adapter-memory'))
  .plugin(require('pouchdb-find'));
export const access = JSON.parse(readFileSync(`${work}/access.json`, 'utf8'));

// A database of the node, as an app opens it: the token is the password of a made-up user.
export function remote(name, token = access.app) {
  return new PouchDB(`${access.url}/${name}`, { auth: { username: 'app', password: token } });
}

let count = 0;
export function local() {
  count += 1;
  return new PouchDB(`local-${process.pid}-${count}`, { adapter: 'memory' });
}

// The status and JSON of a plain request.
export async function ask(method, path, { token = access.app, body, headers = {} } = {}) {
  const sent = { method, headers: { ...headers } };
  if (token) sent.headers.authorization = `Bearer ${token}`;
  if (body !== undefined) {
    sent.body = typeof body === 'string' || body instanceof Uint8Array ? body : JSON.stringify(body);
    sent.headers['content-type'] ??= 'application/json';
  }
  const answer = await fetch(`${access.url}${path}`, sent);
  const text = await answer.text();
  let json;
  try { json = JSON.parse(text); } catch { json = undefined; }
  return { status: answer.status, headers: answer.headers, text, json };
}
