// The form of a new task: typed questions or a file, its name and priority, and the submission.

const FILES = /\.(txt|csv|tsv|xlsx)$/i;

const newTask = (() => {
  const questions = byId("questions");
  /** Maximum bytes of a file; 0 until the server has named it. */
  let maxBytes = 0;
  let submission = null;
  /** What is shown as not accepted: a text's key with its parameters, or a failed request. */
  let problem = null;
  let onTaken = () => {};
  let onRefused = () => {};

  const typed = () => questions.value.split(/\r\n|\r|\n/).map((line) => line.trim()).filter(Boolean);

  /** Show what would be submitted. Every change makes it a new submission with a new id. */
  function show() {
    submission = null;
    draw();
  }

  function draw() {
    const { file } = filePreview;
    const count = file ? filePreview.rows : typed().length;
    byId("count").textContent = typed().length ? wordFor("counted", typed().length) : "";
    byId("hint").textContent = maxBytes ? word("hintSize", { size: sizeOf(maxBytes) }) : word("hint");
    byId("name").placeholder = file ? file.name.replace(/\.[^.]*$/, "") : word("optional");
    questions.placeholder = word("questionsHint");
    byId("start").textContent = count ? wordFor("startCount", count) : word("start");
    byId("start").disabled = file ? !filePreview.ready() : count === 0;
    drawProblem();
  }

  function drawProblem() {
    const refusal = problem ?? filePreview.failure;
    say("not-taken", () => (!refusal ? "" : refusal instanceof Refused ? refusalWords(refusal) : word(...refusal)));
  }

  /** Take a chosen or dropped file; one that the server would refuse is not uploaded. */
  async function take(chosen) {
    if (!chosen) return undefined;
    problem = null;
    if (!FILES.test(chosen.name)) problem = ["noFile"];
    else if (await tooLarge(chosen.size)) problem = ["fileTooLarge", { size: sizeOf(chosen.size), most: sizeOf(maxBytes) }];
    byId("file").value = "";
    if (problem) return show();
    filePreview.take(chosen, show);
    byId("forget").focus();
    return undefined;
  }

  /** Whether a file of this size is too large; while the limit is unknown, the server decides. */
  async function tooLarge(size) {
    if (!maxBytes) await learn().catch(() => {});
    return maxBytes > 0 && size > maxBytes;
  }

  /** Ask the server how large a file may be. */
  async function learn() {
    if (maxBytes) return;
    maxBytes = (await api.status()).max_bytes;
    draw();
  }

  function body() {
    const name = byId("name").value.trim();
    const options = byId("priority").value === "normal" ? undefined : { priority: byId("priority").value };
    if (!filePreview.file) return { name: name || untitled(), texts: typed(), options };
    const form = new FormData();
    if (name) form.append("name", name);
    if (options) form.append("options", JSON.stringify(options));
    filePreview.addTo(form);
    return form;
  }

  const untitled = () => word("untitled", { time: new Date().toLocaleString(language()) });

  async function submit() {
    const start = byId("start");
    // Kept until it is accepted: repeating it after a failure finds the same task.
    submission ??= { body: body(), id: newId() };
    problem = null;
    start.disabled = true;
    start.textContent = word("starting");
    try {
      const taken = await api.submit(submission.body, submission.id);
      clear();
      onTaken(taken);
    } catch (refused) {
      if (!(refused instanceof Refused)) throw refused;
      if (refused.status === 401) onRefused(refused);
      else problem = refused;
      draw();
    }
  }

  function clear() {
    questions.value = byId("name").value = "";
    byId("priority").value = "normal";
    filePreview.take(null, show);
  }

  questions.addEventListener("input", () => {
    problem = null;
    show();
  });
  byId("name").addEventListener("input", show);
  byId("priority").addEventListener("change", show);
  byId("file").addEventListener("change", ({ target }) => take(target.files[0]));
  byId("forget").addEventListener("click", () => {
    problem = null;
    filePreview.take(null, show);
    byId("file").focus();
  });
  byId("new").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    byId("new").addEventListener(kind, (event) => {
      event.preventDefault();
      byId("drop").classList.toggle("over", kind === "dragover");
      if (kind === "drop") take(event.dataTransfer.files[0]);
    });
  }

  return {
    /** Call `taken` with what the server says of an accepted task, `refused` with a request that needs a key. */
    begin({ taken, refused }) {
      [onTaken, onRefused] = [taken, refused];
      draw();
    },
    learn,
    /** Show the form in the page's present language. */
    relabel() {
      filePreview.relabel();
      draw();
    },
  };
})();
