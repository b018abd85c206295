// How a chat begins, by the app behind the gateway: its opening statement and questions; and the questions that it
// suggests after an answer.

/** Return buttons that ask these questions. */
function suggestionsShown(questions, ask) {
  return questions.map((text) => {
    const button = element("button", "suggestion", text);
    button.type = "button";
    button.addEventListener("click", () => ask(text));
    return button;
  });
}

const keyHeaders = () => (preferences.key ? { Authorization: `Bearer ${preferences.key}` } : {});

/** The key with which the opening was loaded. */
let openedWith = null;

/** Show the opening on the empty page, and tell `attachments` what files may be sent; once for each key. */
async function loadOpening(ask) {
  if (openedWith === preferences.key) return;
  openedWith = preferences.key;
  try {
    const reply = await fetch(new URL("./api/chat/opening", location.href), { headers: keyHeaders() });
    if (!reply.ok) return;
    const { html, suggested_questions: questions, files } = (await reply.json()).data;
    const words = element("div", "opening-words");
    const list = element("div", "suggestions");
    attachments.allow(files);
    if (html) showHtml(words, html);
    list.append(...suggestionsShown(questions, ask));
    byId("opening").replaceChildren(...(html ? [words] : []), ...(questions.length ? [list] : []));
    byId("empty").classList.toggle("opened", Boolean(html));
  } catch {
    // The page opens in its own words, and asks again with the next connection.
    openedWith = null;
  }
}
