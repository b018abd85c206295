// Keeps the end of the conversation in view while it grows, also by pictures that load later, unless the reader has
// scrolled up; then a button leads back to it.

/** Pixels from the end within which the end counts as seen. */
const NEAR_END = 80;

const scrolling = (() => {
  const box = byId("scroll");
  const button = byId("latest");
  let follows = true;
  let top = 0;

  const left = () => box.scrollHeight - box.scrollTop - box.clientHeight;

  function draw() {
    button.hidden = left() < NEAR_END;
  }

  function toEnd() {
    follows = true;
    box.scrollTop = box.scrollHeight;
    // The reader may scroll up before the event of this scroll: one event then stands for both.
    top = box.scrollTop;
    draw();
  }

  box.addEventListener("scroll", () => {
    // Only a way up ends it: content that has grown since the last scroll is not the reader's doing.
    if (left() < NEAR_END) follows = true;
    else if (box.scrollTop < top) follows = false;
    top = box.scrollTop;
    draw();
  });
  const sizes = new ResizeObserver(() => (follows ? toEnd() : draw()));
  sizes.observe(byId("turns"));
  sizes.observe(box);
  button.addEventListener("click", () => {
    toEnd();
    box.focus();
  });

  return { toEnd };
})();
