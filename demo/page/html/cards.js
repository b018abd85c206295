"use strict";

// A template card below a bubble, with what can be clicked on it.

/** The options of one list: radio buttons, or boxes where several may be selected. */
function cardOptions(list) {
  const group = element("fieldset", "options");
  if (list.title) group.append(element("legend", "", list.title));
  for (const option of list.options) {
    const label = element("label", "");
    const box = Object.assign(document.createElement("input"), { type: list.multiple ? "checkbox" : "radio" });
    Object.assign(box, { name: `${list.key}`, value: option.id });
    label.append(box, ` ${option.text}`);
    group.append(label);
  }
  return group;
}

/** Return what is selected on a card: ids by the keys of their lists. */
function cardSelected(card, shown) {
  const chosen = (list) => [...shown.querySelectorAll("input:checked")].filter((box) => box.name === list.key);
  return Object.fromEntries(card.lists.map((list) => [list.key, chosen(list).map((box) => box.value)]));
}

/** Return a card; `click(button, selected)` sends a click, and `ask(question)` a message. */
function cardBox(card, label, click, ask) {
  const shown = element("div", "card");
  shown.setAttribute("role", "group");
  shown.setAttribute("aria-label", label);
  if (card.title) shown.append(element("h3", "", card.title));
  shown.append(...card.lines.map((line) => element("p", "", line)));
  shown.append(...card.lists.map(cardOptions));
  for (const text of card.buttons) {
    const button = element("button", "", text);
    button.type = "button";
    button.addEventListener("click", () => click(text, cardSelected(card, shown)));
    shown.append(button);
  }
  for (const jump of card.asks) {
    const button = element("button", "", jump.title);
    button.type = "button";
    button.addEventListener("click", () => ask(jump.question));
    shown.append(button);
  }
  return shown;
}
