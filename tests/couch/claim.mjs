// Claims the node as its owner would, and makes the token that an app gets.
import { readFileSync, writeFileSync } from 'node:fs';

const work = process.argv[2];
const ready = JSON.parse(readFileSync(`${work}/ready.json`, 'utf8'));
const json = { 'content-type': 'application/json' };
const claimed = await fetch(`${ready.http}/api/claim`, {
  method: 'POST', headers: json,
  body: JSON.stringify({ account: 'ada', code: ready.claim_code, password: 'correct horse battery' }),
});
if (!claimed.ok) throw new Error(await claimed.text());
const cookie = claimed.headers.get('set-cookie').split(';')[0];
async function token(label, scopes) {
  const made = await fetch(`${ready.http}/api/tokens`, {
    method: 'POST', headers: { ...json, cookie, origin: ready.http }, body: JSON.stringify({ label, scopes }),
  });
  if (!made.ok) throw new Error(await made.text());
  return (await made.json()).token;
}
writeFileSync(`${work}/access.json`, JSON.stringify({
  url: `${ready.http}/db`,
  app: await token('an app', ['read', 'write']),
  reader: await token('a reader', ['read']),
  admin: await token('an admin', ['admin']),
}));
