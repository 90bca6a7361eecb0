"""The app of notes/ in two browsers, with a node between them: written in one and read in the other, edited in both while one is
offline, then the same in both. With a folder as the last argument, a picture of every state goes there.

Usage: notes.py WORK DRIVER BROWSER REFUGE POUCHDB [PICTURES]   POUCHDB is the file that pages load
"""

import base64
import functools
import http.server
import json
import pathlib
import shutil
import subprocess
import sys
import threading
import urllib.request

from webdriver import chromium

work, driver, browser, refuge = pathlib.Path(sys.argv[1]), *sys.argv[2:5]
pouchdb = sys.argv[5]
pictures = pathlib.Path(sys.argv[6]) if len(sys.argv) > 6 else None


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def serve_app():
    """The app on an origin of its own; its port."""
    app = work / "app"
    shutil.copytree(pathlib.Path(__file__).parent / "notes", app)
    shutil.copy(pouchdb, app / "pouchdb.js")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=app))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def start_node(origin):
    arguments = [refuge, "serve", "--data", work / "data", "--listen", "127.0.0.1:0", "--plain-http", "127.0.0.1:0"]
    log = open(work / "log", "w")
    node = subprocess.Popen([*arguments, "--origin", origin, "--json"], stdout=subprocess.PIPE, stderr=log, text=True)
    return node, json.loads(node.stdout.readline())


def post(url, body, **headers):
    headers = {"Content-Type": "application/json", **headers}
    return urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers))


def app_token(ready):
    """Claims the node as its owner would, and makes the token that the app gets."""
    home = ready["http"]
    claim = {"account": "ada", "code": ready["claim_code"], "password": "correct horse battery"}
    cookie = post(f"{home}/api/claim", claim).headers["Set-Cookie"].split(";")[0]
    made = post(f"{home}/api/tokens", {"label": "notes", "scopes": ["read", "write"]}, Cookie=cookie, Origin=home)
    return json.load(made)["token"]


def until(page, condition):
    """Waits in the page until a JavaScript expression holds."""
    page.run(f"return new Promise((done) => {{ const look = () => ({condition}) ? done() : setTimeout(look, 50); look(); }})")


def look(page, name):
    """Takes pictures as a laptop and as a phone show the page; nothing may stick out at the side."""
    for width, height, of in [(390, 844, "phone"), (1180, 760, "laptop")]:
        page.resize(width, height)
        inner, needed = page.run("return [innerWidth, document.documentElement.scrollWidth]")
        assert needed <= inner, f"{name} on a {of}: {needed} of {inner} pixels"
        if pictures:
            (pictures / f"notes-{name}-{of}.png").write_bytes(base64.b64decode(page.screenshot()))


def connect(page, app, url, token):
    page.open(app)
    look(page, "connect")
    page.type("#url", url)
    page.type("#token", "rft_wrong")
    page.click("#connect-form button")
    until(page, "document.querySelector('#connect-wrong').textContent.includes('does not know')")
    page.run("document.querySelector('#token').value = ''")
    page.type("#token", token)
    page.click("#connect-form button")
    page.find("#state[data-state=synced]")


def write(page, title, text):
    page.click("#new")
    page.find("#editor:not([hidden])")
    page.type("#title", title)
    page.type("#text", text)
    until(page, f"[...document.querySelectorAll('#list strong')].some((one) => one.textContent === {json.dumps(title)})")
    # The text is there too, in the line below.
    until(page, f"[...document.querySelectorAll('#list span')].some((one) => one.textContent === {json.dumps(text)})")


def open_note(page, title):
    until(page, f"[...document.querySelectorAll('#list strong')].some((one) => one.textContent === {json.dumps(title)})")
    page.run(
        "[...document.querySelectorAll('#list button')]"
        ".find((one) => one.querySelector('strong').textContent === arguments[0]).click()",
        title,
    )
    until(page, f"document.querySelector('#title').value === {json.dumps(title)}")


def kept(page):
    """All that the browser's own database has of each note: its texts, the winner first."""
    return page.run(
        """return (async () => {
        const rows = (await new PouchDB('notes').allDocs({ include_docs: true, conflicts: true })).rows;
        return rows.map(({ doc }) => [doc.title, doc.text, doc._rev, doc._conflicts ?? []]);
        })()"""
    )


def shows(page, text):
    until(page, f"document.querySelector('#text').value === {json.dumps(text)}")


def story(ada, bob):
    write(ada, "Shopping", "Milk")
    write(ada, "Books to read", "The Dispossessed")
    open_note(bob, "Shopping")
    shows(bob, "Milk")

    bob.offline(True)
    bob.find("#state[data-state=offline]")
    # The page itself is there without a network as well.
    until(bob, "navigator.serviceWorker.controller !== null")
    bob.open(bob.address())
    open_note(bob, "Shopping")
    bob.type("#text", ", bread")
    shows(bob, "Milk, bread")
    write(bob, "Train", "8:14 from platform 3")
    look(bob, "offline")
    open_note(ada, "Shopping")
    ada.type("#text", " and honey")
    ada.find("#state[data-state=synced]")

    bob.offline(False)
    open_note(ada, "Train")
    shows(ada, "8:14 from platform 3")
    for page in [ada, bob]:
        open_note(page, "Shopping")
        page.find("#conflict:not([hidden])")
        until(page, "document.querySelectorAll('.version').length === 2")
        texts = page.run("return [...document.querySelectorAll('.version p')].map((one) => one.textContent).sort()")
        assert texts == ["Milk and honey", "Milk, bread"], texts
        look(page, "conflict")
    assert kept(ada) == kept(bob), "both have the same winner, and the same in conflict"

    page_index = bob.run(
        "return [...document.querySelectorAll('.version')].findIndex((one) => one.querySelector('p').textContent === 'Milk, bread')"
    )
    bob.click(f".version:nth-child({page_index + 1}) button")
    for page in [bob, ada]:
        page.find("#conflict[hidden]")
        until(page, "document.querySelector('#text').value === 'Milk, bread'")
        until(page, "!document.querySelector('#list .mark')")
    look(ada, "agreed")
    assert kept(ada) == kept(bob)
    assert all(conflicts == [] for *_, conflicts in kept(ada))


def main():
    app = f"http://127.0.0.1:{serve_app()}"
    node, ready = start_node(app)
    try:
        token = app_token(ready)
        with chromium(driver, browser, work / "ada") as ada, chromium(driver, browser, work / "bob") as bob:
            for page in [ada, bob]:
                connect(page, f"{app}/", f"{ready['http']}/db/notes", token)
            story(ada, bob)
    finally:
        node.terminate()
        node.wait()
    print("notes: two browsers agree after one was offline")


main()
