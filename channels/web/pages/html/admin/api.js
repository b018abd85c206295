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

  /** Return an address of the API relative to the page, which may be served below a path prefix. */
  const address = (path) => new URL(`./api/admin/${path}`, location.href);

  /** Return a path with the values that are not "" as its query. */
  const query = (path, values) => `${path}?${new URLSearchParams(Object.entries(values).filter(([, value]) => value !== ""))}`;

  /** Send a request; resolve to its reply. */
  async function send(method, path, sent) {
    const headers = { ...(csrf && method !== "GET" ? { "X-CSRF-Token": csrf } : {}), ...(sent ? { "Content-Type": "application/json" } : {}) };
    const body = sent && JSON.stringify(sent);
    let reply;
    try {
      const signal = AbortSignal.timeout(TIMEOUT_MS);
      reply = await fetch(address(path), { method, headers, body, signal, cache: "no-store" });
    } catch {
      throw new Refused(0);
    }
    if (reply.ok) return reply;
    const { data } = await reply.json().catch(() => ({}));
    throw new Refused(reply.status, data?.reason, Number(reply.headers.get("Retry-After")));
  }

  /** Send a request; resolve to the data of its reply. */
  async function ask(method, path, sent) {
    const reply = await send(method, path, sent);
    return reply.status === 204 ? null : (await reply.json().catch(() => ({}))).data;
  }

  /** Fetch a file, and let the browser save it. */
  async function save(name, path) {
    const reply = await send("GET", path);
    saveFile(name, await reply.blob().catch(() => { throw new Refused(0); }));
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
      /** One page of the log; here and below a value "" is left out. */
      questions: (values) => ask("GET", query("questions", values)),
      question: (id, withWords) => ask("GET", `questions/${encodeURIComponent(id)}?with_words=${withWords}`),
      story: (id) => ask("GET", `questions/${encodeURIComponent(id)}/story`),
      saveQuestions: (values) => save("questions.csv", query("questions/export", values)),
      feedback: (values) => ask("GET", query("feedback", values)),
      saveFeedback: (values) => save("feedback.csv", query("feedback/export", values)),
      unanswered: (values) => ask("GET", query("unanswered", values)),
      saveUnanswered: (values) => save("unanswered.csv", query("unanswered/export", values)),
      /** Ask the questions of a view again; resolve to the batch. */
      askAgain: (view, values) => ask("POST", query(`${view}/batch`, values)),
      comparison: (id, values) => ask("GET", query(`batches/${encodeURIComponent(id)}/comparison`, values)),
      saveComparison: (id, values) => save("comparison.csv", query(`batches/${encodeURIComponent(id)}/comparison/export`, values)),
      rules: () => ask("GET", "rules"),
      checkRules: (values) => ask("POST", "rules/check", values),
      rulesVersions: (kind, values) => ask("GET", query(`rules/${kind}/versions`, values)),
      rulesText: (kind, version) => ask("GET", `rules/${kind}/versions/${version}`),
      saveRules: (kind, values) => ask("PUT", `rules/${kind}`, values),
      restoreRules: (kind, version) => ask("POST", `rules/${kind}/versions/${version}/restore`),
      batches: () => ask("GET", "batches?limit=100"),
      changeBatch: (id, act) => ask("POST", `batches/${encodeURIComponent(id)}/${act}`),
      pushes: () => ask("GET", "pushes?limit=100"),
      cancelPush: (id) => ask("POST", `pushes/${encodeURIComponent(id)}/cancel`),
      sockets: () => ask("GET", "../ws/connections"),
      closeSocket: (id) => ask("POST", `../ws/disconnect/${encodeURIComponent(id)}`),
      usage: (values) => ask("GET", query("usage", values)),
      /** The address of a chart: an image, drawn by the server. */
      usageChart: (values) => address(query("usage/chart", values)).href,
      saveUsage: (values) => save("usage.csv", query("usage/export", values)),
      cancel: (id) => ask("POST", `live/${encodeURIComponent(id)}/cancel`),
    },
  };
})();
