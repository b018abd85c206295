// The client of the batch REST API; sends the API key if there is one, and the secret of this browser, whose tasks nobody
// else sees where no key is needed.

const { api, Refused } = (() => {
  /** Timeout of a request in milliseconds; the server may need long to read an uploaded file. */
  const TIMEOUT_MS = 90_000;

  /** A failed request, with the server's message; status 0 means that no reply came. */
  class Refused extends Error {
    constructor(status, message, details = {}) {
      super(message);
      this.status = status;
      this.reason = details?.reason ?? "";
      /** The other members of the error's data, such as `errors` and `max_bytes`. */
      this.details = details ?? {};
    }

    /** Whether a later try may succeed. */
    get passes() {
      return this.status === 0 || this.status === 429 || (this.status >= 502 && this.reason !== "batch_unavailable");
    }
  }

  /** Resolve an address relative to the page, which may be served below a path prefix. */
  const address = (path) => new URL(`./api/batch${path}`, location.href);

  const VISITOR = "wechatlaibao.visitor";

  /** Return the secret of this browser; without storage it lasts until the page is closed. */
  const visitor = (() => {
    const made = newId();
    try {
      if (!localStorage.getItem(VISITOR)) localStorage.setItem(VISITOR, made);
      return localStorage.getItem(VISITOR);
    } catch {
      return made;
    }
  })();

  async function ask(path, { headers = {}, ...options } = {}) {
    const { key } = preferences;
    const shown = { "X-Visitor": visitor, ...(/^[\x21-\x7e]+$/.test(key) ? { "X-API-Key": key } : {}) };
    let reply;
    try {
      const signal = AbortSignal.timeout(TIMEOUT_MS);
      reply = await fetch(address(path), { cache: "no-store", ...options, signal, headers: { ...shown, ...headers } });
    } catch {
      throw new Refused(0, "");
    }
    if (reply.ok) return reply;
    const refusal = await reply.json().catch(() => ({}));
    throw new Refused(reply.status, refusal.message ?? reply.statusText, refusal.data ?? {});
  }

  async function data(path, options) {
    const reply = await ask(path, options);
    try {
      return (await reply.json()).data;
    } catch {
      throw new Refused(0, "");
    }
  }

  /** Send a change of the task `id`; resolve to the task as it is then. */
  const change = (id, to, options) => data(`/tasks/${encodeURIComponent(id)}${to}`, options);

  /** Return the address of results; a value "" is left out. */
  function resultsOf(id, values) {
    const query = new URLSearchParams(Object.entries(values).filter(([, value]) => value !== ""));
    return `/tasks/${encodeURIComponent(id)}/results?${query}`;
  }

  return {
    Refused,
    api: {
      status: () => data("/status"),
      /** Resolve to the columns and first rows of a form's file; nothing is submitted. */
      preview: (form) => data("/preview", { method: "POST", body: form }),
      /** Submit questions or a form with a file. Repeating it with the same `id` returns the same task. */
      submit(body, id) {
        const named = { "Idempotency-Key": id };
        if (body instanceof FormData) return data("/tasks", { method: "POST", body, headers: named });
        const headers = { ...named, "Content-Type": "application/json" };
        return data("/tasks", { method: "POST", body: JSON.stringify(body), headers });
      },
      tasks: (size) => data(`/tasks?size=${size}`),
      task: (id) => data(`/tasks/${encodeURIComponent(id)}`),
      pause: (id) => change(id, "/pause", { method: "POST" }),
      resume: (id) => change(id, "/resume", { method: "POST" }),
      /** Ask the failed questions of an ended task again. */
      retry: (id) => change(id, "/retry", { method: "POST" }),
      cancel: (id) => change(id, "", { method: "DELETE" }),
      /** Remove an ended task with its results. */
      purge: (id) => change(id, "?purge=true", { method: "DELETE" }),
      /** One page of results; `status` "" for all. */
      results: (id, { page, size, status }) => data(resultsOf(id, { page, size, status })),
      /** One result by its index, with its answer as `html`. */
      result: (id, index) =>
        data(resultsOf(id, { page: index + 1, size: 1, render: "html" })).then(({ results: [found] }) => found),
      /** A file of the results of a status; a workbook is in the page's language and in local time. */
      file(id, format, status) {
        const own = { locale: preferences.locale, utc_offset: -new Date().getTimezoneOffset() };
        return ask(resultsOf(id, { format, status, ...(format === "xlsx" ? own : {}) })).then((reply) => reply.blob());
      },
    },
  };
})();
