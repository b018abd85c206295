// The start page, and the one for a missing address: only texts, which follow the language.

preferences.on("locale", relabel);
relabel();
