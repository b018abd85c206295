// Converts Markdown to text for a voice: without markup, code, URLs and emoji; tables become lists.

const { PlainText, plainText } = (() => {
  /** Converts Markdown line by line, and keeps the state of code fences and thinking between lines. */
  class PlainText {
    #fence = "";
    #thinking = false;

    lines(markdown) {
      // Bounded parts, because the regular expressions are quadratic in the length of a line.
      const parts = markdown.split("\n").flatMap((line) => line.match(/.{1,2000}/gs) ?? []);
      return parts.map((line) => this.#line(line)).filter((line) => /[\p{L}\p{N}]/u.test(line));
    }

    #line(line) {
      const fence = /^\s*(`{3,}|~{3,})/.exec(line)?.[1] ?? "";
      if (this.#fence) {
        if (fence.startsWith(this.#fence)) this.#fence = "";
        return "";
      }
      this.#fence = fence;
      return fence || isRule(line) ? "" : spoken(this.#outsideThoughts(line));
    }

    /** Remove the model's thinking. */
    #outsideThoughts(line) {
      const parts = line.split(/(<\/?think>)/);
      return parts.filter((part) => {
        if (/^<\/?think>$/.test(part)) this.#thinking = part === "<think>";
        return !this.#thinking;
      }).join("");
    }
  }

  const isRule = (line) => /^[\s|:*_-]*$/.test(line);

  /** Replacements within a line, in this order. */
  const MARKS = [
    [/^\s*(?:>\s?)+/, ""],
    [/^\s*#{1,6}\s+/, ""],
    [/^\s*[-*+]\s+(?:\[[ xX]\]\s+)?/, ""],
    [/!?\[([^\]]*)\](?:\((?:[^()]|\([^)]*\))*\)|\[[^\]]*\])/g, "$1"],
    [/<?https?:\/\/[^\s<>，。；）)]+>?/g, ""],
    [/<\/?[a-z][^<>]*>/gi, ""],
    [/(\*{1,3}|~~)(?=\S)(.+?)\1/g, "$2"],
    [/(?<!\w)(__?)(?=\S)(.+?)\1(?!\w)/g, "$2"],
    [/`+/g, ""],
    [/\\([!-/:-@[-`{-~])/g, "$1"],
    [/&nbsp;/g, " "],
    [/&lt;/g, "<"],
    [/&gt;/g, ">"],
    [/&quot;/g, '"'],
    [/&amp;/g, "&"],
    [/[\p{Extended_Pictographic}\p{Emoji_Modifier}\u200d\u20e3\ufe0f]/gu, ""],
    [/\s+/g, " "],
  ];

  function spoken(line) {
    const cells = /^\s*\|.*\|\s*$/.test(line) ? line.split("|").filter((cell) => cell.trim()) : [line];
    return cells.map((cell) => MARKS.reduce((words, [mark, by]) => words.replace(mark, by), cell).trim()).join("，");
  }

  const plainText = (markdown) => new PlainText().lines(markdown).join("\n");

  return { PlainText, plainText };
})();
