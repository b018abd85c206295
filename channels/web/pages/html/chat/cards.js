// The buttons in an answer: the choices of a form that the app asks, and the cards that an app writes into its text.

/** The language of a block of code that is a card, and the kinds of cards: those of WeCom. */
const CARD_LANGUAGE = "wecom-card";
const CARD_TYPES = ["text_notice", "news_notice", "button_interaction", "vote_interaction", "multiple_interaction"];
/** The error codes after which a form takes no choice any more. */
const FORM_OVER = ["FORM_ANSWERED", "FORM_EXPIRED", "FORM_GONE"];

/** Return the fields and buttons of a form; after a choice the chosen one is marked, and none can be pressed. */
function choicesShown({ choices, inputs, chosen }, choose) {
  const fields = chosen ? [] : inputs.map(fieldShown);
  const given = () => Object.fromEntries(fields.filter(({ field }) => field.value.trim()).map(({ name, field }) => [name, field.value.trim()]));
  const row = element("div", "card-buttons");
  for (const { title, choice } of choices) {
    const button = element("button", "", title);
    Object.assign(button, { type: "button", disabled: Boolean(chosen), ariaPressed: String(choice === chosen) });
    button.addEventListener("click", () => choose(title, choice, given()));
    row.append(button);
  }
  return [...fields.map(({ label }) => label), row];
}

/** Return the field of a text that a form asks for, within its label. */
function fieldShown({ name, options }) {
  const label = element("label", "field", name);
  const field = element(options.length ? "select" : "textarea");
  if (options.length) field.append(element("option"), ...options.map((option) => element("option", "", option)));
  else field.rows = 1;
  label.append(field);
  return { name, field, label };
}

/** Replace the code of complete cards in an answer by the cards; `ask` gets the question of a button. */
function showCards(place, ask) {
  for (const code of place.querySelectorAll(`pre[data-language=${CARD_LANGUAGE}]`)) {
    const card = !code.closest(".thinking") && cardOf(code.textContent);
    if (card) code.closest(".code-box").replaceWith(cardShown(card, ask));
  }
}

/** Return the card of a JSON text, null for a text that is none. */
function cardOf(text) {
  try {
    const card = JSON.parse(text);
    return CARD_TYPES.includes(card.card_type) ? card : null;
  } catch {
    return null;
  }
}

const listOf = (value) => (Array.isArray(value) ? value : []);

/** Return a card as an element: its texts, links and lists, and its buttons. Parts of another shape are left out. */
function cardShown(card, ask) {
  const box = element("div", "card app-card");
  const line = (text, kind = "") => text && box.append(element("p", kind, String(text)));
  for (const part of [card.main_title, card.emphasis_content, card.image_text_area, ...listOf(card.vertical_content_list)]) {
    line(part?.title, "card-title");
    line(part?.desc, "soft");
  }
  line(card.sub_title_text);
  line(card.quote_area?.title, "soft");
  line(card.quote_area?.quote_text, "soft");
  for (const { keyname = "", value, userid = "", url } of listOf(card.horizontal_content_list)) {
    const row = element("p");
    row.append(element("span", "soft", `${keyname}：`), linkTo(url, String(value ?? userid)));
    box.append(row);
  }
  const links = [...listOf(card.jump_list), { title: word("cardOpens"), url: card.card_action?.url }].filter(({ url }) => isWeb(url));
  for (const { title, url } of links) box.append(linkTo(url, String(title)));
  const selections = [card.button_selection, card.checkbox, ...listOf(card.select_list)].filter((part) => part?.option_list).map(selectionOf);
  box.append(...selections.map(({ shown }) => shown));
  const questions = listOf(card.jump_list).filter(({ question }) => question).map(({ title, question }) => ({ text: title, key: question }));
  const buttons = [...listOf(card.button_list), ...listOf(card.action_menu?.action_list), ...questions, card.submit_button].filter((one) => one?.key);
  const row = element("div", "card-buttons");
  for (const { text, key } of buttons) {
    const button = element("button", "", String(text));
    button.type = "button";
    button.addEventListener("click", () => ask([key, ...selections.map(({ line }) => line())].filter(Boolean).join("\n")));
    row.append(button);
  }
  box.append(row);
  return box;
}

const isWeb = (address) => /^https?:\/\//i.test(address ?? "");

/** Return a link to a page of the web, the text alone for any other address. */
function linkTo(url, text) {
  if (!isWeb(url)) return element("span", "", text);
  return Object.assign(element("a", "", text), { href: url, target: "_blank", rel: "noopener noreferrer nofollow" });
}

/** Return a card's list of options as `shown`, and `line()`, its line in the question that a button asks. */
function selectionOf({ question_key: key, title, mode, option_list: options, selected_id: selected }) {
  const name = newId();
  const shown = element("fieldset");
  if (title) shown.append(element("legend", "soft", String(title)));
  const fields = listOf(options).map(({ id, text, is_checked: checked }) => {
    const label = element("label");
    // In a list of WeCom one option is chosen, in a checkbox of mode 1 any number.
    const field = Object.assign(element("input"), { type: mode === 1 ? "checkbox" : "radio", name, value: String(id), checked: checked ?? id === selected });
    label.append(field, ` ${text}`);
    shown.append(label);
    return field;
  });
  return { shown, line: () => `${key}: ${fields.filter((field) => field.checked).map(({ value }) => value).join(", ")}` };
}
