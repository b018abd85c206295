// The client of the batch REST API; sends this tab's API key if there is one.

const { api, Refused } = (() => {
  /** The same storage key as in connection.js. */
  const KEY = "wechatlaibao.key";
  /** Timeout of a request in milliseconds; the server may need long to read an uploaded file. */
  const TIMEOUT_MS = 90_000;

  let key = kept();

  function kept() {
    try {
      return sessionStorage.getItem(KEY) ?? "";
    } catch {
      return "";
    }
  }

  function keep(value) {
    key = value;
    try {
      if (value) sessionStorage.setItem(KEY, value);
      else sessionStorage.removeItem(KEY);
    } catch {
      // Without storage the key is kept until the page is closed.
    }
  }

  /** A failed request, with the server's message; status 0 means that no reply came. */
  class Refused extends Error {
    constructor(status, message, { reason = "", errors = [] } = {}) {
      super([message, ...errors.slice(0, 3).map((one) => `${one.field}: ${one.problem}`)].filter(Boolean).join(" · "));
      this.status = status;
      this.reason = reason;
    }

    /** Whether a later try may succeed. */
    get passes() {
      return this.status === 0 || this.status === 429 || (this.status >= 502 && this.reason !== "batch_unavailable");
    }
  }

  /** Resolve an address relative to the page, which may be served below a path prefix. */
  const address = (path) => new URL(`./api/batch${path}`, location.href);

  async function ask(path, { headers = {}, ...options } = {}) {
    const shown = /^[\x21-\x7e]+$/.test(key) ? { "X-API-Key": key } : {};
    let reply;
    try {
      const signal = AbortSignal.timeout(TIMEOUT_MS);
      reply = await fetch(address(path), { cache: "no-store", ...options, signal, headers: { ...shown, ...headers } });
    } catch {
      throw new Refused(0, "");
    }
    if (reply.ok) return reply;
    const told = await reply.json().catch(() => ({}));
    throw new Refused(reply.status, told.message ?? reply.statusText, told.data ?? {});
  }

  async function data(path, options) {
    const reply = await ask(path, options);
    try {
      return (await reply.json()).data;
    } catch {
      throw new Refused(0, "");
    }
  }

  return {
    Refused,
    api: {
      get hasKey() {
        return key !== "";
      },
      keep,
      /** Submit questions or a form with a file. Repeating it with the same `id` returns the same task. */
      submit(body, id) {
        const named = { "Idempotency-Key": id };
        if (body instanceof FormData) return data("/tasks", { method: "POST", body, headers: named });
        const headers = { ...named, "Content-Type": "application/json" };
        return data("/tasks", { method: "POST", body: JSON.stringify(body), headers });
      },
      tasks: (size) => data(`/tasks?size=${size}`),
      task: (id) => data(`/tasks/${encodeURIComponent(id)}`),
      /** `to` is pause, resume or cancel. */
      change: (id, to) =>
        to === "cancel"
          ? data(`/tasks/${encodeURIComponent(id)}`, { method: "DELETE" })
          : data(`/tasks/${encodeURIComponent(id)}/${to}`, { method: "POST" }),
      results: (id, page, size) => data(`/tasks/${encodeURIComponent(id)}/results?page=${page}&size=${size}`),
      file: (id, format) => ask(`/tasks/${encodeURIComponent(id)}/results?format=${format}`).then((reply) => reply.blob()),
    },
  };
})();
