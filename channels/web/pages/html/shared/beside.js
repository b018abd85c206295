// What an answer has beside its text: files, and the sources it is based on.

/** Characters of a source's excerpt. */
const EXCERPT = 200;

/** Return the files of an answer that its text or HTML does not show. */
function filesBeside(files, shown) {
  return files.filter(({ url }) => url.startsWith("/files/") && !shown.includes(url)).map(fileShown);
}

/** Return a picture, or a link to a file of another type. */
function fileShown({ url, name, type }) {
  if (type.startsWith("image/")) return enlargeable(Object.assign(element("img"), { src: url, alt: name }));
  return Object.assign(element("a", "", name), { href: url, download: name });
}

/** Return the sources as a list. */
function sourcesList(sources) {
  const list = element("ol", "source-list");
  list.append(...sources.map(sourceLine));
  return list;
}

/** Return a source's title and excerpt; it is a link only if its URL is http or https. `data-passage` is the passage. */
function sourceLine(source) {
  const line = element("li");
  const address = /^https?:\/\//i.test(source.url ?? "") ? source.url : "";
  const name = element(address ? "a" : "span", "", titleOf(source));
  if (address) Object.assign(name, { href: address, target: "_blank", rel: "noopener noreferrer nofollow" });
  line.append(name);
  const piece = String(source.snippet || "").trim();
  if (/[\p{L}\p{N}]/u.test(piece)) {
    line.dataset.passage = piece;
    line.append(element("q", "", piece.length > EXCERPT ? `${piece.slice(0, EXCERPT)}…` : piece));
  }
  return line;
}

/** Return a source's title, after the name of its knowledge base. */
function titleOf({ dataset_name: dataset, title, url }) {
  return [dataset, title].filter(Boolean).join(" · ") || String(url || "—");
}
