// A web app on an origin of its own: serves a page with PouchDB, opens it in a browser when it is asked to, and tells what the page said.
// Usage: page.mjs WORK BROWSER; prints its port. GET /run opens the page.
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

const [work, browser] = process.argv.slice(2);

async function inPage(url, app) {
  const check = (holds, what) => { if (!holds) throw new Error(what); };
  const local = new PouchDB('notes');
  const box = new PouchDB(`${url}/page`, { auth: { username: 'app', password: app } });
  await local.put({ _id: 'one', text: 'written in the page', _attachments: { t: { content_type: 'text/plain', data: btoa('attached') } } });
  const done = await local.sync(box);
  check(done.push.docs_written === 1, 'the document was not pushed');
  const got = await box.get('one', { attachments: true });
  check(atob(got._attachments.t.data) === 'attached', 'the attachment differs');
  const heard = new Promise((resolve) => { box.changes({ since: 'now', live: true }).on('change', resolve); });
  await box.put({ _id: 'two' });
  check((await heard).id === 'two', 'the change was not heard');
  await box.remove(await box.get('two'));
  await local.sync(box);
  check((await box.allDocs()).rows.length === 1, 'the deletion was not seen');
  const stranger = await fetch(`${url}/page`, { credentials: 'include' });
  check(stranger.status === 401, `a page without a token was answered ${stranger.status}`);
}

let told;
const server = createServer((request, response) => {
  if (request.url === '/pouchdb.js') {
    response.end(readFileSync(`${work}/node_modules/pouchdb/dist/pouchdb.min.js`));
  } else if (request.url === '/page') {
    const access = JSON.parse(readFileSync(`${work}/access.json`, 'utf8'));
    response.setHeader('content-type', 'text/html');
    response.end(`<!doctype html><script src="/pouchdb.js"></script><script>(${inPage})(${JSON.stringify(access.url)}, ${JSON.stringify(access.app)})
      .then(() => 'ok', (error) => String(error.stack ?? JSON.stringify(error)))
      .then((said) => fetch('/said', { method: 'POST', body: said }))</script>`);
  } else if (request.url === '/said') {
    let said = '';
    request.on('data', (piece) => { said += piece; });
    request.on('end', () => { response.end(); told?.(said); });
  } else if (request.url === '/run') {
    const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-background-networking', `--user-data-dir=${work}/profile`];
    const child = spawn(browser, [...flags, `http://127.0.0.1:${server.address().port}/page`], { stdio: 'ignore' });
    child.on('error', (error) => told?.(String(error)));
    told = (said) => {
      child.kill();
      response.statusCode = said === 'ok' ? 200 : 500;
      response.end(`page: ${said}\n`);
    };
  } else {
    response.statusCode = 404;
    response.end();
  }
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
