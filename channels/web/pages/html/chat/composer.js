// The field for a question: its height, its limit of characters, and the keys that send it.

/** The server's limit of a question's characters, and the number from which they are counted on the page. */
const MOST_CHARACTERS = 10_000;
const COUNTED_FROM = 9_000;

const question = byId("question");

/** Return the number of characters as the server counts them: code points, without white space around them. */
const lengthOf = (text) => [...text.trim()].length;

/** Return the words for a question that is too long, "" for one that is not. */
function refusalOf(text) {
  const count = lengthOf(text);
  return count > MOST_CHARACTERS ? word("tooLong", { most: numberOf(MOST_CHARACTERS), count: numberOf(count) }) : "";
}

const numberOf = (count) => count.toLocaleString(document.documentElement.lang);

/** Fit the field to its text, and count its characters near the limit. */
function fit() {
  question.style.height = "auto";
  question.style.height = `${question.scrollHeight + 2}px`;
  // Code units are at least as many as code points, and cheaper to count.
  const count = question.value.length < COUNTED_FROM ? 0 : lengthOf(question.value);
  byId("count").hidden = count < COUNTED_FROM;
  byId("count").textContent = `${numberOf(count)} / ${numberOf(MOST_CHARACTERS)}`;
  byId("count").dataset.over = String(count > MOST_CHARACTERS);
  if (count <= MOST_CHARACTERS) refuse();
}

/** Show why a question is not sent; `words()` returns it, nothing means that it may be. */
const refuse = (words) => say("refusal", words);

/** What is typed is kept for each conversation, in this tab only: a reload or another conversation costs no words. */
const drafts = {
  keep: (chat) => tabStore.set(`draft.${chat}`, question.value),
  /** Put the draft of a conversation into the field. */
  show(chat) {
    question.value = tabStore.get(`draft.${chat}`, "");
    fit();
  },
};

/** Ask what is in the field, with its files, by `ask`; a question that is refused stays in it. */
function submitBy(ask) {
  const { uploading } = attachments;
  const text = question.value;
  const refusal = () => (uploading ? word("stillUploading") : refusalOf(text));
  refuse(refusal);
  if (refusal()) return;
  ask(text, attachments.take());
  question.value = "";
  question.dispatchEvent(new Event("input"));
}

/** `ask` asks a question, `current()` is the id of the conversation, `editLast` edits its last question. */
function wireComposer({ ask, current, editLast }) {
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    submitBy(ask);
    question.focus();
  });
  question.addEventListener("input", () => {
    fit();
    drafts.keep(current());
  });
  question.addEventListener("keydown", (event) => {
    if (event.key === "ArrowUp" && !question.value && !event.isComposing) {
      event.preventDefault();
      return editLast();
    }
    // An Enter that confirms a character belongs to the input method.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    submitBy(ask);
  });
}
