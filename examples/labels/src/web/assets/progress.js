// Shows progress: of uploads, of the queue, of a picture that waits. Pages work without it.
"use strict";

const AT_ONCE = 3;
const PAUSE_MS = 1000;

const element = (name, properties, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};

const queue = async (ids) => {
  const answer = await fetch("/queue.json" + (ids ? "?ids=" + ids.join(",") : ""));
  if (!answer.ok) throw new Error(answer.statusText);
  return answer.json();
};

const isPending = (one) => ["queued", "reading", "later"].includes(one.state);

const showState = (item, one) => {
  const name = item.querySelector(".name");
  if (name.textContent !== one.title) name.textContent = one.title;
  const badge = item.querySelector(".badge");
  badge.className = "badge " + one.state;
  badge.textContent = one.shown;
  item.querySelector(".note").textContent = one.note;
};

const pause = () => new Promise((done) => setTimeout(done, PAUSE_MS));

// The page of the queue.
const followQueue = async (section) => {
  const list = section.querySelector("[data-files]");
  const bar = section.querySelector("[data-bar]");
  for (;;) {
    await pause();
    if (document.hidden) continue;
    try {
      const now = await queue();
      section.querySelector("[data-sum]").textContent = now.sum;
      bar.max = Math.max(now.pictures, 1);
      bar.value = now.pictures - now.queued;
      for (const one of now.shown) {
        let item = list.querySelector(`[data-id="${one.sha256}"]`);
        if (!item) {
          item = element("li", {},
            element("a", { className: "name", href: "/pictures/" + one.sha256, textContent: one.title }),
            element("span", { className: "sub", textContent: one.file_name }),
            element("span", { className: "badge" }), element("span", { className: "note" }));
          item.dataset.id = one.sha256;
          list.prepend(item);
        }
        showState(item, one);
      }
    } catch {
      section.querySelector("[data-sum]").textContent = "The server does not answer; it is asked again.";
    }
  }
};

// The page of a picture that is not read yet.
const waitFor = async (section) => {
  for (;;) {
    await pause();
    try {
      const now = await queue([section.dataset.wait]);
      if (now.shown.length > 0 && !isPending(now.shown[0])) return location.reload();
    } catch { /* it is asked again */ }
  }
};

// One file: sent with a bar that shows how far it is.
const send = (form, file, item) => new Promise((done) => {
  const body = new FormData();
  body.append("category", form.elements.category.value);
  body.append("who", form.elements.who.value);
  body.append("pictures", file);
  const request = new XMLHttpRequest();
  const bar = item.querySelector("progress");
  request.upload.addEventListener("progress", (event) => {
    if (event.lengthComputable) bar.value = event.loaded / event.total;
  });
  request.addEventListener("loadend", () => {
    let taken = { error: "The server did not answer; try again." };
    try { taken = JSON.parse(request.responseText)[0]; } catch {
      if (request.status) taken = { error: `The server answered ${request.status}; try again.` };
    }
    bar.remove();
    if (taken.error) {
      showState(item, { title: file.name, state: "refused", shown: "Not taken", note: taken.error });
    } else {
      item.dataset.id = taken.sha256;
      item.querySelector(".name").href = "/pictures/" + taken.sha256;
      const note = taken.known ? "it was here already" : "";
      showState(item, { title: file.name, state: "queued", shown: "In the queue", note });
    }
    done();
  });
  request.open("POST", form.action);
  request.setRequestHeader("Accept", "application/json");
  request.send(body);
});

const upload = async (form, section) => {
  const list = section.querySelector("[data-files]");
  const sum = section.querySelector("[data-sum]");
  const button = form.querySelector("button");
  section.hidden = false;
  button.disabled = true;
  const files = [...form.elements.pictures.files].map((file) => {
    const item = element("li", {},
      element("a", { className: "name", textContent: file.name }),
      element("progress", { max: 1, value: 0, ariaLabel: "Upload of " + file.name }),
      element("span", { className: "badge" }), element("span", { className: "note" }));
    list.append(item);
    return { file, item };
  });
  let next = 0;
  let sent = 0;
  const sender = async () => {
    while (next < files.length) {
      const { file, item } = files[next++];
      sum.textContent = `Uploading ${next} of ${files.length}.`;
      await send(form, file, item);
      sent += 1;
    }
  };
  const senders = Promise.all(Array.from({ length: AT_ONCE }, sender));
  senders.then(() => {
    button.disabled = false;
    form.elements.pictures.value = "";
    form.elements.pictures.dispatchEvent(new Event("change"));
  });
  for (;;) {
    const ids = files.map(({ item }) => item.dataset.id).filter(Boolean);
    if (ids.length > 0) {
      try {
        const now = await queue(ids);
        // The same picture may have come from two files.
        const byId = new Map(now.shown.map((one) => [one.sha256, one]));
        for (const { item } of files) {
          const one = byId.get(item.dataset.id);
          if (one) showState(item, one);
        }
        if (sent === files.length) {
          const read = ids.filter((id) => byId.has(id) && !isPending(byId.get(id))).length;
          sum.textContent = `${read} of ${ids.length} read.`;
          if (now.shown.every((one) => !isPending(one))) return;
        }
      } catch { /* it is asked again */ }
    } else if (sent === files.length) {
      sum.textContent = "Nothing was taken.";
      return;
    }
    await pause();
  }
};

const form = document.querySelector("[data-upload]");
if (form) {
  const drop = form.querySelector(".drop");
  for (const name of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", name === "dragover");
      if (name === "drop") form.elements.pictures.files = event.dataTransfer.files;
      if (name === "drop") form.elements.pictures.dispatchEvent(new Event("change"));
    });
  }
  form.elements.pictures.addEventListener("change", () => {
    const count = form.elements.pictures.files.length;
    drop.querySelector("b").textContent = count === 0 ? "Choose pictures" : count === 1 ? "1 picture chosen" : `${count} pictures chosen`;
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    upload(form, document.querySelector("[data-progress]"));
  });
}
const section = document.querySelector("[data-queue]");
if (section) followQueue(section);
const waiting = document.querySelector("[data-wait]");
if (waiting) waitFor(waiting);
