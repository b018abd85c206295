// Asks for a confirmation in a dialog of the page.

/** Resolve to whether the user confirms; `key` names the texts of the question, its explanation and the button. */
function confirmed(key, params) {
  const dialog = byId("confirm");
  byId("confirm-title").textContent = word(`${key}Title`, params);
  byId("confirm-text").textContent = word(`${key}Text`, params);
  byId("confirm-yes").textContent = word(key);
  dialog.returnValue = "";
  dialog.showModal();
  byId("confirm-no").focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

// Escape closes the dialog only, and stops nothing on the page.
byId("confirm").addEventListener("keydown", (event) => event.stopPropagation());
byId("confirm-no").addEventListener("click", () => byId("confirm").close());
byId("confirm-yes").addEventListener("click", () => byId("confirm").close("yes"));
