// The client of the administrators' REST API: by the session's cookie, with its CSRF token for what changes something.

const { api, Refused } = (() => {
  const TIMEOUT_MS = 30_000;
  let csrf = "";

  /** A failed request; status 0 means that no reply came. */
  class Refused extends Error {
    constructor(status, reason = "", seconds = 0) {
      super(reason);
      this.status = status;
      this.reason = reason;
      /** Seconds after which the server would take another try. */
      this.seconds = seconds;
    }
  }

  /** Send a request relative to the page, which may be served below a path prefix; resolve to the data. */
  async function ask(method, path, sent) {
    const headers = { ...(csrf && method !== "GET" ? { "X-CSRF-Token": csrf } : {}), ...(sent ? { "Content-Type": "application/json" } : {}) };
    const body = sent && JSON.stringify(sent);
    let reply;
    try {
      const signal = AbortSignal.timeout(TIMEOUT_MS);
      reply = await fetch(new URL(`./api/admin/${path}`, location.href), { method, headers, body, signal, cache: "no-store" });
    } catch {
      throw new Refused(0);
    }
    const { data } = await reply.json().catch(() => ({}));
    if (reply.ok) return data;
    throw new Refused(reply.status, data?.reason, Number(reply.headers.get("Retry-After")));
  }

  /** Resolve to the session, and keep its CSRF token. */
  async function session(method, sent) {
    const found = await ask(method, "session", sent);
    csrf = found.csrf_token;
    return found;
  }

  return {
    Refused,
    api: {
      session: () => session("GET"),
      signIn: (token) => session("POST", { token }),
      signOut: () => ask("DELETE", "session"),
      overview: () => ask("GET", "overview"),
      testAlert: () => ask("POST", "alerts/test"),
      live: () => ask("GET", "live?limit=500"),
      text: (id) => ask("GET", `live/${encodeURIComponent(id)}`),
      /** One page of the log; a value "" is left out. */
      questions(values) {
        const given = Object.entries(values).filter(([, value]) => value !== "");
        return ask("GET", `questions?${new URLSearchParams(given)}`);
      },
      question: (id, withWords) => ask("GET", `questions/${encodeURIComponent(id)}?with_words=${withWords}`),
      cancel: (id) => ask("POST", `live/${encodeURIComponent(id)}/cancel`),
    },
  };
})();
