// The dialog in which a person enters, changes or forgets the API key; `preferences` remembers it.

const askKey = (() => {
  const dialog = byId("key");
  const input = byId("key-input");

  /** Open the dialog; `wrong` says that the server has refused the last key. A key that is being typed stays. */
  function ask(wrong = false) {
    if (dialog.open && !wrong) return;
    byId("key-wrong").hidden = !wrong;
    input.value = "";
    if (!dialog.open) dialog.showModal();
    input.focus();
  }

  const drawForget = () => (byId("key-forget").hidden = !preferences.key);
  drawForget();
  preferences.on("key", drawForget);
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    dialog.close();
    preferences.keep(input.value.trim(), event.target.elements.remember.value);
    input.value = "";
  });
  byId("key-forget").addEventListener("click", () => {
    dialog.close();
    preferences.keep("");
  });
  byId("key-cancel").addEventListener("click", () => dialog.close());
  byId("key-open").addEventListener("click", () => ask());
  // Escape closes the dialog only, and stops nothing on the page.
  dialog.addEventListener("keydown", (event) => event.stopPropagation());

  return ask;
})();
