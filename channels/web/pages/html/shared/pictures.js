// Pictures of an answer are shown large in a dialog when they are pressed. One of another host stays a link to where it
// is for every other kind of click, and the dialog has the link too.

const { enlargeable, enlargePictures } = (() => {
  const LABELS = {
    zh: { enlarge: "放大图片", origin: "打开原图", close: "关闭" },
    en: { enlarge: "Enlarge the picture", origin: "Open the original", close: "Close" },
  };
  const label = (key) => LABELS[document.documentElement.lang.startsWith("zh") ? "zh" : "en"][key];
  const dialog = element("dialog", "picture-dialog");
  const shown = element("img");
  const origin = Object.assign(element("a"), { target: "_blank", rel: "noopener noreferrer nofollow" });
  const close = Object.assign(element("button"), { type: "button", autofocus: true });
  const line = element("div", "buttons");
  line.append(origin, close);
  dialog.append(shown, line);
  document.body.append(dialog);
  // As large as the window allows, and a small picture at twice its size, which is known once it has loaded.
  shown.addEventListener("load", () => { shown.style.width = `${2 * shown.naturalWidth}px`; });
  close.addEventListener("click", () => dialog.close());
  // The ground around the picture belongs to the dialog.
  dialog.addEventListener("click", ({ target }) => target === dialog && dialog.close());
  // Escape closes the dialog only, and stops nothing on the page.
  dialog.addEventListener("keydown", (event) => event.stopPropagation());

  function open(picture, address) {
    shown.style.width = "";
    Object.assign(shown, { src: picture.src, alt: picture.alt });
    origin.href = address;
    origin.textContent = label("origin");
    close.textContent = label("close");
    dialog.ariaLabel = picture.alt || label("enlarge");
    dialog.showModal();
  }

  function openInstead(event, picture, address) {
    // A picture that could not be loaded is gone; with a key the browser opens the link elsewhere.
    if (!picture.isConnected || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    open(picture, address);
  }

  /** Return a picture of this host in a button, for the keyboard. */
  function enlargeable(picture) {
    const button = element("button", "enlarge");
    Object.assign(button, { type: "button", onclick: () => open(picture, picture.src) });
    button.append(picture);
    if (!picture.alt) button.ariaLabel = label("enlarge");
    return button;
  }

  /** Let the pictures in an element be enlarged. */
  function enlargePictures(place) {
    for (const picture of place.querySelectorAll("a.picture > img")) {
      const link = picture.parentElement;
      link.onclick = (event) => openInstead(event, picture, link.href);
    }
    for (const picture of place.querySelectorAll("img:not(a img, button img)")) {
      const next = picture.nextSibling;
      const parent = picture.parentNode;
      parent.insertBefore(enlargeable(picture), next);
    }
  }

  return { enlargeable, enlargePictures };
})();
