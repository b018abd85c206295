// The conversations of this browser, in IndexedDB: they outlive the tab. What cannot be written there is kept in memory
// until the page is closed, and the page says so.

const { ChatDatabase } = (() => {
  const NAME = "wechatlaibao.chat";
  /** Milliseconds for the database to open. */
  const OPEN_MS = 5000;

  const newestFirst = (a, b) => b.changed - a.changed;
  const oldestFirst = (a, b) => a.number - b.number;

  /** A conversation is {id, title, changed, unfinished, unread, pinned}: milliseconds of the last change, number of
   *  unfinished answers, whether one of them has ended since the conversation was shown, whether the list has it on top.
   *  A turn is `Turn.kept` with `chat`, its conversation's id, and `number`, its place in the conversation. */
  class ChatDatabase {
    #db = null;
    #memory = { chats: new Map(), turns: new Map() };
    /** Conversations that are in the database, as far as this tab knows. */
    #saved = new Set();
    #announced = new Map();
    #tabs = globalThis.BroadcastChannel ? new BroadcastChannel(NAME) : null;

    /** `on.trouble("refused" or "full")`: kept in memory only; `on.changed()`: the list has changed, also by another
     *  tab; `on.deleted(id)`: another tab has deleted a conversation. */
    constructor(on) {
      this.on = on;
      if (this.#tabs) this.#tabs.onmessage = ({ data }) => this.#received(data);
    }

    async open() {
      try {
        this.#db = await opened();
        this.#db.onclose = this.#db.onversionchange = () => this.#lose();
      } catch {
        this.on.trouble("refused");
      }
    }

    /** Return the conversations, the last changed first. */
    async chats() {
      const kept = await this.#read(({ chats }) => chats.getAll());
      return overlaid(kept, this.#memory.chats).sort(newestFirst);
    }

    /** Return the turns of a conversation in their order. */
    async turns(chat) {
      const kept = await this.#read(({ turns }) => turns.index("chat").getAll(chat));
      if (kept.length) this.#saved.add(chat);
      const unwritten = [...this.#memory.turns.values()].filter((turn) => turn.chat === chat);
      return overlaid(kept, new Map(unwritten.map((turn) => [turn.id, turn]))).sort(oldestFirst);
    }

    /** Store changed turns with their conversation. One that was deleted by another tab is not written again. */
    async save(chat, turns) {
      // Copies, because the page changes its own while the transaction waits.
      const copies = structuredClone(turns);
      const shown = { ...chat };
      let gone = false;
      const fits = await this.#write(({ chats, turns: place }) => {
        when(chats.get(chat.id), (known) => {
          gone = !known && this.#saved.has(chat.id);
          if (gone) return;
          chats.put(withChoices(shown, known));
          for (const turn of copies) when(place.get(turn.id), (older) => isNewer(turn, older) && place.put(turn));
        });
      });
      if (gone) return this.on.deleted(chat.id);
      this.#remember(fits, shown, copies);
      return this.#announce(chat);
    }

    rename(id, title) {
      return this.#change(id, { title });
    }

    pin(id, pinned) {
      return this.#change(id, { pinned });
    }

    /** The unfinished answers of a conversation that is not shown have ended. */
    end(id) {
      return this.#change(id, { unfinished: 0, unread: true });
    }

    /** A conversation is shown. */
    see(id) {
      return this.#change(id, { unread: false });
    }

    async delete(id) {
      this.#memory.chats.delete(id);
      for (const turn of await this.turns(id)) this.#memory.turns.delete(turn.id);
      await this.#write(({ chats, turns }) => {
        chats.delete(id);
        when(turns.index("chat").getAllKeys(id), (keys) => keys.forEach((key) => turns.delete(key)));
      });
      return this.#tell({ deleted: id });
    }

    async deleteTurns(ids) {
      for (const id of ids) this.#memory.turns.delete(id);
      await this.#write(({ turns }) => ids.forEach((id) => turns.delete(id)));
    }

    /** Return the ids of the conversations whose title, questions or answers contain the words. */
    async search(words) {
      const wanted = words.toLowerCase();
      const has = (text) => text.toLowerCase().includes(wanted);
      const kept = await this.#read(({ turns }) => turns.getAll());
      const turns = overlaid(kept, this.#memory.turns).filter(({ question, text }) => has(question) || has(text));
      const chats = (await this.chats()).filter(({ title }) => has(title));
      return new Set([...chats.map(({ id }) => id), ...turns.map(({ chat }) => chat)]);
    }

    async #change(id, values) {
      const inMemory = this.#memory.chats.get(id);
      if (inMemory) Object.assign(inMemory, values);
      await this.#write(({ chats }) => when(chats.get(id), (known) => known && chats.put({ ...known, ...values })));
      return this.#tell({ changed: true });
    }

    async #read(ask) {
      let found = [];
      if (this.#db) await this.#transact("readonly", (stores) => when(ask(stores), (result) => (found = result))).catch(() => {});
      return found;
    }

    /** Return whether it was written. */
    async #write(act) {
      if (!this.#db) return false;
      try {
        await this.#transact("readwrite", act);
        return true;
      } catch {
        this.on.trouble(this.#db ? "full" : "refused");
        return false;
      }
    }

    #transact(mode, act) {
      return new Promise((done, failed) => {
        const transaction = this.#db.transaction(["chats", "turns"], mode);
        transaction.oncomplete = () => done();
        transaction.onabort = () => failed(transaction.error);
        act({ chats: transaction.objectStore("chats"), turns: transaction.objectStore("turns") });
      });
    }

    #remember(fits, chat, turns) {
      if (fits) this.#saved.add(chat.id);
      const { chats, turns: kept } = this.#memory;
      fits ? chats.delete(chat.id) : chats.set(chat.id, withChoices(chat, chats.get(chat.id) ?? chat));
      for (const turn of turns) fits ? kept.delete(turn.id) : kept.set(turn.id, turn);
    }

    #lose() {
      this.#db?.close();
      this.#db = null;
      this.on.trouble("refused");
    }

    /** Tell what the list shows of a conversation, if it is something else than before. */
    #announce({ id, changed, unfinished }) {
      const shown = `${changed} ${unfinished}`;
      if (this.#announced.get(id) === shown) return;
      this.#announced.set(id, shown);
      this.#tell({ changed: true });
    }

    #tell(message) {
      this.#tabs?.postMessage(message);
      this.on.changed();
    }

    #received({ deleted }) {
      if (deleted) this.on.deleted(deleted);
      this.on.changed();
    }
  }

  const when = (request, act) => (request.onsuccess = () => act(request.result));

  /** Return a conversation with what the list has changed of it, as it is stored. */
  function withChoices(chat, known) {
    return { ...chat, title: known?.title || chat.title, pinned: Boolean(known?.pinned) };
  }

  /** Return records with those that could not be written, which are newer. */
  function overlaid(records, unwritten) {
    return [...records.filter(({ id }) => !unwritten.has(id)), ...unwritten.values()];
  }

  /** A tab that was replaced may be late: the end of an answer is never overwritten by a part of it. */
  function isNewer(turn, older) {
    return !older || !isEnded(older.state) || isEnded(turn.state);
  }

  function opened() {
    return new Promise((done, failed) => {
      const request = indexedDB.open(NAME, 1);
      let late = false;
      setTimeout(() => failed((late = true)), OPEN_MS);
      request.onupgradeneeded = () => {
        request.result.createObjectStore("chats", { keyPath: "id" });
        request.result.createObjectStore("turns", { keyPath: "id" }).createIndex("chat", "chat");
      };
      request.onsuccess = () => (late ? request.result.close() : done(request.result));
      request.onerror = () => failed(request.error);
    });
  }

  return { ChatDatabase };
})();
