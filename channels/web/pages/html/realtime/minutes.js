// What was heard and answered on the realtime page, as a Markdown file.

const timeOf = (at) => new Date(at).toLocaleTimeString(document.documentElement.lang);

/** Return the title of the file: the page's, with the day and the time. */
function minutesTitle() {
  const now = new Date().toLocaleString(document.documentElement.lang, { dateStyle: "medium", timeStyle: "short" });
  return `${word("title")} ${now}`;
}

/** Return the sentences with their times, and the questions with their answers and sources. */
function minutes(heard, turns) {
  const spoken = heard.map(({ at, text, question }) => `- ${timeOf(at)} ${text}${question ? ` (${word("asked")})` : ""}`);
  const asked = turns.flatMap(answered);
  const parts = [`# ${minutesTitle()}`, ...(spoken.length ? [`## ${word("transcript")}`, spoken.join("\n")] : [])];
  return `${[...parts, ...(asked.length ? [`## ${word("talk")}`, ...asked] : [])].join("\n\n")}\n`;
}

/** Return the parts of one question and its answer. */
function answered({ question, at, text, state, sources }) {
  const note = { finished: "", failed: "failed", refused: "notAsked" }[state] ?? NOTES[state] ?? "growing";
  const named = sources.map((source, place) => `${place + 1}. ${titleOf(source)}${source.url ? ` <${source.url}>` : ""}`);
  return [
    `### ${question.replace(/\s+/g, " ")}`,
    `*${timeOf(at)}${note ? ` · ${word(note)}` : ""}*`,
    text,
    named.length ? `${word("sources", { count: named.length })}\n\n${named.join("\n")}` : "",
  ].filter(Boolean);
}
