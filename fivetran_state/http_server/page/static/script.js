"use strict";

// Follow a running update. The server renders each step; at the end the whole page is read again.
function follow(place) {
  const source = new EventSource(place.dataset.events);
  source.addEventListener("progress", (event) => {
    const found = new DOMParser().parseFromString(event.data, "text/html");
    place.replaceChildren(...found.body.childNodes);
  });
  source.addEventListener("end", () => {
    source.close();
    location.reload();
  });
  source.addEventListener("error", () => {
    // The browser connects again by itself, but not after an answer with another status.
    if (source.readyState === EventSource.CLOSED) setTimeout(reloadOnceAnswered, 3000);
  });
  window.addEventListener("pagehide", () => source.close());
}

// A proxy answers 502 or 503 while the server starts again: keep the page until then.
async function reloadOnceAnswered() {
  const answer = await fetch(location.href).catch(() => null);
  if (answer && answer.status < 500) location.reload();
  else setTimeout(reloadOnceAnswered, 3000);
}

function addCopy(text) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  const said = document.createElement("span");
  said.setAttribute("role", "status");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text.textContent);
      said.textContent = " Copied.";
    } catch {
      said.textContent = " The browser does not allow it: select the text and copy it.";
    }
  });
  const line = document.createElement("p");
  line.append(button, said);
  text.before(line);
}

for (const place of document.querySelectorAll("[data-events]")) follow(place);
// Browsers have a clipboard only on secure pages.
if (navigator.clipboard) for (const text of document.querySelectorAll("[data-copy]")) addCopy(text);
for (const time of document.querySelectorAll("time")) {
  time.title = new Date(time.dateTime).toLocaleString();
}
