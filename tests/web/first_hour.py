"""The first hour with a new node, in a real browser over HTTPS: claim it, upload a file, browse a backup, make a token,
sign out, sign in. With a folder as the last argument, a picture of every page goes there.
"""

import base64
import hashlib
import json
import os
import pathlib
import ssl
import subprocess
import sys
import urllib.request

from webdriver import chromium

work, driver, browser, refuge = pathlib.Path(sys.argv[1]), *sys.argv[2:5]
pictures = pathlib.Path(sys.argv[5]) if len(sys.argv) > 5 else None
ready = json.loads((work / "ready").read_text().splitlines()[0])
home = ready["https"].rstrip("/") + "/"
PASSWORD = "correct horse battery"

# No certificate authority knows the node; what is compared here is bytes.
trusting = ssl.create_default_context()
trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE


def fetch(path, token):
    request = urllib.request.Request(home + path, headers={"Authorization": f"Bearer {token}"})
    return urllib.request.urlopen(request, context=trusting).read()


def look(page, name):
    """Takes pictures as a laptop and as a phone show the page; nothing may stick out at the side."""
    for width, height, of in [(1280, 900, "laptop"), (390, 844, "phone")]:
        page.resize(width, height)
        inner, needed = page.run("return [innerWidth, document.documentElement.scrollWidth]")
        assert needed <= inner, f"{name} on a {of}: {needed} of {inner} pixels"
        if pictures:
            (pictures / f"{name}-{of}.png").write_bytes(base64.b64decode(page.screenshot()))


def claim(page):
    page.open(home)
    look(page, "claim")
    page.type("#code", "0000-0000-0000-0000")
    page.type("#account", "ada")
    page.type("#password", PASSWORD)
    page.click("button.main")
    look(page, "claim-refused")
    assert "code" in page.text("[role=alert]").lower(), page.text("[role=alert]")
    assert page.attribute("#account", "value") == "ada", "what was typed is kept"
    page.type("#code", ready["claim_code"].lower())
    page.type("#password", PASSWORD)
    page.click("button.main")
    assert "All is well" in page.text("span.state.good")
    assert ready["node_id"] in page.text("body")
    look(page, "home-empty")


def upload(page):
    file = work / "photo <1>.jpg"
    file.write_bytes(os.urandom(3_000_000))
    page.type("#files", str(file))
    page.click("form[data-upload] button")
    link = page.attribute("ul.uploads a", "href")
    look(page, "home-uploaded")
    return urllib.request.url2pathname(link.rsplit("/", 1)[1]), file.read_bytes()


def make_token(page):
    page.open(home + "tokens")
    page.type("input[name=label]", "laptop")
    page.run("for (const box of document.querySelectorAll('form[action=\"/tokens\"] input[type=checkbox]')) box.checked = true")
    page.click("form[action='/tokens'] button.main")
    token = page.text("section[aria-labelledby=new] code")
    assert token.startswith("rft_")
    look(page, "token-made")
    return token


def browse(page, token):
    folder = work / "documents"
    (folder / "letters").mkdir(parents=True)
    (folder / "letters" / "first.txt").write_text("Dear Ann")
    (folder / "a name with spaces, and more than a few letters, as people give them.pdf").write_bytes(b"x" * 5000)
    subprocess.run(
        [refuge, "backup", str(folder), "--ref", "documents", "--node", ready["https"], "--node-id", ready["node_id"]],
        check=True,
        env=os.environ | {"REFUGE_TOKEN": token},
        stdout=subprocess.DEVNULL,
    )
    page.open(home)
    look(page, "home-backup")
    page.click("section[aria-labelledby=refs] tbody a")
    listed = page.text("section[aria-labelledby=folder] table")
    assert "letters" in listed and "as people give them.pdf" in listed, listed
    look(page, "browse")
    page.click("section[aria-labelledby=folder] a[href$='path=letters']")
    page.find("nav[aria-label=Path] [aria-current]")
    page.find("a[href*='first.txt']")
    look(page, "browse-folder")


def leave_and_return(page):
    page.open(home + "account")
    look(page, "account")
    page.click("form[action='/sign-out'] button")
    page.find("form[action='/sign-in']")
    look(page, "sign-in")
    page.type("#account", "ada")
    page.type("#password", "a wrong password")
    page.click("button.main")
    page.find("[role=alert]")
    look(page, "sign-in-refused")
    page.type("#password", PASSWORD)
    page.click("button.main")
    assert "All is well" in page.text("span.state.good")


with chromium(driver, browser, work / "profile") as page:
    claim(page)
    blob, content = upload(page)
    token = make_token(page)
    assert hashlib.sha256(fetch(f"blobs/{blob}", token)).digest() == hashlib.sha256(content).digest()
    browse(page, token)
    leave_and_return(page)
print("the first hour in a browser: claimed, uploaded, browsed, signed out and in")
