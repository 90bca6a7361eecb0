"""Shows pages full of hostile names to a real browser: none may run, none may load anything.

The browser speaks to a door in front of the node that adds the session's cookie and counts who asks for
the canary. Every payload asks for it in its own way.
"""

import http.client
import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading

work, browser, refuge = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
node = json.loads((work / "node.json").read_text())
ready = json.loads((work / "ready").read_text().splitlines()[0])

# Each leaves a mark before it asks, so that one whose request is refused is found as well; one opens a dialog.
MARK = "document.title='RAN!'"
CALLS = [f"{MARK};fetch('/canary')", f"{MARK};new Image().src='/canary'", f"{MARK};alert(1);location='/canary'"]
PAYLOADS = [f"<script>{call}</script>" for call in CALLS]
PAYLOADS += [f'"><img src=x onerror="{call}">' for call in CALLS]
PAYLOADS += [f"'><svg onload=\"{call}\">" for call in CALLS]
PAYLOADS += [f"</title><script>{call}</script>" for call in CALLS]
PAYLOADS += [f"<iframe srcdoc=\"<script>{call}</script>\">" for call in CALLS]
PAYLOADS += [f"<details open ontoggle=\"{call}\">" for call in CALLS]
PAYLOADS += [f"<input autofocus onfocus=\"{call}\">" for call in CALLS]
PAYLOADS += [f"javascript:{call}" for call in CALLS]
PAYLOADS += [
    "<img src=/canary>",
    "<link rel=stylesheet href=/canary>",
    "<meta http-equiv=refresh content='0;url=/canary'>",
    "<object data=/canary>",
    "<style>@import '/canary'</style>",
    "<base href=//canary/>",
]
assert len(PAYLOADS) >= 30

folder = work / "hostile"
folder.mkdir()
for payload in PAYLOADS:
    # A slash is the one character no name has.
    name = payload.replace("/", "\u2215")[:120]
    (folder / name).write_text(payload)
    os.symlink(payload[:200], folder / f"link {name}"[:120])
    line = http.client.HTTPConnection(node["host"])
    body = json.dumps({"label": payload[:100], "scopes": ["read"]})
    sent = {
        "Content-Type": "application/json",
        "Cookie": node["cookie"],
        "Origin": f"http://{node['host']}",
    }
    line.request("POST", "/api/tokens", body, sent)
    assert line.getresponse().status == 201
subprocess.run(
    [refuge, "backup", str(folder), "--ref", "hostile", "--node", ready["https"], "--node-id", ready["node_id"]],
    check=True,
    env=os.environ | {"REFUGE_TOKEN": node["token"]},
    stdout=subprocess.DEVNULL,
)

canaries = []


class Door(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if "canary" in self.path:
            canaries.append(self.path)
        if self.path == "/careless":
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write("".join(PAYLOADS[1:2] + PAYLOADS[3:4]).encode())
            return
        line = http.client.HTTPConnection(node["host"])
        line.request("GET", self.path, headers={"Cookie": node["cookie"]})
        answer = line.getresponse()
        body = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


door = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door)
threading.Thread(target=door.serve_forever, daemon=True).start()


def show(page):
    return subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            f"--user-data-dir={work}/browser",
            "--virtual-time-budget=3000",
            "--dump-dom",
            f"http://127.0.0.1:{door.server_port}{page}",
        ],
        check=True,
        capture_output=True,
        timeout=600,
        text=True,
    ).stdout


for page in ["/", "/tokens", "/account", "/browse?ref=hostile"]:
    shown = show(page)
    assert "Sign out" in shown, f"{page} was not shown: {shown[:500]}"
    assert "<title>RAN!" not in shown, f"a name ran on {page}"
assert canaries == [], canaries
# The same payloads on a page that is not careful run, and are noticed.
assert "<title>RAN!" in show("/careless") and canaries, "the browser runs nothing at all"
print(f"chromium: {len(PAYLOADS)} hostile names shown on 4 pages, none of them ran")
