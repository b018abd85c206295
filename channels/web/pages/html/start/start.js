// The start page: only texts, which follow the language.

preferences.on("locale", relabel);
relabel();
