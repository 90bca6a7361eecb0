"""The little of WebDriver (W3C) that the tests here need, over the standard library: a browser, pages, elements."""

import contextlib
import json
import re
import subprocess
import urllib.request

# How an element is called in an answer (WebDriver, section 12.1).
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"

# How long the browser itself waits for an element to be there, or for what a script promises, in milliseconds.
PATIENCE_MS = 60_000


class Browser:
    """A headless Chromium with a fresh profile."""

    def __init__(self, port, options):
        self.base = f"http://127.0.0.1:{port}/session"
        answer = self._send("POST", "", {"capabilities": {"alwaysMatch": options}})
        self.base += "/" + answer["sessionId"]
        self._send("POST", "/timeouts", {"implicit": PATIENCE_MS, "script": PATIENCE_MS})

    def _send(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=180) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path} {body}: {json.load(error)['value']['message']}") from None

    def open(self, url):
        self._send("POST", "/url", {"url": url})

    def address(self):
        return self._send("GET", "/url")

    def offline(self, is_offline):
        """Takes the page off the network, or back onto it (chromedriver's own command)."""
        conditions = {"offline": is_offline, "latency": 0, "download_throughput": -1, "upload_throughput": -1}
        self._send("POST", "/chromium/network_conditions", {"network_conditions": conditions})

    def title(self):
        return self._send("GET", "/title")

    def find(self, selector):
        """The first element that a CSS selector finds; waits until there is one."""
        found = self._send("POST", "/element", {"using": "css selector", "value": selector})
        return found[ELEMENT]

    def text(self, selector):
        return self._send("GET", f"/element/{self.find(selector)}/text")

    def attribute(self, selector, name):
        return self._send("GET", f"/element/{self.find(selector)}/property/{name}")

    def type(self, selector, text):
        self._send("POST", f"/element/{self.find(selector)}/value", {"text": text})

    def click(self, selector):
        self._send("POST", f"/element/{self.find(selector)}/click", {})

    def run(self, script, *arguments):
        return self._send("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def resize(self, width, height):
        self._send("POST", "/window/rect", {"width": width, "height": height})

    def screenshot(self):
        """The page as PNG, in base 64."""
        return self._send("GET", "/screenshot")

    def close(self):
        self._send("DELETE", "")


@contextlib.contextmanager
def chromium(driver, browser, profile):
    """A browser that believes self-signed certificates, as a person does after comparing the fingerprint."""
    process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True)
    try:
        port = next(
            int(found[1]) for line in process.stdout if (found := re.search(r"started successfully on port (\d+)", line))
        )
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", f"--user-data-dir={profile}"]
        session = Browser(
            port,
            {
                "browserName": "chrome",
                "acceptInsecureCerts": True,
                "goog:chromeOptions": {"binary": browser, "args": flags},
            },
        )
        try:
            yield session
        finally:
            session.close()
    finally:
        process.terminate()
        process.wait()
