// The REST addresses of batches, with the key of this tab where one is wanted.

const { api, Refused } = (() => {
  /** The pages of the sockets keep theirs under the same name. */
  const KEY = "wechatlaibao.key";
  /** Milliseconds until an answer must have begun; a file may take the server its time. */
  const PATIENCE_MS = 90_000;

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
      // It lasts as long as the page.
    }
  }

  /** What the server says no to, in its own sentence; without a status nobody answered. */
  class Refused extends Error {
    constructor(status, message, { reason = "", errors = [] } = {}) {
      super([message, ...errors.slice(0, 3).map((one) => `${one.field}: ${one.problem}`)].filter(Boolean).join(" · "));
      this.status = status;
      this.reason = reason;
    }

    /** Another moment may bring an answer. */
    get passes() {
      return this.status === 0 || this.status === 429 || (this.status >= 502 && this.reason !== "batch_unavailable");
    }
  }

  /** Return where an address is, also when the page is served below a folder. */
  const address = (path) => new URL(`./api/batch${path}`, location.href);

  async function ask(path, { headers = {}, ...options } = {}) {
    const shown = /^[\x21-\x7e]+$/.test(key) ? { "X-API-Key": key } : {};
    let reply;
    try {
      const signal = AbortSignal.timeout(PATIENCE_MS);
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
      /** Submit questions, or a form with a file; the same `id` is the same task, however often it is said. */
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

/** Return an id that nobody else has; randomUUID is there on safe origins only. */
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
