// The list of conversations beside the chat, a drawer on phones, grouped by date: search, open, pin, rename, export and
// delete.

/** Milliseconds after the last key until the search begins. */
const SEARCH_MS = 150;

/** The most characters of a conversation's first title, which is its first question. */
const TITLE_CHARACTERS = 60;

class ChatList {
  #drawn = 0;
  #typed = 0;
  #unfolded = "";
  #renamed = "";
  /** Whether a pointer is down on the list, and whether a drawing was left out for it. */
  #pressed = false;
  #late = false;

  /** `on.open(id)`, `on.fresh()`, `on.exported(chat)` and `on.deleted(chat)`; `current()` is the id that is shown. */
  constructor(database, current, on) {
    this.database = database;
    this.current = current;
    this.on = on;
    this.box = byId("chats");
    this.narrow = matchMedia("(max-width: 860px)");
    this.narrow.addEventListener("change", () => this.#place(false));
    byId("chats-open").addEventListener("click", () => this.#place(true));
    byId("chats-close").addEventListener("click", () => this.close());
    byId("chats-shade").addEventListener("click", () => this.close());
    for (const button of document.querySelectorAll(".fresh")) button.addEventListener("click", () => this.#begin());
    byId("chats-search").addEventListener("input", () => this.#search());
    byId("chats-list").addEventListener("pointerdown", () => (this.#pressed = true));
    for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => this.#release());
    this.box.addEventListener("keydown", (event) => this.#key(event));
    addEventListener("keydown", (event) => this.#find(event));
    this.#place(false);
  }

  /** Close the drawer; beside the chat the list stays. */
  close() {
    const wasOpen = this.narrow.matches && !this.box.inert;
    this.#place(false);
    if (wasOpen) byId("chats-open").focus();
  }

  /** Show the conversations as they are stored. */
  async draw() {
    const drawing = ++this.#drawn;
    const words = byId("chats-search").value.trim();
    const [chats, found] = await Promise.all([this.database.chats(), words ? this.database.search(words) : null]);
    // An item that is replaced while it is pressed gets no click.
    this.#late = this.#pressed;
    if (drawing !== this.#drawn || this.#renamed || this.#late) return;
    const shown = found ? chats.filter(({ id }) => found.has(id)) : chats;
    const focused = document.activeElement?.closest("#chats-list li")?.dataset.id;
    const within = document.activeElement?.className;
    byId("chats-list").replaceChildren(...grouped(shown).map(([title, chats]) => this.#group(title, chats)));
    byId("chats-none").hidden = shown.length > 0;
    byId("chats-none").textContent = word(words ? "chatsNotFound" : "chatsNone");
    if (focused) byId("chats-list").querySelector(`[data-id="${focused}"] [class="${within}"]`)?.focus();
  }

  #place(open) {
    const drawer = this.narrow.matches;
    document.body.dataset.drawer = String(drawer && open);
    this.box.inert = drawer && !open;
    byId("room").inert = drawer && open;
    document.querySelector("header").inert = drawer && open;
    if (drawer && open) byId("chats-close").focus();
  }

  /** The click of a press comes before the next frame. */
  #release() {
    this.#pressed = false;
    if (this.#late) requestAnimationFrame(() => this.draw());
    this.#late = false;
  }

  #begin() {
    this.close();
    this.on.fresh();
  }

  #search() {
    clearTimeout(this.#typed);
    this.#typed = setTimeout(() => this.draw(), SEARCH_MS);
  }

  /** Ctrl+K, or ⌘K, begins a search. */
  #find(event) {
    if (event.key.toLowerCase() !== "k" || !(event.ctrlKey || event.metaKey) || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    this.#place(true);
    byId("chats-search").select();
    byId("chats-search").focus();
  }

  #key(event) {
    if (event.key !== "Escape" || event.isComposing || !this.narrow.matches) return;
    event.stopPropagation();
    this.close();
  }

  #group(title, chats) {
    const group = element("section");
    const items = element("ol");
    items.append(...chats.map((chat) => this.#item(chat)));
    items.ariaLabel = title;
    group.append(element("h2", "soft", title), items);
    return group;
  }

  #item(chat) {
    const item = element("li");
    const open = element("button", "chat-open");
    const more = iconButton("more", "chatActions", () => this.#unfold(chat.id));
    const unfolded = this.#unfolded === chat.id;
    Object.assign(item.dataset, { id: chat.id });
    open.type = "button";
    open.append(element("span", "chat-title", chat.title), this.#about(chat));
    open.addEventListener("click", () => this.#open(chat.id));
    if (chat.id === this.current()) open.setAttribute("aria-current", "true");
    more.ariaLabel = more.title = word("actionsOf", { title: chat.title });
    more.ariaExpanded = String(unfolded);
    // The title of the conversation is in its name, so the language is that of the drawing.
    delete more.dataset.label;
    delete more.dataset.hint;
    item.append(open, more);
    if (unfolded) item.append(this.#actions(chat, item));
    return item;
  }

  #about(chat) {
    const about = element("small", "soft", whenOf(chat.changed));
    const state = chat.unfinished ? "answering" : chat.unread ? "unread" : "";
    if (state) about.prepend(labelled("span", `tag ${state}`, state), " ");
    return about;
  }

  #actions(chat, item) {
    const row = element("div", "chat-actions");
    const pin = iconButton("pin", "pin", () => this.database.pin(chat.id, !chat.pinned));
    pin.ariaPressed = String(Boolean(chat.pinned));
    row.append(
      pin,
      iconButton("edit", "rename", () => this.#rename(chat, item)),
      iconButton("download", "export", () => this.on.exported(chat)),
      iconButton("trash", "delete", () => this.#delete(chat)),
    );
    return row;
  }

  async #delete(chat) {
    if (await confirmed("delete", { title: chat.title })) this.on.deleted(chat);
  }

  #open(id) {
    this.close();
    this.on.open(id);
  }

  #unfold(id) {
    this.#unfolded = this.#unfolded === id ? "" : id;
    this.draw();
  }

  /** Replace the title by a field; Enter stores it, Escape does not. */
  #rename(chat, item) {
    const field = Object.assign(element("input", "chat-name"), { value: chat.title, maxLength: 100, ariaLabel: word("rename") });
    const close = async (title) => {
      if (!this.#renamed) return;
      this.#renamed = this.#unfolded = "";
      if (title) await this.database.rename(chat.id, title);
      else await this.draw();
      byId("chats-list").querySelector(`[data-id="${chat.id}"] .chat-open`)?.focus();
    };
    field.addEventListener("keydown", (event) => {
      if (event.isComposing || !["Enter", "Escape"].includes(event.key)) return;
      event.stopPropagation();
      close(event.key === "Enter" ? field.value.trim() : "");
    });
    field.addEventListener("blur", () => close(field.value.trim()));
    this.#renamed = chat.id;
    item.replaceChildren(field);
    field.select();
  }
}

/** Return conversations, the last changed first, as pairs of a group's title and its conversations: the pinned ones, and
 *  the others by date. */
function grouped(chats) {
  const groups = new Map();
  for (const chat of [...chats.filter(({ pinned }) => pinned), ...chats.filter(({ pinned }) => !pinned)]) {
    const title = chat.pinned ? word("pinned") : periodOf(chat.changed);
    groups.set(title, [...(groups.get(title) ?? []), chat]);
  }
  return [...groups];
}

/** Return the period of a day in words: today, yesterday, the last 7 or 30 days, else its month. */
function periodOf(milliseconds) {
  const then = new Date(milliseconds);
  // A day may have 23 or 25 hours.
  const days = Math.round((new Date().setHours(0, 0, 0, 0) - new Date(then).setHours(0, 0, 0, 0)) / 86_400_000);
  if (days < 2) return word(days < 1 ? "today" : "yesterday");
  if (days <= 30) return word(days <= 7 ? "week" : "month");
  return then.toLocaleDateString(document.documentElement.lang, { year: "numeric", month: "long" });
}

/** Return a conversation's title for its first question. */
function titleFor(question) {
  const line = question.split("\n").find((words) => words.trim()).trim();
  const characters = [...line];
  return characters.length > TITLE_CHARACTERS ? `${characters.slice(0, TITLE_CHARACTERS).join("")}…` : line;
}

/** Return the time of a day, or another day. */
function whenOf(milliseconds) {
  const then = new Date(milliseconds);
  const today = then.toDateString() === new Date().toDateString();
  const language = document.documentElement.lang;
  if (today) return then.toLocaleTimeString(language, { hour: "2-digit", minute: "2-digit" });
  return then.toLocaleDateString(language, { year: "numeric", month: "short", day: "numeric" });
}
