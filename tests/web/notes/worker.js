// Keeps the page itself, so that it opens without a network. Documents are PouchDB's part.
const NAME = 'notes-1';
const FILES = ['./', 'notes.css', 'notes.js', 'pouchdb.js', 'icon.svg'];

addEventListener('install', (event) => event.waitUntil(caches.open(NAME).then((cache) => cache.addAll(FILES)).then(() => skipWaiting())));
addEventListener('activate', (event) => event.waitUntil(clients.claim()));
addEventListener('fetch', (event) => {
  if (new URL(event.request.url).origin !== location.origin) return;
  event.respondWith(caches.match(event.request).then((kept) => kept ?? fetch(event.request)));
});
