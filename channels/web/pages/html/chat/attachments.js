// Pictures and files of the next question: chosen by button, paste or drop, uploaded at once, shown above the field.

/** The limits for the files of a question, until the server has sent its own. */
const FILE_LIMITS = { allowed: false, max_bytes: 20 * 1024 * 1024, max_files: 10 };
/** The longest side of a thumbnail in pixels; it is stored with the question. */
const THUMB_SIDE = 160;

/** Return a number of bytes in words. */
function sizeOf(bytes) {
  const [unit, size] = bytes < 1_048_576 ? ["KB", bytes / 1024] : ["MB", bytes / 1_048_576];
  return `${Math.max(0.1, size).toLocaleString(document.documentElement.lang, { maximumFractionDigits: 1 })} ${unit}`;
}

/** Return a small picture as a data URL, "" for a file that the browser cannot show. */
async function thumbnailOf(file) {
  if (!file.type.startsWith("image/")) return "";
  try {
    // Not an address of the file: the page's policy lets it load pictures of this server only.
    const picture = await createImageBitmap(file);
    const scale = Math.min(1, THUMB_SIDE / Math.max(picture.width, picture.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, picture.width * scale);
    canvas.height = Math.max(1, picture.height * scale);
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    return canvas.toDataURL("image/webp", 0.8);
  } catch {
    return "";
  }
}

/** Return the part of a sent file that shows what it is: its thumbnail, or its icon, name and size. */
function sentFileShown({ name, size, thumb }) {
  const box = element("span", thumb ? "sent-picture" : "sent-file");
  if (thumb) box.append(Object.assign(element("img"), { src: thumb, alt: name }));
  else box.append(icon("file"), element("span", "file-name", name), element("small", "", sizeOf(size)));
  return box;
}

/** One file of the next question. `kept` is what the question keeps of it: {file_id, name, size, thumb}. */
class Attachment {
  constructor(file, on) {
    this.kept = { file_id: "", name: file.name, size: file.size, thumb: "" };
    this.box = element("li", "attachment");
    this.bar = Object.assign(element("progress"), { max: 1, value: 0 });
    this.remove = iconButton("close", "removeFile", () => on.removed(this));
    this.draw();
    thumbnailOf(file).then((thumb) => {
      this.kept.thumb = thumb;
      this.draw();
    });
    this.#upload(file, on);
  }

  /** Stop the upload. */
  abort() {
    this.request.abort();
  }

  draw() {
    this.bar.ariaLabel = word("uploading", { name: this.kept.name });
    this.remove.ariaLabel = this.remove.title = word("removeFile", { name: this.kept.name });
    this.box.title = this.kept.name;
    this.box.replaceChildren(sentFileShown(this.kept), ...(this.kept.file_id ? [] : [this.bar]), this.remove);
  }

  #upload(file, on) {
    // fetch does not tell how far an upload is.
    this.request = Object.assign(new XMLHttpRequest(), { responseType: "json", timeout: 300_000 });
    this.request.open("POST", new URL("./api/files", location.href));
    if (preferences.key) this.request.setRequestHeader("Authorization", `Bearer ${preferences.key}`);
    this.request.upload.onprogress = ({ loaded, total }) => (this.bar.value = loaded / total);
    this.request.onerror = this.request.ontimeout = () => on.failed(this, () => word("uploadFailed", { name: file.name }));
    this.request.onload = () => {
      const { status, response } = this.request;
      if (status === 401) askKey(Boolean(preferences.key));
      if (status !== 201) return on.failed(this, () => this.#refusal(file.name, response));
      this.kept.file_id = response.data.file_id;
      return this.draw();
    };
    const form = new FormData();
    form.append("file", file);
    this.request.send(form);
  }

  #refusal(name, reply) {
    const sentence = sentenceOf({ reason: reply?.data?.reason, message: reply?.message });
    return sentence ? `${name}: ${sentence}` : word("uploadFailed", { name });
  }
}

/** The files of the next question. */
const attachments = (() => {
  const list = element("ul", "attachments");
  const field = Object.assign(element("input"), { type: "file", multiple: true, hidden: true });
  const button = iconButton("attach", "attach", () => field.click());
  let limits = FILE_LIMITS;
  let added = [];
  /** A function for each file that was refused since the last choice: it returns the sentence about the file. */
  let refusals = [];

  const on = {
    removed(one) {
      one.abort();
      drop(one);
      byId("question").focus();
    },
    failed(one, words) {
      drop(one);
      refuseFile(words);
    },
  };

  function refuseFile(words) {
    refusals.push(words);
    refuse(() => refusals.map((sentence) => sentence()).join("\n"));
  }

  /** Return the sentence about a file that the server would refuse, "" for one that fits. */
  function refusalOfFile({ name, size }) {
    if (!size) return word("fileEmpty", { name });
    return size > limits.max_bytes ? word("fileTooLarge", { name, most: sizeOf(limits.max_bytes) }) : "";
  }

  function drop(one) {
    added = added.filter((other) => other !== one);
    one.box.remove();
    list.hidden = !added.length;
  }

  /** Add files; each that the server would refuse is named with the reason, before it is uploaded. */
  function add(files) {
    const fitting = files.filter((file) => !refusalOfFile(file));
    const room = limits.max_files - added.length;
    const names = fitting.slice(room).map(({ name }) => name);
    refusals = [];
    refuse();
    for (const file of files) if (refusalOfFile(file)) refuseFile(() => refusalOfFile(file));
    if (names.length) refuseFile(() => word("tooManyFiles", { most: limits.max_files, names: names.join(word("nameJoin")) }));
    for (const file of fitting.slice(0, room)) {
      const one = new Attachment(file, on);
      added.push(one);
      list.append(one.box);
    }
    list.hidden = !added.length;
  }

  const filesOf = (transfer) => (limits.allowed ? [...(transfer?.files ?? [])] : []);

  function dropped(event) {
    const files = filesOf(event.dataTransfer);
    document.body.classList.remove("dropping");
    // Without this the browser would leave the page for the file.
    event.preventDefault();
    add(files);
  }

  list.hidden = button.hidden = true;
  byId("attachments").append(list);
  byId("mic").before(button, field);
  field.addEventListener("change", () => {
    add([...field.files]);
    field.value = "";
  });
  byId("question").addEventListener("paste", (event) => {
    const files = filesOf(event.clipboardData);
    if (!files.length) return;
    event.preventDefault();
    add(files);
  });
  addEventListener("dragover", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    document.body.classList.toggle("dropping", limits.allowed);
  });
  addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("dropping"));
  addEventListener("drop", (event) => event.dataTransfer?.types.includes("Files") && dropped(event));

  return {
    /** Name the files' parts in the page's present language. */
    relabel() {
      for (const one of added) one.draw();
    },
    /** Take the rules of the server for files. */
    allow(rules) {
      limits = rules;
      button.hidden = !rules.allowed;
    },
    /** Whether a file is still being uploaded. */
    get uploading() {
      return added.some(({ kept }) => !kept.file_id);
    },
    /** Return what a question keeps of its files, and begin anew. */
    take() {
      const taken = added.map(({ kept }) => kept);
      added = [];
      list.replaceChildren();
      list.hidden = true;
      return taken;
    },
  };
})();
