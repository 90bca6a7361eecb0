"""Claims the node as a browser's form does; leaves its address, cookie and a token beside it."""

import http.client
import json
import pathlib
import sys
import urllib.parse

work = pathlib.Path(sys.argv[1])
ready = json.loads((work / "ready").read_text().splitlines()[0])
host = ready["http"].removeprefix("http://").rstrip("/")
origin = {"Origin": f"http://{host}"}


def ask(method, path, headers, body):
    line = http.client.HTTPConnection(host)
    line.request(method, path, body, headers | origin)
    answer = line.getresponse()
    return answer, answer.read()


fields = urllib.parse.urlencode(
    {"code": ready["claim_code"], "account": "ada", "password": "correct horse battery"}
)
form = {"Content-Type": "application/x-www-form-urlencoded"}
answer, text = ask("POST", "/claim", form, fields)
assert answer.status == 303, text
cookie = answer.headers["Set-Cookie"].split(";")[0]
wanted = json.dumps({"label": "tests", "scopes": ["read", "write"]})
answer, text = ask("POST", "/api/tokens", {"Content-Type": "application/json", "Cookie": cookie}, wanted)
assert answer.status == 201, text
(work / "node.json").write_text(
    json.dumps({"host": host, "cookie": cookie, "token": json.loads(text)["token"]})
)
