"""Uploads with tuspy, stops in the middle, goes on from another uploader, and compares what was stored."""

import io
import json
import os
import pathlib
import sys
import urllib.request

from tusclient import client

node = json.loads((pathlib.Path(sys.argv[1]) / "node.json").read_text())
base = f"http://{node['host']}"
rights = {"Authorization": f"Bearer {node['token']}"}
data = os.urandom(3_000_000)
tus = client.TusClient(f"{base}/uploads", headers=rights)


def uploader(**more):
    return tus.uploader(
        file_stream=io.BytesIO(data),
        chunk_size=700_000,
        metadata={"filename": "räume.bin"},
        upload_checksum=True,
        **more,
    )


first = uploader()
first.upload(stop_at=1_400_000)
second = uploader(url=first.url)
assert second.offset == 1_400_000, second.offset
second.upload()
asked = urllib.request.Request(first.url, method="HEAD", headers=rights | {"Tus-Resumable": "1.0.0"})
blob = urllib.request.urlopen(asked).headers["Refuge-Blob"]
stored = urllib.request.urlopen(urllib.request.Request(f"{base}/blobs/{blob}", headers=rights)).read()
assert stored == data
print("tuspy: uploaded, resumed and read back", blob)
