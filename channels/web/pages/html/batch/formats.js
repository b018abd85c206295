// Formats of numbers, times, sizes and prices in the page's language, and helpers that set text.

/** Return the page's language as a BCP 47 tag. */
const language = () => (preferences.locale === "zh" ? "zh-CN" : "en");

/** Set an element's text if it differs. */
function put(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

const number = (value) => Number(value).toLocaleString(language());

/** Return the text of a key for a count, with its own form for one thing where the language has one. */
function wordFor(key, count) {
  return word(count === 1 && word(`${key}One`) ? `${key}One` : key, { count: number(count) });
}

/** Format a time; `dateStyle` "short" is for narrow places. */
const timeOf = (iso, dateStyle = "medium") => new Date(iso).toLocaleString(language(), { dateStyle, timeStyle: "short" });

/** Format a duration. */
function timeLeft(seconds) {
  if (seconds < 90) return word("seconds", { n: seconds < 10 ? Math.max(0.1, Math.round(seconds * 10) / 10) : Math.round(seconds) });
  if (seconds < 5400) return word("minutes", { n: Math.round(seconds / 60) });
  return word("hours", { n: Math.round(seconds / 360) / 10 });
}

/** Format a number of bytes. */
function sizeOf(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  const [value, unit] = bytes < 1024 ** 2 ? [bytes / 1024, "KB"] : [bytes / 1024 ** 2, "MB"];
  return `${Number(value.toFixed(value < 10 ? 1 : 0))} ${unit}`;
}

/** Format tokens and price of a usage, or of a list of them by currency; "" for none. */
function usageWords(usage) {
  const each = [usage ?? []].flat();
  const tokens = each.reduce((sum, one) => sum + (one.total_tokens ?? 0), 0);
  const prices = each.filter(({ total_price: price }) => Number(price) > 0);
  const words = prices.map(({ total_price: price, currency }) => `${Number(Number(price).toPrecision(4))} ${currency ?? ""}`.trim());
  return [tokens ? word("tokens", { count: number(tokens) }) : "", ...words].filter(Boolean).join(" · ");
}
