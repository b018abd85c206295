// The words for failed requests and failed questions, in the page's language.

/** Return the sentence for a failed request. */
function refusalWords(refused) {
  const { status, reason, details } = refused;
  if (status === 0) return word("broken");
  if (word(`why_${reason}`)) return word(`why_${reason}`, errorParams(details));
  if (status === 413) return word("tooLarge");
  return sentenceOf(refused) || word("failed");
}

/** Return the sentence for a failed question. */
function errorWords(error) {
  return sentenceOf(error ?? {}) || word("failed");
}

/** Return what the texts of errors insert: the fields, the first text's number, and the limit. */
function errorParams({ errors = [], max_bytes: most = 0 }) {
  const fields = errors.map(({ field }) => field);
  const place = Number(/^texts\.(\d+)/.exec(fields[0])?.[1] ?? 0);
  return { fields: fields.join(word("comma")), number: place + 1, most: sizeOf(most) };
}
