// A small single-page app: routes on the client, so that the server's history fallback shows.
const view = document.getElementById("view");

const promises = [
  { method: "GET", path: "/", want: 200, line: '"/": "/dist/"' },
  { method: "GET", path: "/ping", want: 200, line: '"/ping": "http://auth/ping"' },
  { method: "PATCH", path: "/api/mock/rude", want: 403,
    line: 'GET POST PATCH /api/mock/rude: FORBIDDEN {"msg":"GO PATCH UR MUM!"}' },
  { method: "GET", path: "/fastest/ever/ok", want: 200, line: "GET /fastest/ever/ok: OK" },
  { method: "POST", path: "/a/b/c", want: 200, line: "/a/b/c: *" },
  { method: "POST", path: "/a/b/c-forbidden", want: 403, line: "/a/b/c-forbidden: FORBIDDEN *" },
];

const element = (name, attributes = {}, ...children) => {
  const node = Object.assign(document.createElement(name), attributes);
  node.append(...children);
  return node;
};

async function ask({ method, path, want }) {
  const started = performance.now();
  const response = await fetch(path, { method, body: method === "GET" ? undefined : "hello" });
  const text = await response.text();
  const ms = (performance.now() - started).toFixed(1);
  return { ok: response.status === want, status: response.status, ms, text };
}

function showPromises() {
  const body = element("tbody");
  view.replaceChildren(
    element("h1", { textContent: "Six lines, six answers" }),
    element("p", { textContent: "Each row is a line of the configuration, asked just now." }),
    element("table", {},
      element("thead", {}, element("tr", {},
        ...["line", "request", "answer"].map((t) => element("th", { textContent: t })))),
      body));
  for (const promise of promises) {
    const answer = element("td", { textContent: "…" });
    body.append(element("tr", {},
      element("td", {}, element("code", { textContent: promise.line })),
      element("td", { textContent: `${promise.method} ${promise.path}` }),
      answer));
    ask(promise).then(({ ok, status, ms }) => {
      answer.className = ok ? "good" : "bad";
      answer.textContent = `${ok ? "✓" : "✗"} ${status} in ${ms} ms`;
      answer.dataset.ok = ok;
    }, (error) => {
      answer.className = "bad";
      answer.textContent = `✗ ${error.message}`;
      answer.dataset.ok = false;
    });
  }
}

async function showEcho() {
  const out = element("pre", { textContent: "…" });
  view.replaceChildren(element("h1", { textContent: "What the server saw" }), out);
  const { text } = await ask({ method: "POST", path: "/a/b/c?from=spa", want: 200 });
  out.textContent = JSON.stringify(JSON.parse(text), null, 2);
}

function showDeepLink() {
  view.replaceChildren(
    element("h1", { textContent: "A deep link" }),
    element("p", { textContent: `No file is called ${location.pathname}: the server answered with ` +
      "index.html, and this page routed itself. Reload to see it again." }));
}

function route() {
  for (const link of document.querySelectorAll("nav a")) {
    link.toggleAttribute("aria-current", link.pathname === location.pathname);
  }
  if (location.pathname === "/") {
    showPromises();
  } else if (location.pathname === "/echo") {
    showEcho();
  } else {
    showDeepLink();
  }
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (link && link.origin === location.origin && !event.metaKey && !event.ctrlKey) {
    event.preventDefault();
    history.pushState(null, "", link.href);
    route();
  }
});
addEventListener("popstate", route);
route();
