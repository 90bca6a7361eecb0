// What needs a script: uploads with progress, and a question before something is revoked.
// Everything else on these pages works without.

const units = ["B", "KiB", "MiB", "GiB", "TiB"];

function size(bytes) {
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) {
    bytes /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? bytes : bytes.toFixed(1)} ${units[unit]}`;
}

function element(name, text = "") {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function upload(file, target) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", target.path);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.addEventListener("progress", (event) => target.moved(event.loaded));
    request.addEventListener("load", () => {
      let answer = {};
      try {
        answer = JSON.parse(request.responseText);
      } catch {
        answer = { reason: `the node answered with status ${request.status}` };
      }
      if (request.status < 300) {
        resolve(answer);
      } else {
        reject(new Error(answer.reason));
      }
    });
    request.addEventListener("error", () => reject(new Error("the connection broke")));
    // A file's own type is no matter of the node's: bytes are bytes.
    request.send(new Blob([file], { type: "application/octet-stream" }));
  });
}

async function show(file, list, path) {
  const item = element("li");
  const name = element("strong", file.name);
  const status = element("div", `0 B of ${size(file.size)}`);
  status.className = "small quiet";
  const bar = document.createElement("progress");
  bar.max = Math.max(file.size, 1);
  bar.value = 0;
  bar.setAttribute("aria-label", `Upload of ${file.name}`);
  item.append(name, bar, status);
  list.prepend(item);
  const began = performance.now();
  const moved = (bytes) => {
    const rate = bytes / Math.max((performance.now() - began) / 1000, 0.001);
    bar.value = bytes;
    status.textContent = `${size(bytes)} of ${size(file.size)}, ${size(rate)} a second`;
  };
  try {
    const put = await upload(file, { path, moved });
    const link = element("a", put.id);
    link.href = `${path}/${encodeURIComponent(put.id)}`;
    link.className = "mono";
    link.download = file.name;
    const note = put.fresh ? `${size(put.len)}, stored: ` : `${size(put.len)}, was here already: `;
    status.replaceChildren(element("span", note), link);
    bar.remove();
  } catch (error) {
    status.textContent = error.message;
    status.className = "small bad";
    bar.remove();
  }
}

for (const form of document.querySelectorAll("form[data-upload]")) {
  const files = form.querySelector("input[type=file]");
  const button = form.querySelector("button");
  const list = form.querySelector(".uploads");
  form.hidden = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    for (const file of files.files) {
      await show(file, list, form.dataset.upload);
    }
    files.value = "";
    button.disabled = false;
  });
}

for (const button of document.querySelectorAll("button[data-ask]")) {
  button.addEventListener("click", (event) => {
    if (!confirm(button.dataset.ask)) {
      event.preventDefault();
    }
  });
}
